"""Rows, batches and shards."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conceptatlas.concepts import build_concept
from conceptatlas.recording import plan
from conceptatlas.recording.plan import (
    SHARD_BYTES_LEAST,
    SHARD_BYTES_MOST,
    SHARD_ROWS_LEAST,
    batches,
    cut_shards,
    make_plan,
    shard_rows_for,
    word_ends,
)
from conceptatlas.subjects.tokens import Tokenized


@settings(deadline=None, max_examples=50)
@given(lengths=st.lists(st.integers(1, 30), max_size=20), budget=st.integers(1, 60))
def test_batches_hold_everything_once_within_the_budget(lengths, budget):
    found = batches(lengths, budget)
    assert sorted(np.concatenate(found).tolist() if found else []) == list(range(len(lengths)))
    for batch in found:
        longest = max(lengths[i] for i in batch)
        assert len(batch) == 1 or len(batch) * longest <= budget
    ordered = [lengths[i] for batch in found for i in batch]
    assert ordered == sorted(lengths, reverse=True)


@pytest.mark.parametrize(
    ("lengths", "budget", "sizes"),
    [
        ([10] * 50, 100, [9] * 5 + [5]),  # not five of ten: on a CPU two run at a time
        ([10] * 40, 100, [10] * 4),
        ([10] * 7, 100, [7]),  # all of them in one
        ([10] * 3, 10, [1] * 3),  # no smaller ones
        ([10] * 170, 100, [10] * 17),  # of many, one more or less does not matter
    ],
)
def test_a_few_batches_are_of_an_even_number(lengths, budget, sizes):
    assert [len(batch) for batch in batches(lengths, budget)] == sizes


def test_equal_pieces_of_text_share_one_string():
    """The pieces of all rows stand in memory together, and most of them have come before."""
    concept = build_concept("same", ["a bag"] * 50, [0, 1] * 25)
    ids, ends = np.array([3, 4], np.int32), np.array([1, 5], np.int32)
    everywhere = [np.ones(2, bool)] * 50
    tokenized = Tokenized([ids] * 50, everywhere, [np.arange(2, dtype=np.int32)] * 50, [ends] * 50)
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "_rows_table", lambda counts, columns, tokens: seen.extend(tokens) or pl.DataFrame())
        make_plan(concept, tokenized, fragments="token", shard_rows=10, token_texts=lambda ids: [])
    assert seen == ["a", " bag"] * 50
    assert len({id(token) for token in seen}) == 2


@settings(deadline=None, max_examples=50)
@given(counts=st.lists(st.integers(1, 9), max_size=20), most=st.integers(1, 20))
def test_shards_are_consecutive_and_bounded(counts, most):
    shards = cut_shards(counts, most)
    assert [i for first, last in shards for i in range(first, last)] == list(range(len(counts)))
    for first, last in shards:
        assert sum(counts[first:last]) <= most or last - first == 1


def test_more_items_do_not_move_the_shards_before_them():
    counts = [3, 5, 2, 7, 1, 4]
    assert cut_shards(counts, 9)[:2] == cut_shards([*counts, 6, 6, 6], 9)[:2]


@pytest.mark.parametrize(
    ("model_bytes", "row_bytes", "rows"),
    [
        (0, 1 << 14, SHARD_BYTES_LEAST >> 14),
        (1 << 30, 1 << 14, (1 << 29) >> 14),
        (1 << 50, 1 << 20, SHARD_BYTES_MOST >> 20),
        (0, 1 << 40, SHARD_ROWS_LEAST),
    ],
)
def test_shard_size_follows_from_the_shapes_alone(model_bytes, row_bytes, rows):
    assert shard_rows_for(model_bytes, row_bytes) == rows


def ends_of(text, tokens):
    ends, at = [], 0
    for token in tokens:
        at = text.index(token, at) + len(token)
        ends.append(at)
    return np.array(ends, dtype=np.int32)


@pytest.mark.parametrize(
    ("text", "tokens", "words"),
    [
        ("un believ able", ["un", " bel", "iev", " able"], [True, False, True, True]),
        ("he lied.", ["he", " lied", "."], [True, False, True]),
        ("a  b", ["a", " ", " b"], [True, False, True]),
        ("a \nb", ["a", " \n", "b"], [True, False, True]),
        ("one", ["o", "n", "e"], [False, False, True]),
        ("tail ", ["tail", " "], [True, True]),
    ],
)
def test_word_ends(text, tokens, words):
    assert word_ends(text, ends_of(text, tokens)).tolist() == words


def test_bytes_of_one_character_are_one_word():
    # Byte tokens of one character all end where the character ends: the last of them ends the word.
    assert word_ends("hi 🎉", np.array([2, 4, 4, 4, 4], dtype=np.int32)).tolist() == [True, False, False, False, True]
