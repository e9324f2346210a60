"""What training asks of the model's insides: each trait's degree as a length along one direction, in even steps.

The truth about the built-in model is to be known. Without this its degrees come to lie anywhere, and an SAE finds a latent
for each of them instead of one that grows. The directions are the training's own choice.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from conceptatlas.subjects.organism.lexicon import TRAITS
from conceptatlas.subjects.organism.verdicts import N_STATES

from .batches import SENTENCE_END, VERDICT, Batch

STEP = 2.0  # length along a trait's direction per degree, in residual units
MEMORY = 0.95  # of the running means


def asked_of(batch: Batch) -> torch.Tensor:
    """Where the degree is known: the ends of sentences, and from the story's end to the verdict; bool [B, L]."""
    return (batch.roles == SENTENCE_END) | (batch.roles == VERDICT)


class Tally(nn.Module):
    """Reads the running degree of every trait off the residual stream; thrown away after training.

    A trait's degree is the projection on a unit vector, less an offset, in steps of ``STEP``: a linear
    representation of a known size. Which vectors, the training finds out.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.directions = nn.Parameter(torch.randn(len(TRAITS), width))
        self.offsets = nn.Parameter(torch.zeros(len(TRAITS)))

    def forward(self, residual_BLD: torch.Tensor) -> torch.Tensor:
        """Return the degrees, [B, L, traits]."""
        return residual_BLD.float() @ functional.normalize(self.directions, dim=1).t() / STEP - self.offsets

    def loss(self, residual_BLD: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Mean squared error of the degrees, where they are known."""
        asked = asked_of(batch)
        return (self(residual_BLD[asked]) - degrees_of(batch.states[asked])).square().mean()


class Straightness:
    """Pulls the mean residuals of a trait's degrees 0 to 3 onto a line with even steps.

    Half the squared second differences of the means, m(g-1) - 2 m(g) + m(g+1), in units of the mean squared norm. The means
    are running ones, for few positions of a batch are in any one state; the gradient goes through the batch's own means.
    """

    def __init__(self, width: int) -> None:
        self.means = torch.zeros(N_STATES, width)
        self.seen = torch.zeros(N_STATES, dtype=torch.bool)
        bends = []
        for trait in range(len(TRAITS)):
            chain = [0, *range(1 + 3 * trait, 4 + 3 * trait)]
            for before, at, after in zip(chain, chain[1:], chain[2:], strict=False):
                row = torch.zeros(N_STATES)
                row[before], row[at], row[after] = 1.0, -2.0, 1.0
                bends.append(row)
        self.bends = torch.stack(bends)

    def loss(self, residual_BLD: torch.Tensor, batch: Batch) -> torch.Tensor:
        """The loss whose gradient straightens, over the positions whose degree is known."""
        asked = asked_of(batch)
        x, states = residual_BLD[asked].float(), batch.states[asked]
        member = functional.one_hot(states, N_STATES).float()
        counts = member.sum(0)
        means = (member.t() @ x) / counts.clamp_min(1)[:, None]
        present = counts > 0
        with torch.no_grad():
            kept = torch.where(self.seen, MEMORY, 0.0)[:, None]
            updated = kept * self.means + (1 - kept) * means
            self.means = torch.where(present[:, None], updated, self.means)
            self.seen |= present
            pull = self.bends.t() @ (self.bends @ self.means) / x.square().sum(1).mean()
        return (pull * means)[present].sum() if bool(self.seen.all()) else x.new_zeros(())


def degrees_of(states: torch.Tensor) -> torch.Tensor:
    """The degree of every trait in a state, float32 [..., traits]."""
    table = torch.zeros(N_STATES, len(TRAITS))
    for state in range(1, N_STATES):
        table[state, (state - 1) // 3] = 1 + (state - 1) % 3
    return table[states]
