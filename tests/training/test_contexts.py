"""Contexts: one text each, BOS first, one text in fifty held out by its own characters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from conceptatlas.base.errors import InputError
from conceptatlas.subjects import LanguageSubject
from conceptatlas.subjects.texts import TextStream
from conceptatlas.training.contexts import Contexts, is_held_out, make_contexts

MANY = 10**9


def made(organism: LanguageSubject, texts: list[str], *, context: int = 32, rows: int = MANY) -> Contexts:
    return make_contexts(organism, TextStream(texts), context=context, rows=rows)


@pytest.mark.parametrize("context", [5, 32, 512])
def test_contexts_of_a_text_together_are_the_text(organism: LanguageSubject, texts: list[str], context: int) -> None:
    contexts = made(organism, [*texts, *texts[:5]], context=context)
    found = [contexts.of(i) for i in range(len(contexts.n_rows))]
    assert max(map(len, found)) <= context
    assert all(ids[0] == organism.token_rules.bos_id and organism.token_rules.bos_id not in ids[1:] for ids in found)
    expected = organism.tokenize(texts).token_ids
    assert np.concatenate([ids[1:] for ids in found]).tolist() == np.concatenate([ids[1:] for ids in expected]).tolist()
    assert contexts.n_rows.tolist() == [len(ids) - 1 for ids in found]


def test_what_is_held_out_follows_from_the_text_alone(organism: LanguageSubject, texts: list[str]) -> None:
    numbered = [f"{text} Number {i}." for i, text in enumerate(texts * 5)]
    held = [text for text in numbered if is_held_out(text)]
    assert 1 <= len(held) <= 20
    for order in (numbered, numbered[::-1], [*numbered, *held]):
        contexts = made(organism, order, context=512)
        out = {contexts.of(int(i)).tobytes() for i in np.flatnonzero(contexts.held_out)}
        assert out == {ids.tobytes() for ids in organism.tokenize(held).token_ids}


def test_reading_stops_when_there_is_enough(organism: LanguageSubject, texts: list[str]) -> None:
    numbered = [f"{text} Number {i}." for i, text in enumerate(texts * 40)]
    stream = TextStream(numbered)
    contexts = make_contexts(organism, stream, context=32, rows=500)
    assert 500 <= contexts.training_rows < 15_000
    assert contexts.held_out.any()
    assert stream.n_texts < len(numbered)


def test_of_few_texts_one_is_held_out_and_of_one_none_can_be(organism: LanguageSubject) -> None:
    two = ["She told him that the bag was new.", "The man went home."]
    assert not any(map(is_held_out, two))
    assert made(organism, two).held_out.sum() == 1
    with pytest.raises(InputError, match=r"The list of texts holds 1 different text, and one is held out"):
        made(organism, [two[0], two[0]])
    with pytest.raises(InputError, match="holds no text"):
        made(organism, ["", " "])


def test_saved_and_read_again(organism: LanguageSubject, texts: list[str], tmp_path: Path) -> None:
    contexts = made(organism, texts)
    assert Contexts.load(tmp_path) is None
    contexts.save(tmp_path)
    again = Contexts.load(tmp_path)
    assert again is not None
    for name in ("token_ids", "starts", "held_out", "n_rows"):
        assert np.array_equal(getattr(again, name), getattr(contexts, name))
    (tmp_path / "n_rows.npy").unlink()
    assert Contexts.load(tmp_path) is None
