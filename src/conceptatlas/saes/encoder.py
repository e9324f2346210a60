"""The encoder half of an SAE as plain tensors, and what is done to a row before it is encoded.

Every row-wise architecture that SAELens registers is one of two kinds:

* *threshold*: ``pre = (x - b_dec) W_enc + bias``; a feature is active where ``pre > threshold``. ReLU is the case
  threshold = 0, JumpReLU (Rajamanoharan et al. 2024b, eq. 4) the case threshold = θ, and a gated SAE (Rajamanoharan
  et al. 2024a, eqs. 5-7) is one too, because gate and magnitude share their product: it is active where the product
  exceeds both ``-b_gate`` and ``-b_mag / exp(r_mag)``, and its value is ``scale * product + shift``.
* *topk* and *abstopk* (Gao et al. 2024): the k largest of a row, so that all features must be encoded to know one.

Shapes: T rows, D = d_in, F = d_sae.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from conceptatlas.base.errors import InputError, WorkError
from conceptatlas.runtime.streams import to_device

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Activation = Literal["threshold", "topk", "abstopk"]
Normalisation = Literal["none", "layer_norm", "constant_norm_rescale"]

_LAYER_NORM_EPS = 1e-5  # SAELens adds it to the standard deviation, not to the variance


@dataclass(frozen=True, eq=False)
class Encoder:
    """What turns rows into features: float32 tensors on one device."""

    architecture: str
    """SAELens's name: standard, jumprelu, gated, topk, abstopk, transcoder, ..."""
    activation: Activation
    """The kind of rule that says which features are active."""
    W_enc: torch.Tensor
    """[D, F]; any strides (a transposed [F, D] does as well)."""
    bias: torch.Tensor
    """[F], added to the product."""
    threshold: torch.Tensor | None = None
    """[F], never negative; active where pre > threshold (``threshold`` kind only)."""
    scale: torch.Tensor | None = None
    """[F] or None: the value of an active feature is ``scale * pre + shift`` (gated)."""
    shift: torch.Tensor | None = None
    """[F] or None."""
    k: int | None = None
    """How many features of a row may be active (TopK kinds)."""
    rank_scale: torch.Tensor | None = None
    """[F] or None: pre is multiplied by it before ranking (TopK with ``rescale_acts_by_decoder_norm``)."""
    b_dec: torch.Tensor | None = None
    """[D] or None: subtracted from the normalised row."""
    normalisation: Normalisation = "none"
    """What is done to the row before anything else."""
    W_low: torch.Tensor | None = None
    """[D, F] bfloat16 or None: products are taken with it, see :mod:`~conceptatlas.saes.mixed`."""
    w_norms: torch.Tensor | None = None
    """[4, F] or None: norms of the weights and of what bfloat16 loses of them."""

    def __post_init__(self) -> None:
        if (self.activation == "threshold") != (self.threshold is not None):
            raise InputError(f"An encoder of kind {self.activation!r} has a threshold exactly if it is of that kind.")
        if (self.activation == "threshold") == (self.k is not None):
            raise InputError(f"An encoder of kind {self.activation!r} cannot have k = {self.k}.")
        if self.k is not None and not 0 < self.k <= self.d_sae:
            raise InputError(f"k = {self.k} is not between 1 and the {self.d_sae} features; check the SAE's config.")

    @property
    def d_in(self) -> int:
        """Return D, the width of a row."""
        return int(self.W_enc.shape[0])

    @property
    def d_sae(self) -> int:
        """Return F, the number of features."""
        return int(self.W_enc.shape[1])

    @property
    def device(self) -> torch.device:
        """Return where the tensors lie."""
        return self.W_enc.device

    @property
    def needs_all_columns(self) -> bool:
        """Return whether one feature cannot be encoded without all the others (the TopK kinds)."""
        return self.activation != "threshold"

    def of(self, columns: Sequence[int] | npt.NDArray[np.integer]) -> Encoder:
        """Return the encoder of some features only, in this order.

        Raises:
            InputError: One feature cannot be encoded without all the others (``needs_all_columns``).
        """
        if self.needs_all_columns:
            raise InputError(f"The features of a {self.architecture} SAE cannot be encoded one by one.")
        index = torch.as_tensor(np.asarray(columns, np.int64), device=self.device)
        picked: dict[str, Any] = {
            name: value[..., index]
            for name, value in vars(self).items()
            if isinstance(value, torch.Tensor) and name != "b_dec"
        }
        return replace(self, **picked)

    def folded(self) -> Encoder:
        """Return the same encoder with ``b_dec`` in the bias: (x - b_dec) W = x W - b_dec W, known as well as float32 x is."""
        if self.b_dec is None:
            return self
        return replace(self, b_dec=None, bias=self.bias - self.b_dec @ self.W_enc)

    @property
    def takes_rows_as_they_are(self) -> bool:
        """Return whether nothing is done to a row before the product."""
        return self.b_dec is None and self.normalisation == "none"

    def to(self, device: torch.device | str) -> Encoder:
        """Return the same encoder with its tensors on ``device``."""
        return on_device(self, device)


Half = TypeVar("Half", bound="DataclassInstance")


def on_device(half: Half, device: torch.device | str) -> Half:
    """Return a copy of a dataclass of tensors (an encoder or a decoder) on ``device``.

    From the host to a GPU nobody waits for it: what is called next on the GPU comes after it.
    """
    place = torch.device(device)
    moved: dict[str, Any] = {n: to_device(v, place) for n, v in vars(half).items() if isinstance(v, torch.Tensor)}
    return replace(half, **moved)


