"""Layer lists."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conceptatlas.base.errors import InputError
from conceptatlas.probes.layers import as_layers, format_layers, parse_layers, require_recorded


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12", [12]),
        ("0-5", [0, 1, 2, 3, 4, 5]),
        ("2,5,10", [2, 5, 10]),
        ("0-2,10,15-17", [0, 1, 2, 10, 15, 16, 17]),
        (" 3 , 1-2,2 ", [1, 2, 3]),
        ("4-4", [4]),
    ],
)
def test_a_list_is_read(text, expected):
    assert parse_layers(text) == expected


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "1,,2", "1;2", "1.5", "²"])
def test_what_is_no_list_is_named(text):
    with pytest.raises(InputError, match=r"in the layer list .*; write layers as 12, 0-5, 2,5,10 or 0-2,10,15-17\."):
        parse_layers(text)


def test_a_backward_range_is_named():
    with pytest.raises(InputError, match=r"The range '5-2' in the layer list '0,5-2' runs backwards; write 2-5\."):
        parse_layers("0,5-2")


@given(st.sets(st.integers(0, 60), min_size=1))
def test_writing_and_reading_are_inverse(layers):
    assert parse_layers(format_layers(layers)) == sorted(layers)


def test_numbers_and_text_mean_the_same():
    assert as_layers("1-2") == as_layers([2, 1, 1]) == [1, 2]
    assert as_layers(7) == [7]


def test_what_was_not_recorded_is_listed():
    with pytest.raises(
        InputError, match=r"^No hidden states of layers 4,9 were recorded; recorded: 0-2,7\. Choose among these"
    ):
        require_recorded([1, 4, 9], {0, 1, 2, 7}, what="hidden states")
