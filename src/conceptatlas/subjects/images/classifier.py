"""A feed-forward image classifier with one hidden layer whose pre-activations are the site."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import nn

from conceptatlas.base.errors import InputError
from conceptatlas.subjects.images.data import ImageData
from conceptatlas.subjects.protocol import Edit

Kind = Literal["relu", "geglu"]

SITE = "ffn.hook_pre"
# A small data set is passed over several times within one epoch, so that "3 epochs" is enough for 1,400 images too.
MIN_STEPS_PER_EPOCH = 120


class FeedForward(nn.Module):
    """Pixels → hidden layer → logits.

    ``relu``: logits = W₂ relu(z) + b₂, with the pre-activations z = W₁ x + b₁, [N, H].
    ``geglu``: z = W₁ x + b₁ is [N, 2H], its halves gate and value: logits = W₂ (gelu(gate) · value) + b₂
    (Shazeer 2020, "GLU Variants Improve Transformer", eq. 5).
    """

    def __init__(self, *, n_pixels: int, hidden_dim: int, n_classes: int, kind: Kind) -> None:
        super().__init__()
        self.kind: Kind = kind
        self.w_in = nn.Linear(n_pixels, hidden_dim * (2 if kind == "geglu" else 1))
        self.w_out = nn.Linear(hidden_dim, n_classes)

    @property
    def d_pre(self) -> int:
        """The width of the pre-activations."""
        return self.w_in.out_features

    def preactivations(self, images: torch.Tensor) -> torch.Tensor:
        """Return z, [N, d_pre], of images [N, H, W]."""
        z: torch.Tensor = self.w_in(images.flatten(1))
        return z

    def logits_of(self, z: torch.Tensor) -> torch.Tensor:
        """Return the logits, [N, classes], of pre-activations z, [N, d_pre]."""
        if self.kind == "geglu":
            gate, value = z.chunk(2, dim=-1)
            hidden = nn.functional.gelu(gate) * value
        else:
            hidden = nn.functional.relu(z)
        logits: torch.Tensor = self.w_out(hidden)
        return logits

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits, [N, classes], of images [N, H, W]."""
        return self.logits_of(self.preactivations(images))


class ImageSubject:
    """A classifier as a Subject: its one site is the standardised pre-activations, the space in which its SAE lives.

    Args:
        model: The classifier.
        mean: The mean of each pre-activation over the training images, [d_pre].
        std: The standard deviation of each, [d_pre] (ones where nothing is to be standardised).
    """

    def __init__(self, model: FeedForward, mean: torch.Tensor, std: torch.Tensor) -> None:
        self.model = model.eval()
        self.mean = mean
        self.std = std

    @property
    def id(self) -> str:
        """The subject's name in reports."""
        return f"ffn-{self.model.kind}-{self.model.w_out.in_features}"

    def activations(self, inputs: torch.Tensor, site: str = SITE) -> torch.Tensor:
        """Return the standardised pre-activations of images [N, H, W]: [N, d_pre]."""
        _check_site(site)
        return (self.model.preactivations(inputs) - self.mean) / self.std

    def outputs(self, inputs: torch.Tensor, *, site: str = SITE, edit: Edit | None = None) -> torch.Tensor:
        """Return the logits of images, [N, classes], with the standardised pre-activations passed through ``edit``."""
        if edit is None:
            return self.model(inputs)
        return self.model.logits_of(edit(self.activations(inputs, site)) * self.std + self.mean)


def _check_site(site: str) -> None:
    if site != SITE:
        raise InputError(f"The image classifier has no site {site!r}; it has {SITE}.")


def train_classifier(
    data: ImageData,
    *,
    kind: Kind,
    hidden_dim: int,
    epochs: int,
    batch_size: int,
    seed: int,
    device: torch.device,
) -> FeedForward:
    """Train a classifier on ``data`` with AdamW and a cosine schedule.

    An epoch is one pass over the images, or ``MIN_STEPS_PER_EPOCH`` batches where that is more.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        height, width = data.image_shape
        model = FeedForward(n_pixels=height * width, hidden_dim=hidden_dim, n_classes=data.n_classes, kind=kind)
    model.to(device).train()
    images = torch.from_numpy(data.train_images).to(device)
    labels = torch.from_numpy(data.train_labels).to(device)
    steps = epochs * max(MIN_STEPS_PER_EPOCH, math.ceil(len(images) / batch_size))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps, eta_min=1e-4)
    for _ in range(steps):
        batch = torch.randint(len(images), (batch_size,), generator=generator).to(device)
        loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return model.eval().requires_grad_(requires_grad=False)
