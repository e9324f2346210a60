"""How good SAEs are on held-out text: unexplained variance, active latents, and what their reconstruction costs the model.

1. One pass of the model gives the states of all sites; each SAE encodes and decodes its site's.
2. The cross-entropy (CE) of the next token, in nats: of the model as it is, with the site's rows set to zero, and with
   them replaced by the reconstruction. Loss recovered = (CE zero − CE spliced) / (CE zero − CE clean).

SAELens's own evaluation does the same for one SAE at a time; here the plain and the zeroed passes serve all SAEs of a
site, and what is left out in training (special tokens, attention sinks) is left as it is, in every pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from conceptatlas.base.errors import InputError
from conceptatlas.base.progress import progress_bar
from conceptatlas.recording.plan import BATCH_TOKENS, batches
from conceptatlas.saes import Decoder, Encoder
from conceptatlas.saes.encode import encode_dense
from conceptatlas.subjects import Site
from conceptatlas.subjects.capture import Batch, pad_batch
from conceptatlas.training.contexts import Contexts

if TYPE_CHECKING:
    from conceptatlas.subjects import LanguageSubject

# Logits of a batch take at most so many numbers (256 MiB of float32).
_LOGITS = 64 << 20

Rewrite = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Trained:
    """A trained SAE as it was saved: where it reads, and its two halves."""

    site: Site
    encoder: Encoder
    decoder: Decoder

    def reconstruct(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the reconstruction of rows [T, D], float32."""
        return encode_dense(rows, self.encoder) @ self.decoder.W_dec + self.decoder.b_dec


@dataclass(frozen=True)
class Quality:
    """Figures of one SAE on held-out rows."""

    n_rows: int
    """Rows that were measured on; special tokens and attention sinks are none."""
    fvu: float
    """Fraction of variance unexplained: squared error over the squared distance from the mean row."""
    l0: float
    """Mean number of active latents a row."""
    silent: float
    """Share of latents that are active on none of these rows."""
    ce_clean: float | None = None
    """Mean CE of the next token in nats, the model as it is; None where it cannot be measured."""
    ce_zero: float | None = None
    """The same with the site's rows set to zero."""
    ce_spliced: float | None = None
    """The same with the site's rows replaced by the reconstruction."""
    loss_recovered: float | None = None
    """(CE zero − CE spliced) / (CE zero − CE clean); None where zeroing the site costs nothing."""
    why_no_loss: str = ""
    """Why there is no CE."""


class _Sums:
    """Sums over rows for the figures of one SAE."""

    def __init__(self, d_in: int, d_sae: int, device: torch.device) -> None:
        self.rows, self.active, self.error, self.squares = 0, 0.0, 0.0, 0.0
        self.total = torch.zeros(d_in, dtype=torch.float64, device=device)
        self.fired = torch.zeros(d_sae, dtype=torch.bool, device=device)

    def add(self, rows: torch.Tensor, trained: Trained) -> None:
        """Add rows [T, D]."""
        acts = encode_dense(rows, trained.encoder)
        found = acts @ trained.decoder.W_dec + trained.decoder.b_dec
        wide = rows.double()
        self.rows += len(rows)
        self.active += float((acts != 0).sum())
        self.error += float((wide - found).pow(2).sum())
        self.squares += float(wide.pow(2).sum())
        self.total += wide.sum(dim=0)
        self.fired |= (acts != 0).any(dim=0)

    def figures(self) -> tuple[int, float, float, float]:
        """Return rows, FVU, L0 and the share of silent latents."""
        variance = self.squares - float(self.total.pow(2).sum()) / self.rows
        silent = 1 - float(self.fired.double().mean())
        return self.rows, self.error / variance, self.active / self.rows, silent


def _kept(rows: torch.Tensor, limit: float) -> torch.Tensor:
    """Return which rows [T, D] are no attention sinks, bool [T]."""
    return torch.linalg.vector_norm(rows.float(), dim=-1) <= limit


def rewriting(inner: torch.Tensor, limit: float, rewrite: Rewrite) -> Rewrite:
    """Return the edit of the values at a site, [B, S, D], that rewrites some of its rows.

    Args:
        inner: Positions of the rows that are no special tokens, in the flattened [B · S].
        limit: Greatest norm of a row that is no attention sink.
        rewrite: [T, D] float32 → [T, D].
    """

    def edit(values: torch.Tensor) -> torch.Tensor:
        flat = values.reshape(values.shape[0] * values.shape[1], -1).clone()
        kept = inner[_kept(flat[inner], limit)]
        flat[kept] = rewrite(flat[kept].float()).to(flat.dtype)
        return flat.reshape(values.shape)

    return edit


