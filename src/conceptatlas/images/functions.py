"""The laboratory's questions as functions: thin over those of ``evidence``, which do not know that they see images.

``model`` is a ``FeedForward``, ``sae`` a SAELens SAE on its standardised pre-activations, ``mu`` and ``std`` [d_pre] what
they were standardised with.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from conceptatlas.base.errors import InputError
from conceptatlas.evidence.attribution import input_gradient
from conceptatlas.evidence.bank import FeatureBank, collect_bank
from conceptatlas.evidence.edits import steer
from conceptatlas.images.pictures import draw_gallery, draw_pattern
from conceptatlas.subjects.images import SITE, FeedForward, ImageSubject

Loader = Iterable[tuple[torch.Tensor, torch.Tensor]]


def _check_feature(sae: Any, k: int) -> None:
    if not 0 <= k < sae.cfg.d_sae:
        raise InputError(f"There is no feature {k}; the SAE has the features 0 to {sae.cfg.d_sae - 1}.")


def collect_feature_bank(
    loader: Loader, model: FeedForward, sae: Any, mu: torch.Tensor, std: torch.Tensor, topk: int = 16
) -> FeatureBank:
    """Return what activates each feature over the images of ``loader``, (images [B, H, W], labels [B]) at a time."""
    subject = ImageSubject(model, mu, std)
    return collect_bank(loader, subject, sae, SITE, n_labels=model.w_out.out_features, top_k=topk)


def feature_input_pattern(
    model: FeedForward,
    sae: Any,
    mu: torch.Tensor,
    std: torch.Tensor,
    k: int,
    *,
    image_shape: tuple[int, int] | None = None,
    images: torch.Tensor | None = None,
) -> npt.NDArray[np.float32]:
    """Return the gradient of feature ``k``'s pre-activation with respect to the pixels, [H, W].

    The path from pixels to pre-activation is linear (whatever comes after the hidden layer), so the gradient is the same
    for every image and exact. With ``images`` [N, H, W] it is averaged over them all the same: for a subject whose path
    is not linear.

    Raises:
        InputError: No such feature, or pixels that make no square image while no ``image_shape`` is given.
    """
    _check_feature(sae, k)
    subject = ImageSubject(model, mu, std)
    if images is None:
        n_pixels = model.w_in.in_features
        side = round(n_pixels**0.5)
        shape = image_shape or (side, side)
        if shape[0] * shape[1] != n_pixels:
            raise InputError(f"{n_pixels} pixels make no square image; give image_shape=(height, width).")
        images = torch.zeros(1, *shape, device=mu.device)

    def preactivation(pixels: torch.Tensor) -> torch.Tensor:
        x = sae.process_sae_in(subject.activations(pixels, SITE))
        return x @ sae.W_enc[:, k] + sae.b_enc[k]

    pattern: npt.NDArray[np.float32] = input_gradient(preactivation, images).mean(0).cpu().numpy()
    return pattern


@torch.no_grad()
def feature_logit_effect(
    model: FeedForward,
    loader: Loader,
    sae: Any,
    mu: torch.Tensor,
    std: torch.Tensor,
    k: int,
    alpha: float = 1.0,
    n_eval: int = 2000,
) -> tuple[npt.NDArray[np.float32], int]:
    """Return the mean change of each class's logit when feature ``k``'s decoder direction is added, and the class it boosts.

    What is added is alpha · a · W_dec[k] in the standardised space, with a the feature's own mean activation over those of
    the images on which it is active (1 where it never is).

    Args:
        model: The classifier.
        loader: (images, labels) at a time.
        sae: The SAE.
        mu: What the pre-activations were standardised with.
        std: Likewise.
        k: The feature.
        alpha: The dose, in units of the feature's own mean activation.
        n_eval: The number of images, from the start of ``loader``.
    """
    _check_feature(sae, k)
    subject = ImageSubject(model, mu, std)
    images = first_images(loader, n_eval)
    return logit_effect(subject, sae, images, k, scale=own_scale(subject, sae, images)[k].item(), alpha=alpha)


def first_images(loader: Loader, n: int) -> torch.Tensor:
    """Return the first ``n`` images of a loader, [n, H, W]."""
    taken: list[torch.Tensor] = []
    for images, _labels in loader:
        taken.append(images)
        if sum(map(len, taken)) >= n:
            break
    return torch.cat(taken)[:n]


@torch.no_grad()
def own_scale(subject: ImageSubject, sae: Any, images: torch.Tensor) -> torch.Tensor:
    """Return each feature's mean activation where it is active, [F]; 1 where it never is."""
    acts_NF = sae.encode(subject.activations(images, SITE))
    active = (acts_NF != 0).sum(0)
    return torch.where(active > 0, acts_NF.sum(0) / active.clamp(min=1), torch.ones_like(acts_NF[0]))


@torch.no_grad()
def logit_effect(
    subject: ImageSubject, sae: Any, images: torch.Tensor, k: int, *, scale: float, alpha: float = 1.0
) -> tuple[npt.NDArray[np.float32], int]:
    """Return the mean change of each class's logit, [C], and the class that gains most (see ``feature_logit_effect``)."""
    steered = subject.outputs(images, site=SITE, edit=steer(sae.W_dec[k], alpha * scale))
    delta: npt.NDArray[np.float32] = (steered - subject.outputs(images)).mean(0).cpu().numpy()
    return delta, int(delta.argmax())


def show_feature_gallery(
    k: int, bank: FeatureBank, imgs: torch.Tensor, save_path: Path | str | None = None, cols: int = 10
) -> Image.Image:
    """Return (and save, where a path is given) the images that activate feature ``k`` most, strongest first."""
    rows = bank.top_rows[k]
    kept = rows >= 0
    values = bank.top_values[k][kept].tolist()
    picture = draw_gallery(
        imgs[rows[kept]].cpu().numpy(),
        [f"{value:.2f}" for value in values],
        title=f"feature {k} · active on {float(bank.mean_active[k]):.1%}",
        columns=cols,
    )
    if save_path is not None:
        picture.save(save_path)
    return picture


def visualize_feature_pattern(
    heat: npt.NDArray[np.float32], k: int, save_path: Path | str | None = None
) -> Image.Image:
    """Return (and save, where a path is given) a feature's input pattern: red pixels push it up, blue ones down."""
    picture = draw_pattern(heat, title=f"feature {k}")
    if save_path is not None:
        picture.save(save_path)
    return picture
