"""What every feature of an SAE writes, read off its weights: the logit lens of its decoder direction.

The logits of a direction d are W_U (γ ⊙ d), with the final norm's gain γ and the unembedding W_U (nostalgebraist 2020,
"interpreting GPT: the logit lens"; d is centred first where the norm centres). In standard deviations over the vocabulary:

- *output score* of a feature for given targets: the mean of the targets' values; without targets: the largest value.

Arad, Mueller and Belinkov (2025, "SAEs Are Good for Steering -- If You Select the Right Features") separate features that read
from features that write by an output score of their own, which intervenes on the model for each feature. This figure needs no
run of the model, so that all features of an SAE have one; it knows nothing of what the blocks in between do with the
direction, and says little of early layers. What a feature causes is measured by ``measuring``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from conceptatlas.base.errors import InputError
from conceptatlas.evidence.features import FeatureRef
from conceptatlas.evidence.tensors import SAETensors
from conceptatlas.subjects import LanguageSubject, Site
from conceptatlas.subjects.generation import output_head

if TYPE_CHECKING:
    from conceptatlas.recording import Recording

# Sites whose values are, or are added to, the residual stream.
WRITING_HOOKS = frozenset({"hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_mlp_out"})
# Logits at a time (128 MiB as float32).
LOGITS_AT_ONCE = 2**25
TOP_TOKENS = 10


@dataclass(frozen=True)
class Lens:
    """Final norm and unembedding as one matrix.

    Attributes:
        W: float32 [D, V]: a direction's logits are d @ W.
        tokens: Which tokens the V columns are: those that stand for text.
    """

    W: torch.Tensor
    tokens: npt.NDArray[np.int64]

    @classmethod
    def of(cls, subject: LanguageSubject) -> Lens:
        """Return the lens of a model; special tokens and embeddings without a token are left out.

        Raises:
            InputError: The model has no head that predicts tokens.
        """
        weight = torch.as_tensor(output_head(subject.hf_model, subject.id).weight).detach().float()
        known = min(len(weight), len(subject.tokenizer))
        tokens = np.setdiff1d(np.arange(known), subject.token_rules.special_ids)
        gain, centred = final_norm(subject)
        W = (weight[torch.from_numpy(tokens).to(weight.device)] * gain).T
        return cls(W - W.mean(0) if centred else W, tokens)


@torch.no_grad()
def final_norm(subject: LanguageSubject) -> tuple[torch.Tensor, bool]:
    """Return the gain of the norm before the unembedding, float32 [D], and whether that norm centres its input.

    Found by what the norm does to rows of +1 and -1, so that it does not matter how a family writes its gain (Gemma adds 1
    to the weight). Ones where the text model ends without a norm.
    """
    norms = [module for module in subject.stack.base.children() if "norm" in type(module).__name__.lower()]
    signs = torch.ones(subject.d_model, device=subject.device)
    signs[1::2] = -1
    if not norms:
        return torch.ones_like(signs), False

    def normed(x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(norms[-1](x[None, None].to(subject.dtype))).float()[0, 0]

    gain = (normed(signs) - normed(-signs)) / 2 * signs
    shifted = normed(signs + 2)
    return gain, bool(torch.allclose(shifted, normed(signs), atol=1e-2, rtol=1e-2))


def output_scores(W_dec: torch.Tensor, lens: Lens, targets: Sequence[int] | None = None) -> dict[str, npt.NDArray[Any]]:
    """Return what each feature writes, one array [F] per figure.

    Args:
        W_dec: Decoder directions, [F, D].
        lens: The model's lens.
        targets: Token ids; None for the largest value instead.

    Returns:
        ``output_score`` (float32, standard deviations over the vocabulary), ``top_token`` (int64, the token that rises
        most), ``top_z`` (float32, its value) and ``kurtosis`` (float32, of the values, 3 for a normal distribution: large
        where a feature writes few tokens). A direction of no length has NaN.
    """
    n, size = len(W_dec), len(lens.tokens)
    columns = None if targets is None else torch.from_numpy(np.flatnonzero(np.isin(lens.tokens, list(targets))))
    found: dict[str, list[torch.Tensor]] = {"output_score": [], "top_token": [], "top_z": [], "kurtosis": []}
    step = max(1, LOGITS_AT_ONCE // size)
    for start in range(0, n, step):
        z = standardised(W_dec[start : start + step].to(lens.W) @ lens.W)
        top, place = z.max(1)
        found["output_score"].append(top if columns is None else z[:, columns.to(z.device)].mean(1))
        found["top_token"].append(place)
        found["top_z"].append(top)
        found["kurtosis"].append(z.square_().square_().mean(1))
    joined = {name: torch.cat(parts).cpu().numpy() for name, parts in found.items()}
    return {**joined, "top_token": lens.tokens[joined["top_token"]]}


def standardised(logits_FV: torch.Tensor) -> torch.Tensor:
    """Return logits in standard deviations over the vocabulary, row by row, in place; NaN where all are equal."""
    logits_FV -= logits_FV.mean(1, keepdim=True)
    logits_FV /= logits_FV.square().mean(1, keepdim=True).sqrt()
    return logits_FV


def score_table(
    subject: LanguageSubject,
    lens: Lens,
    W_dec: torch.Tensor,
    *,
    ranked: Sequence[int],
    targets: Sequence[int] | None,
) -> pl.DataFrame:
    """Return one line per feature of an SAE: the figures of `output_scores`, tokens as text.

    Args:
        subject: The model.
        lens: Its lens.
        W_dec: The SAE's decoder directions, [F, D].
        ranked: Features whose most promoted and most suppressed tokens are listed, too (null for the others).
        targets: Token ids, or None.
    """
    figures = output_scores(W_dec, lens, targets)
    texts = subject.token_texts(figures["top_token"].astype(np.int32))
    promoted: list[str | None] = [None] * len(W_dec)
    suppressed: list[str | None] = [None] * len(W_dec)
    for feature in ranked:
        logits = W_dec[feature].to(lens.W) @ lens.W
        for into, largest in ((promoted, True), (suppressed, False)):
            ids = lens.tokens[logits.topk(min(TOP_TOKENS, len(logits)), largest=largest).indices.cpu().numpy()]
            into[feature] = " ".join(text.strip() or text for text in subject.token_texts(ids.astype(np.int32)))
    return pl.DataFrame(
        {
            "feature_id": pl.Series(range(len(W_dec)), dtype=pl.Int64),
            "output_score": figures["output_score"],
            "top_token": texts,
            "top_z": figures["top_z"],
            "kurtosis": figures["kurtosis"],
            "promoted": pl.Series(promoted, dtype=pl.String),
            "suppressed": pl.Series(suppressed, dtype=pl.String),
        }
    ).with_columns(pl.col("output_score", "top_z", "kurtosis").fill_nan(None))


def writes_to_the_stream(site: str, width: int, subject: LanguageSubject) -> bool:
    """Return whether a decoder at this site writes into the residual stream, so that the lens says something of it."""
    return width == subject.d_model and Site.parse(site).hook in WRITING_HOOKS


def score_saes(
    subject: LanguageSubject,
    rec: Recording,
    tensors: Callable[[str], SAETensors],
    ranked: Sequence[FeatureRef],
    targets: Sequence[int] | None,
) -> tuple[pl.DataFrame, dict[str, str]]:
    """Return what every feature of a recording's SAEs writes, and why some SAEs have no such figure.

    Args:
        subject: The model.
        rec: The recording.
        tensors: Loads an SAE by its slug.
        ranked: Features whose most promoted and most suppressed tokens are listed, too.
        targets: Token ids, or None.

    Returns:
        The lines of ``output_scores.parquet`` (slug, sae_id, layer, feature_id, output_score, top_token, top_z, kurtosis,
        promoted, suppressed), and slug → reason.
    """
    lens = Lens.of(subject)
    tables: list[pl.DataFrame] = []
    without: dict[str, str] = {}
    for sae in rec.saes:
        try:
            W_dec = tensors(sae.slug).W_dec
        except InputError as error:
            without[sae.slug] = str(error)
            continue
        if not writes_to_the_stream(sae.site, W_dec.shape[1], subject):
            without[sae.slug] = f"what stands at {sae.site} is not added to the residual stream as it is"
            continue
        own = [ref.feature_id for ref in ranked if ref.slug == sae.slug]
        table = score_table(subject, lens, W_dec, ranked=own, targets=targets)
        name = pl.lit(sae.slug).alias("slug"), pl.lit(sae.sae_id).alias("sae_id")
        tables.append(table.select(*name, pl.lit(sae.layer, dtype=pl.Int32).alias("layer"), pl.all()))
    return (pl.concat(tables) if tables else pl.DataFrame()), without
