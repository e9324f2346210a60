"""``mixed``: bfloat16 products, and in float32 again whatever lies too near the threshold for bfloat16 to tell.

Let x = x' + δx and w = w' + δw with x', w' in bfloat16, so that δx and δw are known exactly. The product of the rounded
numbers, summed in float32, misses x·w by δx·w + x'·δw. That is at most

    e₁ = ‖δx‖ ‖w‖ + ‖x'‖ ‖δw‖                                                   (Cauchy-Schwarz, always), and at most
    e₂ = 4.5 √(‖δx‖₄² ‖w‖₄² + ‖x'‖₄² ‖δw‖₄²)     in all but rarest cases,

because the signs of rounding errors are as good as random: a sum Σ ±aᵢ exceeds c √(Σ aᵢ²) with a probability of at most
2 exp(-c²/2) (Hoeffding 1963, theorem 2), and Σ δxᵢ² wᵢ² ≤ ‖δx‖₄² ‖w‖₄². The margin is the smaller of the two, a little
enlarged for the rounding of sum and result. Every entry whose bfloat16 product lies within it of the threshold is
computed in float32; all others are on the right side of the threshold already. So the active set is that of float32.

The result of a bfloat16 product is rounded to bfloat16 too, relative to its size. So that this costs nothing where it
matters, the product itself gives *threshold minus pre-activation*: the rows get a few columns of ones, and -w what the
threshold and the bias come to, in three bfloat16 numbers that add up to float32's precision. What lies far above the
threshold is thus off by at most 2⁻⁸ of its distance to it, and by the margin.

Margins are taken over blocks of rows, so that an attention sink widens those of its neighbours only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from conceptatlas.runtime.memory import roomy
from conceptatlas.runtime.threads import each_in_a_thread
from conceptatlas.saes._kernels import round_numbers
from conceptatlas.saes.encoder import Encoder

# Typical errors are a tenth of the margin that this gives: the four-norms are larger than what they bound.
HOEFFDING = 4.5
BLOCK_ROWS = 256
# For the float32 sums behind both sides, the second-order term δx·δw, and the rounding of the result.
SLACK = 1.02
FACTORS = (SLACK, SLACK * HOEFFDING)
# Columns that carry threshold - bias, in as many parts as are set; the rest is zero, and keeps rows aligned.
EXTRA = 8
_PARTS = 3
_ROWS_A_THREAD = 512
# Numbers that are rounded at a time on a GPU: 64 MiB of float32.
_ROUNDED = 16 << 20


def to_mixed(encoder: Encoder) -> Encoder:
    """Return the encoder with bfloat16 weights beside the float32 ones, both laid out feature by feature.

    ``[x, 1, 1, 1, 0...] W_low`` is threshold minus pre-activation, and for the TopK kinds, which have no threshold, what
    features are ranked by.
    """
    W_FD = encoder.W_enc.t()
    if not W_FD.is_contiguous():
        W_FD = roomy(tuple(W_FD.shape), W_FD.dtype, W_FD.device).copy_(W_FD)
    if encoder.threshold is not None:
        constant, factors_FD, sign = encoder.threshold - encoder.bias, W_FD, -1.0
    elif encoder.rank_scale is not None:
        constant, factors_FD, sign = encoder.bias * encoder.rank_scale, W_FD * encoder.rank_scale[:, None], 1.0
    else:
        constant, factors_FD, sign = encoder.bias, W_FD, 1.0
    low_FD = _low(W_FD)
    norms = _round_into(low_FD, factors_FD)
    low_FD *= sign
    for part in range(encoder.d_in, encoder.d_in + _PARTS):
        low_FD[:, part] = constant
        constant = constant - low_FD[:, part].float()
    return replace(encoder, W_enc=W_FD.t(), W_low=low_FD.t(), w_norms=norms)


def round_rows(x_TD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the rows in bfloat16 with their extra columns [T, D + EXTRA], and their norms [4, T] (see :func:`margin`)."""
    low = _low(x_TD)
    low[:, x_TD.shape[1] : x_TD.shape[1] + _PARTS] = 1.0
    return low, _round_into(low, x_TD)


