"""Which tokens of a text push a feature: the attributions of ``attribution`` over token embeddings.

The score is the feature's pre-activation at one row (it has a gradient on both sides of the threshold, and differences of
it add up). Special tokens keep their embedding everywhere; the baseline of the others is the mean of their embeddings: a
text of the same length that says nothing. (Not the zero vector: the models normalise each row, so that the score jumps at
zero and no sum over steps is complete.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from conceptatlas.base.errors import InputError
from conceptatlas.evidence.attribution import input_times_gradient, integrated_gradients
from conceptatlas.evidence.readout import RowMask, TokenIds
from conceptatlas.evidence.tensors import SAETensors
from conceptatlas.subjects import LanguageSubject, Site

IG_STEPS = 64


@dataclass(frozen=True)
class TokenAttribution:
    """How far each token pushes a feature at one row, in units of the feature's pre-activation.

    Attributes:
        tokens: The S tokens as text.
        input_times_gradient: One number for each token, [S].
        integrated_gradients: Likewise.
        leave_one_out: By how much the score falls without the token, [S] (0 for special tokens and for the row's own token,
            whose removal would move the row).
        score: The pre-activation.
        baseline: That of the baseline.
    """

    tokens: list[str]
    input_times_gradient: list[float]
    integrated_gradients: list[float]
    leave_one_out: list[float]
    score: float
    baseline: float


def attribute_tokens(
    subject: LanguageSubject, sae: SAETensors, site: str, feature: int, ids: TokenIds, *, steps: int = IG_STEPS
) -> TokenAttribution:
    """Attribute a feature's pre-activation at the last token to the tokens of a text.

    Args:
        subject: The model.
        sae: The SAE.
        site: Its site.
        feature: Which feature.
        ids: The text, int32 [S].
        steps: Of integrated gradients.

    Raises:
        InputError: The text has fewer than two tokens.
    """
    if len(ids) < 2:
        raise InputError("A text of one token has nothing to attribute to; give a longer one.")
    embeddings = _embeddings(subject, ids)
    text = ~np.isin(ids, subject.token_rules.special_ids)
    start = embeddings.clone()
    start[:, text] = embeddings[:, text].mean(1, keepdim=True)

    def score(values: torch.Tensor) -> torch.Tensor:
        return _score(subject, sae, site, feature, ids, values)

    with torch.no_grad():
        ends = score(torch.cat([embeddings, start]))
    return TokenAttribution(
        tokens=subject.token_texts(ids),
        input_times_gradient=input_times_gradient(score, embeddings)[0].sum(-1).tolist(),
        integrated_gradients=integrated_gradients(score, embeddings, baseline=start, steps=steps)[0].sum(-1).tolist(),
        leave_one_out=_leave_one_out(subject, sae, site, feature, ids, text),
        score=float(ends[0]),
        baseline=float(ends[1]),
    )


def _embeddings(subject: LanguageSubject, ids: TokenIds) -> torch.Tensor:
    site = Site.parse("hook_embed")
    return subject.hidden_states([ids], [site])[str(site)][None]


def _score(
    subject: LanguageSubject, sae: SAETensors, site: str, feature: int, ids: TokenIds, embeddings: torch.Tensor
) -> torch.Tensor:
    """Return the pre-activation at the last row for each of several embeddings of the same tokens, [B]."""
    seen: list[torch.Tensor] = []

    def keep(x: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return x

    with (
        subject.edited(Site.parse("hook_embed"), lambda _x: embeddings),
        subject.edited(Site.parse(site), keep),
    ):
        subject.logits([ids] * len(embeddings), grad=torch.is_grad_enabled())
    return sae.preactivation(seen[0][:, -1], feature)


@torch.no_grad()
def _leave_one_out(
    subject: LanguageSubject, sae: SAETensors, site: str, feature: int, ids: TokenIds, text: RowMask
) -> list[float]:
    places = np.flatnonzero(text[:-1])
    variants = [ids, *(np.delete(ids, place) for place in places)]
    masks = [np.arange(len(variant)) == len(variant) - 1 for variant in variants]
    rows = subject.hidden_states(variants, [Site.parse(site)], masks)[site]
    scores = sae.preactivation(rows, feature)
    falls = np.zeros(len(ids))
    falls[places] = (scores[0] - scores[1:]).cpu().numpy()
    return [float(fall) for fall in falls]
