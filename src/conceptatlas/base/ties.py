"""The order of activations: equal ones must not be ordered by the last bit of a product.

The same text in another batch, on another processor or with another number of threads gives a product whose last bits
differ. So activations are compared after rounding to what float32 arithmetic can tell, and ties are broken by position.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

# float32 carries 24 significant bits; sums of thousands of products that partly cancel lose up to half of them.
SIGNIFICANT_BITS = 12
_DROPPED = 24 - SIGNIFICANT_BITS


def comparable(values: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Return activations rounded to 12 significant bits (steps of 1/4096 to 1/2048 of the value), float32, same shape.

    Half a step goes away from zero. Zero, infinity and NaN stay what they are.
    """
    exact = np.atleast_1d(np.asarray(values, dtype=np.float32))
    bits = exact.view(np.uint32)
    half, mask = np.uint32(1 << (_DROPPED - 1)), np.uint32(0xFFFFFFFF << _DROPPED & 0xFFFFFFFF)
    rounded = np.where(np.isfinite(exact), (bits + half) & mask, bits).view(np.float32)
    return rounded.reshape(np.shape(values))


def strongest_first(values_N: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Return the places of values [N] from the largest to the smallest, int64 [N]; ties (see `comparable`) by place."""
    return np.argsort(-comparable(values_N), kind="stable")
