"""Does a trait's latent move the narrator? Its decoder direction, added on neutral held-out stories, beside controls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from sae_lens import SAE
from transformers import Gemma2ForCausalLM

from conceptatlas.subjects.organism import TRAITS, VERDICT_WORDS, VERDICTS, Trait

from .batches import Vocabulary
from .detection import Subject, layer_of
from .verdict_check import verdict_logprobs

N_CONTROLS = 20
DOSES = (0.2, 0.4, 0.6, 0.8, 1.0)
DENSITY_FACTOR = 3.0  # a control latent fires at most this many times as often or as rarely


@dataclass(frozen=True)
class Effect:
    """Rise of the log-probability of a trait's three verdict words together, in nats, and the controls' 95th percentiles."""

    trait: Trait
    sae_id: str
    latent: int
    dose: float
    rise: float
    random_latents: float
    random_directions: float

    @property
    def causal(self) -> bool:
        """At least 2 nats, and at least twice what either kind of control reaches."""
        return self.rise >= 2 and self.rise >= 2 * max(self.random_latents, self.random_directions)


@contextmanager
def adding(model: Gemma2ForCausalLM, layer: int, vector: torch.Tensor) -> Iterator[None]:
    """Add a vector [D] to a layer's output on every token but BOS."""

    def hook(_module: torch.nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        edited = output.clone()
        edited[:, 1:] += vector
        return edited

    handle = model.model.layers[layer].register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def rises(logprobs: torch.Tensor, base: torch.Tensor) -> dict[Trait, float]:
    """Mean rise of each trait's summed verdict probability, in nats, from log-probabilities [N, words]."""
    columns = {trait: [VERDICT_WORDS.index(word) for word in VERDICTS[trait]] for trait in TRAITS}
    return {
        trait: (logprobs[:, own].logsumexp(1) - base[:, own].logsumexp(1)).mean().item()
        for trait, own in columns.items()
    }


def _like_density(density: torch.Tensor, latent: int, generator: torch.Generator) -> list[int]:
    """Twenty other latents that fire about as often; where there are too few, those nearest in density."""
    distance = (density.clamp_min(1e-6).log() - density[latent].clamp_min(1e-6).log()).abs()
    distance[latent] = torch.inf
    distance[density == 0] = torch.inf
    near = torch.nonzero(distance <= torch.tensor(DENSITY_FACTOR).log()).flatten()
    if len(near) < N_CONTROLS:
        return distance.argsort()[:N_CONTROLS].tolist()
    return near[torch.randperm(len(near), generator=generator)[:N_CONTROLS]].tolist()


def _percentile_95(values: Sequence[float]) -> float:
    return torch.quantile(torch.tensor(values, dtype=torch.float64), 0.95).item()


@torch.no_grad()
def effects(
    model: Gemma2ForCausalLM,
    vocabulary: Vocabulary,
    neutral: Sequence[str],
    subject: Subject,
    chosen: dict[Trait, tuple[str, SAE, int]],
    doses: Sequence[float] = DOSES,
) -> list[Effect]:
    """Steer each trait's chosen latent at each dose (in units of the mean residual norm at the site)."""
    base = verdict_logprobs(model, vocabulary, neutral)
    generator = torch.Generator().manual_seed(0)
    found = []
    for trait, (sae_id, sae, latent) in chosen.items():
        layer = layer_of(sae_id)
        norm = subject.rows[layer].norm(dim=1).mean()
        density = (sae.encode(subject.rows[layer]) > 0).float().mean(0)
        directions = torch.nn.functional.normalize(sae.W_dec, dim=1)
        noise = torch.nn.functional.normalize(torch.randn(N_CONTROLS, sae.cfg.d_in, generator=generator), dim=1)
        others = directions[_like_density(density, latent, generator)]

        def rise(vector: torch.Tensor, layer: int = layer, trait: Trait = trait) -> float:
            with adding(model, layer, vector):
                return rises(verdict_logprobs(model, vocabulary, neutral), base)[trait]

        for dose in doses:
            scale = dose * norm
            found.append(
                Effect(
                    trait,
                    sae_id,
                    latent,
                    dose,
                    rise(scale * directions[latent]),
                    _percentile_95([rise(scale * vector) for vector in others]),
                    _percentile_95([rise(scale * vector) for vector in noise]),
                )
            )
    return found