def threshold_encoder(
    architecture: str,
    W_enc: torch.Tensor,
    b_enc: torch.Tensor,
    *,
    threshold: torch.Tensor | None = None,
    b_dec: torch.Tensor | None = None,
    normalisation: Normalisation = "none",
) -> Encoder:
    """Return a ReLU (no ``threshold``) or JumpReLU encoder.

    JumpReLU multiplies ReLU by the step, so that a negative θ acts as 0.
    """
    zero = torch.zeros_like(b_enc)
    return Encoder(
        architecture,
        "threshold",
        W_enc,
        b_enc,
        threshold=zero if threshold is None else threshold.expand_as(b_enc).clamp(min=0.0).contiguous(),
        b_dec=b_dec,
        normalisation=normalisation,
    )


def gated_encoder(
    W_enc: torch.Tensor,
    b_gate: torch.Tensor,
    b_mag: torch.Tensor,
    r_mag: torch.Tensor,
    *,
    b_dec: torch.Tensor | None = None,
    normalisation: Normalisation = "none",
) -> Encoder:
    """Return a gated encoder as a threshold on the product that gate and magnitude share."""
    scale = r_mag.exp()
    # product > max(-b_gate, -b_mag / scale) is pre > 0 with this bias; the value, scale * product + b_mag, is written in
    # terms of pre.
    bias = torch.minimum(b_gate, b_mag / scale)
    return Encoder(
        "gated",
        "threshold",
        W_enc,
        bias,
        threshold=torch.zeros_like(bias),
        scale=scale,
        shift=b_mag - scale * bias,
        b_dec=b_dec,
        normalisation=normalisation,
    )


def topk_encoder(
    architecture: str,
    W_enc: torch.Tensor,
    b_enc: torch.Tensor,
    k: int,
    *,
    rank_scale: torch.Tensor | None = None,
    b_dec: torch.Tensor | None = None,
    normalisation: Normalisation = "none",
) -> Encoder:
    """Return a TopK encoder (largest k, then ReLU), or AbsTopK (largest k by magnitude, signs kept)."""
    return Encoder(
        architecture,
        "abstopk" if architecture == "abstopk" else "topk",
        W_enc,
        b_enc,
        k=k,
        rank_scale=rank_scale,
        b_dec=b_dec,
        normalisation=normalisation,
    )


def row_statistics(x_TD: torch.Tensor, normalisation: Normalisation) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Return what SAELens subtracts from each row and then divides it by, [T, 1] each; None for nothing.

    ``layer_norm`` takes the mean and the (unbiased) standard deviation, ``constant_norm_rescale`` the root of the mean
    square.
    """
    if normalisation == "none":
        return None, None
    if normalisation == "constant_norm_rescale":
        return None, x_TD.norm(dim=1, keepdim=True) / x_TD.shape[1] ** 0.5
    mean = x_TD.mean(dim=1, keepdim=True)
    return mean, (x_TD - mean).std(dim=1, keepdim=True)


def normalise_rows(x_TD: torch.Tensor, normalisation: Normalisation) -> torch.Tensor:
    """Return the rows as SAELens normalises them at run time."""
    shift, scale = row_statistics(x_TD, normalisation)
    if shift is not None and scale is not None:
        return (x_TD - shift) / (scale + _LAYER_NORM_EPS)
    return x_TD if scale is None else x_TD / scale


def prepare_rows(x: torch.Tensor, encoder: Encoder, first_row: int = 0) -> torch.Tensor:
    """Return float32 [T, D] rows, normalised and centred, ready for the product with ``W_enc``.

    Args:
        x: [T, D], or [T, heads, d_head] as ``hook_z`` gives it (then flattened, heads first); any float type.
        encoder: Says what is to be done.
        first_row: How messages number the first of the rows.

    Raises:
        InputError: The width is not the encoder's.
        WorkError: A value is not finite.
    """
    x_TD = shape_rows(x, encoder)
    check_finite(x_TD, first_row)
    return x_TD


def shape_rows(x: torch.Tensor, encoder: Encoder) -> torch.Tensor:
    """Do as :func:`prepare_rows`, whose check is left to the caller."""
    x_TD = x.flatten(1).to(device=encoder.device, dtype=torch.float32)
    if x_TD.shape[1] != encoder.d_in:
        raise InputError(
            f"The rows are {x_TD.shape[1]} wide and the SAE takes {encoder.d_in}; it belongs to another model or site."
        )
    x_TD = normalise_rows(x_TD, encoder.normalisation)
    if encoder.b_dec is not None:
        x_TD = x_TD - encoder.b_dec
    return x_TD.contiguous()


def check_finite(x_TD: torch.Tensor, first_row: int) -> None:
    """Check that rows, the first of which is number ``first_row``, are finite.

    Raises:
        WorkError: One is not.
    """
    # One pass in the usual case: a sum is finite only if all its terms are (and may overflow though they are).
    if not bool(torch.isfinite(x_TD.sum())) and not bool(torch.isfinite(x_TD).all()):
        bad = int((~torch.isfinite(x_TD)).any(dim=1).nonzero()[0])
        raise WorkError(
            f"Row {first_row + bad} of the hidden states is not finite; run the model in float32 or bfloat16."
        )