def _cross_entropy(subject: LanguageSubject, batch: Batch, targets: torch.Tensor) -> float:
    """Return the summed CE in nats of ``targets`` [T] at the batch's rows."""
    logits = subject.run_with_head(batch)
    return float(torch.nn.functional.cross_entropy(logits, targets, reduction="sum").double())


@dataclass
class _Losses:
    """Summed CE of held-out tokens: clean, by site with zeros, by SAE with its reconstruction."""

    n: int
    clean: float
    zero: dict[str, float]
    spliced: dict[str, float]

    def add(
        self,
        subject: LanguageSubject,
        ids: Sequence[npt.NDArray[np.int32]],
        masks: Sequence[npt.NDArray[np.bool_]],
        saes: Mapping[str, Trained],
        limits: Mapping[str, float],
    ) -> None:
        """Add one batch of contexts."""
        asked = [np.append(mask[1:], False) for mask in masks]  # the next token is no special one
        batch = pad_batch(ids, asked, pad_id=subject.pad_id, device=subject.device)
        inner = pad_batch(ids, masks, pad_id=subject.pad_id, device=subject.device).rows
        following = np.concatenate([part[1:][mask[1:]] for part, mask in zip(ids, masks, strict=True)])
        targets = torch.from_numpy(following.astype(np.int64)).to(subject.device)
        self.n += len(targets)
        self.clean += _cross_entropy(subject, batch, targets)
        for name in self.zero:
            with subject.edited(Site.parse(name), rewriting(inner, limits[name], torch.zeros_like)):
                self.zero[name] += _cross_entropy(subject, batch, targets)
        for sae_id in self.spliced:
            one = saes[sae_id]
            with subject.edited(one.site, rewriting(inner, limits[str(one.site)], one.reconstruct)):
                self.spliced[sae_id] += _cross_entropy(subject, batch, targets)


def measure(
    subject: LanguageSubject,
    contexts: Contexts,
    saes: Mapping[str, Trained],
    limits: Mapping[str, float],
    *,
    most: int,
) -> dict[str, Quality]:
    """Measure SAEs on held-out contexts: SAE id → figures.

    Args:
        subject: The model.
        contexts: The contexts, of which the held-out ones are used.
        saes: SAE id → the SAE.
        limits: Site → greatest norm of a row that is no sink.
        most: Contexts at most.
    """
    which = np.flatnonzero(contexts.held_out)[:most]
    ids = [np.asarray(contexts.of(int(context))) for context in which]
    masks = [~np.isin(part, subject.token_rules.special_ids) for part in ids]
    sites = list(dict.fromkeys(one.site for one in saes.values()))
    reasons = {str(site): _why_no_loss(subject, site) for site in sites}
    losses = _Losses(
        0,
        0.0,
        {name: 0.0 for name, why in reasons.items() if not why},
        {sae_id: 0.0 for sae_id, one in saes.items() if not reasons[str(one.site)]},
    )
    sums = {
        sae_id: _Sums(one.encoder.W_enc.shape[0], len(one.decoder.W_dec), subject.device)
        for sae_id, one in saes.items()
    }
    at_once = max(1, min(BATCH_TOKENS.get(subject.device.type, 768), _LOGITS // subject.vocabulary))
    with torch.no_grad(), progress_bar("Measuring on held-out text", len(which)) as bar:
        for part in batches([len(one) for one in ids], at_once):
            some, rows = [ids[i] for i in part], [masks[i] for i in part]
            states = subject.hidden_states(some, sites, rows, dtype=torch.float32)
            for sae_id, one in saes.items():
                found = states[str(one.site)]
                sums[sae_id].add(found[_kept(found, limits[str(one.site)])], one)
            if losses.spliced:
                losses.add(subject, some, rows, saes, limits)
            bar.advance(len(part))
    return {sae_id: _quality(sae_id, str(one.site), sums[sae_id], losses, reasons) for sae_id, one in saes.items()}


def _why_no_loss(subject: LanguageSubject, site: Site) -> str:
    """Return why the CE cannot be measured with an edit at ``site``; empty where it can."""
    from conceptatlas.subjects.generation import output_head

    if subject.prefix_rule.limit == 0:
        return f"{subject.id} is no causal model, and has no next token."
    try:
        output_head(subject.hf_model, subject.id)
        subject.editable_place(site)
    except InputError as error:
        return str(error)
    return ""


def _quality(sae_id: str, site: str, sums: _Sums, losses: _Losses, reasons: Mapping[str, str]) -> Quality:
    if sae_id not in losses.spliced:
        return Quality(*sums.figures(), why_no_loss=reasons[site])
    clean, zero = losses.clean / losses.n, losses.zero[site] / losses.n
    spliced = losses.spliced[sae_id] / losses.n
    recovered = (zero - spliced) / (zero - clean) if zero > clean else None
    return Quality(*sums.figures(), ce_clean=clean, ce_zero=zero, ce_spliced=spliced, loss_recovered=recovered)
