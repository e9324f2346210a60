"""Which inputs push a feature: gradients, integrated gradients, and leaving one out as the slow truth.

Each function takes ``score``: inputs [N, ...] → the feature's activation or pre-activation, [N], differentiable. For
images the inputs are pixels, for text the token embeddings.

Sources: input × gradient, Shrikumar et al. 2016 (arXiv 1605.01713); integrated gradients, Sundararajan et al. 2017
(arXiv 1703.01365), eq. 1, here by the midpoint rule.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

Score = Callable[[torch.Tensor], torch.Tensor]


def input_gradient(score: Score, inputs: torch.Tensor) -> torch.Tensor:
    """Return ∂score/∂input for each input, in the shape of ``inputs``."""
    leaf = inputs.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(score(leaf).sum(), leaf)
    return gradient.detach()


def input_times_gradient(score: Score, inputs: torch.Tensor) -> torch.Tensor:
    """Return input · ∂score/∂input, in the shape of ``inputs``."""
    return inputs.detach() * input_gradient(score, inputs)


def integrated_gradients(
    score: Score, inputs: torch.Tensor, *, baseline: torch.Tensor | None = None, steps: int = 64
) -> torch.Tensor:
    """Return the integrated gradients of ``score`` from ``baseline`` (zeros unless given) to ``inputs``.

    They are complete: summed over an input they approach score(input) − score(baseline) as ``steps`` grows.
    """
    start = torch.zeros_like(inputs) if baseline is None else baseline
    total = torch.zeros_like(inputs)
    for step in range(steps):
        total += input_gradient(score, start + (step + 0.5) / steps * (inputs - start))
    return (inputs - start) * total / steps


@torch.no_grad()
def leave_one_out(score: Score, variants: torch.Tensor, full: torch.Tensor) -> torch.Tensor:
    """Return by how much the score falls when one part is left out, [P].

    Args:
        score: As above.
        variants: The input with part p left out, for each p: [P, ...].
        full: The whole input, [1, ...].
    """
    return score(full)[0] - score(variants)
