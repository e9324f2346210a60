"""What the labeller sees is never used to judge its label."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from conceptatlas.concepts.similarity import jaccard, normalised, shingles
from conceptatlas.evidence.labels.choosing import choose, spread, unscored, wrong_marks
from conceptatlas.evidence.labels.collect import CollectOptions, FeatureExamples, Smallest
from conceptatlas.evidence.labels.contexts import Context
from conceptatlas.evidence.labels.scoring import balanced_accuracy, questions_of
from conceptatlas.evidence.labels.targets import Target
from conceptatlas.saes import SAESource

TARGET = Target(SAESource("s", "r", "blocks.0.hook_resid_pre", "saelens", "."), 0)


def a_context(sequence: int, words: str, value: float) -> Context:
    pieces = [f" {word}" for word in words.split()]
    ends = np.cumsum([len(piece) for piece in pieces]).astype(np.int32)
    acts = np.zeros(len(pieces), np.float32)
    acts[0] = value
    return Context(sequence, 0, "".join(pieces), ends, acts, 0)


def examples(active: list[tuple[int, int]], silent: list[tuple[int, int]]) -> FeatureExamples:
    """Examples as (number of the text, what it reads like)."""
    found = FeatureExamples(TARGET, CollectOptions(max_examples=5, sample=30, silent=30))
    for number, (sequence, look) in enumerate(active):
        context = a_context(sequence, f"text number {look} of many", 1.0 + number)
        found.n_active_tokens += 1
        found.max_activation = context.activation
        for keep, key in ((found._top, -context.activation), (found._sample, float(number * 7 % 13))):
            if keep.wants(key, number):
                keep.add(context, key, number)
    for number, (sequence, look) in enumerate(silent):
        if found._silent.wants(number):
            found._silent.add(a_context(sequence, f"other {look} of many", 0.0), number)
    return found


PAIRS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 30)), max_size=40)


@settings(deadline=None, max_examples=150)
@given(PAIRS, PAIRS, st.integers(1, 12), st.integers(1, 12))
def test_shown_and_scored_share_no_text(
    active: list[tuple[int, int]], silent: list[tuple[int, int]], n_shown: int, n_scored: int
) -> None:
    choice = choose(examples(active, silent), n_shown=n_shown, n_scored=n_scored)
    shown, scored = choice.shown, [*choice.activating, *choice.silent]
    assert not {c.sequence_index for c in shown} & {c.sequence_index for c in scored}
    assert not {c.text for c in shown} & {c.text for c in scored}
    assert not {c.text for c in choice.activating} & {c.text for c in choice.silent}
    assert len(shown) <= n_shown
    assert len(choice.activating) <= n_scored
    assert len(choice.silent) <= n_scored
    assert bool(shown) == bool(active)
    for part in (shown, choice.activating, choice.silent):
        assert len({c.text for c in part}) == len({c.sequence_index for c in part}) == len(part)
    for test in ("detection", "fuzzing"):
        questions = questions_of(choice, test, np.random.default_rng(0))
        assert not questions or {question.truth for question in questions} == {True, False}


def test_the_labeller_sees_strong_and_weak() -> None:
    choice = choose(examples([(i, i) for i in range(30)], [(i, i) for i in range(40, 60)]), n_shown=6, n_scored=9)
    activations = sorted(c.activation for c in choice.shown)
    assert len(activations) == 6
    assert activations[-3:] == [28.0, 29.0, 30.0]  # the three strongest
    assert activations[0] < 25
    assert len(choice.activating) == 9
    assert len({c.decile for c in choice.activating}) > 5
    assert len(choice.silent) == 9
    assert min(c.activation for c in [*choice.shown, *choice.activating]) >= 0.3 * 30


def test_two_texts_leave_one_for_the_score() -> None:
    choice = choose(examples([(0, 0), (1, 1)], [(5, 5)]), n_shown=10, n_scored=10)
    assert [len(choice.shown), len(choice.activating), len(choice.silent)] == [1, 1, 1]


def test_planted_twins_and_near_duplicates_are_never_both_shown_and_scored() -> None:
    """Every text stands three times: as it is, in capitals with other marks, and with one word more."""
    found = FeatureExamples(TARGET, CollectOptions(max_examples=9, sample=60, silent=30))
    rng, words = np.random.default_rng(0), [f"w{i}" for i in range(200)]
    texts = [" ".join(rng.choice(words, 14)) for _ in range(20)]
    copies = [copy for text in texts for copy in (text, text.upper().replace(" ", ", "), f"{text} indeed")]
    for number in rng.permutation(len(copies)):
        context = a_context(int(number), copies[number], 1.0 + number / 100)
        found.n_active_tokens += 1
        found.max_activation = max(found.max_activation, context.activation)
        found._top.add(context, -context.activation, number)
        found._sample.add(context, float(number))
    choice = choose(found, n_shown=8, n_scored=9)
    assert len(choice.shown) == 8
    assert len(choice.activating) == 9
    for shown in choice.shown:
        for scored in choice.activating:
            assert normalised(shown.text) != normalised(scored.text)
            assert jaccard(shingles(shown.text), shingles(scored.text)) < 0.8
    # What makes the search label shares nothing with what judges it.
    used = unscored(found, choice)
    assert used
    for one in used:
        for scored in choice.activating:
            assert jaccard(shingles(one.text), shingles(scored.text)) < 0.8


def test_a_twin_of_the_whole_text_is_not_scored_by_another_piece() -> None:
    found = examples([(0, 0), (1, 1), (2, 2), (3, 3)], [])
    same = [replace(context, twin_key="one text") for context in found.top]
    found._top = Smallest(5)
    found._sample = Smallest(5)
    for number, context in enumerate(same):
        found._top.add(context, -context.activation, number)
    choice = choose(found, n_shown=4, n_scored=4)
    assert len(choice.shown) == 1
    assert choice.activating == []


def test_spread_takes_from_each_in_turn() -> None:
    tens, ones = [a_context(i, "x", 1.0) for i in range(3)], [a_context(9, "y", 1.0)]
    assert [c.sequence_index for c in spread({10: tens, 1: ones})] == [0, 9, 1, 2]


def test_wrong_marks_are_silent_words() -> None:
    context = a_context(0, "fires , never here", 1.0)
    drawn = {tuple(wrong_marks(context, np.random.default_rng(seed))) for seed in range(30)}  # type: ignore[arg-type]
    assert drawn == {(False, False, True, False), (False, False, False, True)}
    only = a_context(0, "fires ,", 1.0)
    assert list(wrong_marks(only, np.random.default_rng(0))) == [False, True]  # type: ignore[arg-type]
    assert wrong_marks(a_context(0, "fires", 1.0), np.random.default_rng(0)) is None
    assert wrong_marks(a_context(0, "never", 0.0), np.random.default_rng(0)) is None


def test_balanced_accuracy() -> None:
    assert balanced_accuracy([True, True, False], [True, False, False]) == 0.75
    assert balanced_accuracy([True] * 9 + [False], [True] * 10) == 0.5
    assert balanced_accuracy([True, True], [True, True]) is None
    assert balanced_accuracy([], []) is None
