"""Orders of activations that another processor gives alike."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from conceptatlas.base.ties import SIGNIFICANT_BITS, comparable, strongest_first

LAST_BIT = 2.0**-23


def slowly(value: float) -> float:
    """Round to so many significant bits with exact arithmetic, a half away from zero."""
    if value == 0 or not math.isfinite(value):
        return value
    mantissa, exponent = math.frexp(abs(value))
    whole = math.floor(mantissa * 2**SIGNIFICANT_BITS + 0.5)
    return math.copysign(math.ldexp(whole, exponent - SIGNIFICANT_BITS), value)


@given(st.lists(st.floats(-(2.0**99), 2.0**99, width=32, allow_subnormal=False), max_size=20))
def test_against_exact_arithmetic(values: list[float]) -> None:
    assert comparable(values).tolist() == [slowly(value) for value in values]


def test_values_that_are_no_numbers_stay() -> None:
    assert comparable([np.inf, -np.inf, 0.0]).tolist() == [np.inf, -np.inf, 0.0]
    assert np.isnan(comparable([np.nan]))[0]
    assert comparable(np.float32(2.5)).shape == ()


def test_the_last_bit_decides_nothing_and_the_place_does() -> None:
    values = np.array([1.0, 1.0 + LAST_BIT, 3.0, 1.0 - LAST_BIT / 2, 3.0 + 2 * LAST_BIT], dtype=np.float32)
    assert strongest_first(values).tolist() == [2, 4, 0, 1, 3]
    assert np.argsort(-values, kind="stable").tolist() == [4, 2, 1, 0, 3]  # what the exact order would be


def test_what_arithmetic_can_tell_is_told() -> None:
    assert strongest_first([2.0, 2.002]).tolist() == [1, 0]