def _low(exact: torch.Tensor) -> torch.Tensor:
    """Return room for [N, D] numbers in bfloat16, and zeros in the extra columns."""
    low = roomy((len(exact), exact.shape[1] + EXTRA), torch.bfloat16, exact.device)
    low[:, exact.shape[1] :] = 0.0
    return low


def _round_into(low: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
    """Write ``exact`` [N, D] to the first columns of ``low`` and return its rows' norms.

    These are ‖kept‖, ‖lost‖, ‖kept‖₄² and ‖lost‖₄² of each row, [4, N]; lost is what bfloat16 loses.
    """
    if exact.device.type != "cpu":
        return _round_on_device(low, exact)
    norms, numbers, bits = np.empty((4, len(exact)), np.float32), exact.numpy(), low.view(torch.int16).numpy()
    parts = [slice(first, first + _ROWS_A_THREAD) for first in range(0, len(exact), _ROWS_A_THREAD)]
    each_in_a_thread(lambda part: round_numbers(numbers[part], bits[part], norms[:, part]), parts)
    return torch.from_numpy(norms)


def _round_on_device(low: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
    """As :func:`_round_into`, some rows at a time, so that it takes little memory beside what it is given."""
    width = exact.shape[1]
    norms = torch.empty(4, len(exact), device=exact.device)
    rows = max(1, _ROUNDED // width)
    for first in range(0, len(exact), rows):
        part = slice(first, first + rows)
        low[part, :width] = exact[part]
        kept = low[part, :width].float()
        lost = exact[part] - kept
        for place, numbers in enumerate((kept, lost)):
            norms[place, part] = numbers.square_().sum(dim=1)
            norms[place + 2, part] = numbers.square_().sum(dim=1)
    return norms.sqrt_()


def margin(w_norms: torch.Tensor, x_norms: torch.Tensor) -> torch.Tensor:
    """Return how far a bfloat16 product may lie from the float32 one, [F, B]; with the arguments changed over, [B, F].

    Args:
        w_norms: [4, F], of the weights.
        x_norms: [4, B], of rows or of blocks of rows (the largest of each).
    """
    w, dw, w4, dw4 = w_norms[:, :, None]
    x, dx, x4, dx4 = x_norms[:, None, :]
    always = (w * dx + dw * x).mul_(FACTORS[0])
    almost_always = (w4 * dx4 + dw4 * x4).sqrt_().mul_(FACTORS[1])
    return torch.minimum(always, almost_always)


def block_maxima(x_norms: torch.Tensor) -> torch.Tensor:
    """Return the largest of each norm over blocks of ``BLOCK_ROWS`` rows, [4, ceil(T / BLOCK_ROWS)]."""
    short = -x_norms.shape[1] % BLOCK_ROWS
    padded = torch.nn.functional.pad(x_norms, (0, short))
    return padded.view(4, -1, BLOCK_ROWS).amax(dim=2)


# Products of bfloat16 matrices whose sums are as good as float32's, which the bounds above rest on.
Product = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def gives_float32() -> bool:
    """Return whether this torch can give a float32 product of bfloat16 matrices on a GPU (2.8 and later, CUDA only)."""
    return hasattr(torch.ops.aten.mm, "dtype") and torch.version.hip is None


def low_product(device: torch.device) -> Product:
    """Return what multiplies two bfloat16 matrices on a device, into float32 where torch can, else into bfloat16."""
    if device.type != "cuda":
        return torch.mm
    return _into_float32 if _GIVES_FLOAT32 else _into_bfloat16


_GIVES_FLOAT32 = gives_float32()


def _into_float32(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return torch.mm(left, right, out_dtype=torch.float32)


def _into_bfloat16(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    # Unless it is told not to, cuBLAS may round parts of a sum to bfloat16 before it adds them.
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_bf16_reduced_precision_reduction
    matmul.allow_bf16_reduced_precision_reduction = False
    try:
        return torch.mm(left, right)
    finally:
        matmul.allow_bf16_reduced_precision_reduction = before
