"""Search labels: the formula, and words that are planted."""

from __future__ import annotations

import math

import numpy as np
import pytest

from conceptatlas.evidence.labels.contexts import Context
from conceptatlas.evidence.labels.keywords import (
    background_frequencies,
    class_frequencies,
    contrast,
    search_keywords,
    search_label,
    symbol_frequencies,
    word_activations,
)


def context(sequence: int, pieces: list[str], acts: dict[int, float]) -> Context:
    ends = np.cumsum([len(piece) for piece in pieces]).astype(np.int32)
    values = np.zeros(len(pieces), np.float32)
    for place, value in acts.items():
        values[place] = value
    return Context(sequence, 0, "".join(pieces), ends, values, int(values.argmax()))


def test_a_word_has_the_largest_activation_of_its_tokens() -> None:
    one = context(0, ["The", " for", "ger", ",", " he", " ran"], {1: 2.0, 2: 4.0, 4: 0.5})
    assert word_activations(one) == [("the", 0.0, True), ("forger", 4.0, True), ("he", 0.0, False), ("ran", 0.0, False)]


def test_class_frequencies() -> None:
    one = context(0, ["she", " saw", " rain", " fall"], {2: 3.0})
    frequencies, texts = class_frequencies([one, one])
    # rain weighs as much as she and saw together; what follows counts nothing
    assert frequencies == pytest.approx({"rain": 0.5, "she": 0.25, "saw": 0.25})
    assert texts == {"rain": 1, "she": 1, "saw": 1}


def test_contrast_is_class_based_tf_idf_times_the_squared_contrast() -> None:
    p, q = np.array([0.2, 0.2, 0.1, 0.0]), np.array([0.05, 0.11, 0.1, 0.3])
    weights = contrast(p, q)
    assert weights[0] == pytest.approx(0.2 * math.log(1 + 1 / 0.25) * (0.15 / 0.25) ** 2)
    assert weights[1:].tolist() == [0, 0, 0]  # not twice as frequent as in the background


def test_planted_words_win_over_words_of_everywhere() -> None:
    background = [context(100 + i, ["the", " man", " went", " home", " in", " rain"], {}) for i in range(50)]
    examples = [
        context(i, ["the", " man", " forged" if i % 2 else " faked", " the", " note"], {2: 1.0}) for i in range(10)
    ]
    keywords = search_keywords(examples, background_frequencies(background), symbol_frequencies(background))
    assert set(keywords[:2]) == {"forged", "faked"}
    assert "the" not in keywords
    assert search_label(keywords) == ", ".join(keywords)


def test_a_word_of_one_text_is_no_keyword_unless_there_is_only_one() -> None:
    background = {"the": 0.5}
    examples = [context(i, ["the", " odd" if i == 3 else " word"], {1: 1.0}) for i in range(5)]
    assert search_keywords(examples, background, {}) == ["word"]
    assert search_keywords(examples[3:4], background, {}) == ["odd"]


def test_brackets_and_scripts() -> None:
    background = [context(100 + i, ["print", " (", "a", ")", " 雨", " été"], {}) for i in range(5)]
    examples = [context(i, ["call", " {", " x"], {1: 1.0}) for i in range(4)]
    symbols = symbol_frequencies(background)
    assert symbols["("] == pytest.approx(1 / 6)
    assert search_keywords(examples, background_frequencies(background), symbols)[-1] == "{"
    rain = [context(i, ["x", " 雨"], {1: 1.0}) for i in range(4)]
    assert search_keywords(rain, {"x": 0.5}, {}) == ["雨"]


def test_nothing_gives_nothing() -> None:
    assert search_keywords([], {}, {}) == []
    assert search_label([]) is None
    assert class_frequencies([]) == ({}, {})
    assert symbol_frequencies([]) == {}
