"""Edits of the activations at a site: the interventions behind every causal figure.

An edit takes activations [..., D] in the space of the site and returns what the subject goes on with. All of them work
on images and on text alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from conceptatlas.base.errors import InputError
from conceptatlas.subjects.above import Edits
from conceptatlas.subjects.protocol import Edit


def unit(direction_D: torch.Tensor) -> torch.Tensor:
    """Return ``direction_D`` at length one.

    Raises:
        InputError: It has no length.
    """
    norm = direction_D.norm()
    if not float(norm) > 0:
        raise InputError("A direction of length zero cannot be steered along; choose another feature.")
    return direction_D / norm


def steer(direction_D: torch.Tensor, amount: float) -> Edit:
    """Return the edit x → x + amount · direction."""
    return lambda x: x + amount * direction_D.to(device=x.device, dtype=x.dtype)


def feature_activations(sae: Any, x: torch.Tensor, feature: int) -> torch.Tensor:
    """Return the activation of one feature, [...], for activations x, [..., D] (through SAELens's own ``encode``)."""
    return sae.encode(x.to(sae.W_dec.dtype))[..., feature]


def ablate(sae: Any, feature: int) -> Edit:
    """Return the edit that takes the feature's contribution out: x → x − f(x) · W_dec[f]."""

    def edit(x: torch.Tensor) -> torch.Tensor:
        contribution = feature_activations(sae, x, feature)[..., None] * sae.W_dec[feature]
        return x - contribution.to(x.dtype)

    return edit


def reconstruct(sae: Any) -> Edit:
    """Return the edit that puts the SAE's reconstruction in the place of the activations: x → decode(encode(x))."""

    def edit(x: torch.Tensor) -> torch.Tensor:
        return sae.decode(sae.encode(x.to(sae.W_dec.dtype))).to(x.dtype)

    return edit


def reconstruct_boolean(sae: Any) -> Edit:
    """Return the edit that decodes only *which* latents are active: x → decode(1[encode(x) ≠ 0])."""

    def edit(x: torch.Tensor) -> torch.Tensor:
        active = (sae.encode(x.to(sae.W_dec.dtype)) != 0).to(sae.W_dec.dtype)
        return sae.decode(active).to(x.dtype)

    return edit


def steer_each(vectors_ED: torch.Tensor) -> Edits:
    """Return E edits at once, x → x + vector: activations [B, S, D] → [E, B, S, D]."""
    return lambda x: x[None] + vectors_ED.to(device=x.device, dtype=x.dtype)[:, None, None]


def ablate_each(sae: Any, features: Sequence[int]) -> Edits:
    """Return an edit for each feature that takes its contribution out: activations [B, S, D] → [E, B, S, D].

    The activations are encoded once for all of them.
    """
    chosen = list(features)

    def edit(x: torch.Tensor) -> torch.Tensor:
        acts = sae.encode(x.to(sae.W_dec.dtype))[..., chosen].movedim(-1, 0)
        return x[None] - (acts[..., None] * sae.W_dec[chosen][:, None, None]).to(x.dtype)

    return edit


def random_directions(d_model: int, n: int, rng: np.random.Generator) -> torch.Tensor:
    """Return ``n`` unit vectors drawn evenly from the sphere, [n, D]."""
    draws = rng.standard_normal((n, d_model)).astype(np.float32)
    return torch.from_numpy(draws / np.linalg.norm(draws, axis=1, keepdims=True))
