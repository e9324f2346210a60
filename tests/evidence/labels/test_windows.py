"""Windows of texts: nothing is lost, nothing is concatenated, BOS stands once in each."""

from __future__ import annotations

import numpy as np
import pytest

from conceptatlas.base.errors import InputError
from conceptatlas.evidence.labels.contexts import cut_context, marked
from conceptatlas.subjects import LanguageSubject
from conceptatlas.subjects.windows import WindowCutter, batches_of

TEXTS = [(0, "She said that."), (3, "the brave man went home and " * 9 + "She"), (4, "rain")]


@pytest.mark.parametrize("size", [2, 3, 7, 40, 1000])
def test_windows_together_are_the_text(subject: LanguageSubject, size: int) -> None:
    windows = list(WindowCutter(subject, max_tokens=size).cut(TEXTS))
    for number, text in TEXTS:
        own = [window for window in windows if window.sequence_index == number]
        whole = subject.tokenize([text])
        assert np.concatenate([w.token_ids[w.mask] for w in own]).tolist() == whole.token_ids[0][whole.rows[0]].tolist()
        assert "".join(text[a:b] for w in own for a, b in zip(w.starts, w.ends, strict=True)) == text
        assert [w.first_position for w in own] == np.cumsum([0, *(w.n_rows for w in own[:-1])]).tolist()
        for window in own:
            assert len(window.token_ids) <= min(size, 128)
            assert window.token_ids[0] == subject.tokenizer.bos_token_id
            assert window.mask.tolist() == [False] + [True] * window.n_rows


def test_the_models_limit_counts(subject: LanguageSubject) -> None:
    assert WindowCutter(subject, max_tokens=10_000).max_tokens == 128
    assert subject.token_rules.limit == 128
    with pytest.raises(InputError, match="--max-tokens is 1"):
        WindowCutter(subject, max_tokens=1)


def test_a_text_of_special_tokens_only_is_named(subject: LanguageSubject) -> None:
    with pytest.raises(InputError, match=r"Text 7: .*only special tokens"):
        list(WindowCutter(subject, max_tokens=50).cut([(6, "She"), (7, "<bos>")]))


def test_batches_bound_the_padded_tokens(subject: LanguageSubject) -> None:
    windows = list(WindowCutter(subject, max_tokens=20).cut(TEXTS * 5))
    batches = batches_of(windows, padded_tokens=50)
    assert sorted(i for batch in batches for i in batch) == list(range(len(windows)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(len(windows[i].token_ids) for i in batch) <= 50


def test_a_context_is_cut_out_of_the_text(subject: LanguageSubject) -> None:
    (window,) = WindowCutter(subject, max_tokens=100).cut([(5, "She said that the brave man went home")])
    rows, values = np.array([0, 4, 5]), np.array([9.0, 2.0, 0.5], dtype=np.float32)
    context = cut_context(window, 4, before=2, after=1, rows=rows, values=values)
    assert context.pieces == [" that", " the", " brave", " man"]
    assert context.activations.tolist() == [0.0, 0.0, 2.0, 0.5]
    assert (context.activation, context.token_position, context.sequence_index) == (2.0, 4, 5)
    assert context.active.tolist() == [False, False, True, False]  # 0.5 is below 0.3 of 2
    assert marked(context.pieces, context.active) == " that the <<brave>> man"
    assert marked(["a", " b", " c"], np.array([True, True, True])) == "<<a b c>>"
    assert marked(["a", " b"], np.array([False, True])) == "a <<b>>"
    assert not cut_context(window, 0, before=2, after=1).active.any()
