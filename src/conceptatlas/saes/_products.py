"""Products of bfloat16 matrices whose sums are as good as float32's, which is what :mod:`~conceptatlas.saes.mixed` bounds."""

from __future__ import annotations

from collections.abc import Callable

import torch

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
