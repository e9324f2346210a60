"""What the evidence functions ask of a subject, whether it reads text or looks at images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch

# Takes the activations at a site, [..., D], and returns those that the subject shall go on with.
Edit = Callable[[torch.Tensor], torch.Tensor]


class Subject(Protocol):
    """A model that gives activations at a site, and outputs with or without an edit there."""

    @property
    def id(self) -> str:
        """The subject's name in reports."""
        ...

    def activations(self, inputs: Any, site: str) -> torch.Tensor:
        """Return the activations of ``inputs`` at ``site``, [T, D] (one row per image, or per token position)."""
        ...

    def outputs(self, inputs: Any, *, site: str, edit: Edit | None = None) -> torch.Tensor:
        """Return the logits of ``inputs``, [N, C], with the activations at ``site`` passed through ``edit``."""
        ...
