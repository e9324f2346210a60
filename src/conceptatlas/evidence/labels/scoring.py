"""How good a label is, on examples that the labeller never saw: detection and fuzzing (Paulo et al. 2024, sec. 3.2).

Detection: which of these texts activate the feature? Fuzzing: in texts that activate it, are the marked tokens the
right ones? Each is the balanced accuracy (mean of the hit rates on what fits and on what does not), 0.5 for a
judge that always says the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from conceptatlas.evidence.labels.asking import (
    DETECTION_FORM,
    DETECTION_SYSTEM,
    FUZZING_FORM,
    FUZZING_SYSTEM,
    GIVE_UP,
    Judging,
    Question,
    judge_asks,
    texts_a_question,
)
from conceptatlas.evidence.labels.choosing import Choice, halves, wrong_marks
from conceptatlas.evidence.labels.contexts import marked
from conceptatlas.llm import LLM, Ask, ChatModel, NoAnswer

Test = Literal["detection", "fuzzing"]
TESTS: dict[Test, Judging] = {
    "detection": Judging(DETECTION_SYSTEM, DETECTION_FORM),
    "fuzzing": Judging(FUZZING_SYSTEM, FUZZING_FORM),
}


@dataclass(frozen=True)
class Score:
    """A balanced accuracy.

    Attributes:
        accuracy: 0 to 1; None where texts of one kind (fitting or not) got no verdict.
        n: Texts that got a verdict.
        n_asked: Texts about which the judge was asked.
    """

    accuracy: float | None = None
    n: int = 0
    n_asked: int = 0


def balanced_accuracy(truths: Sequence[bool], verdicts: Sequence[bool]) -> float | None:
    """Return the mean of the hit rates on the true and on the false; None where one of the kinds is missing."""
    rates = [
        [verdict == truth for truth, verdict in zip(truths, verdicts, strict=True) if truth is kind]
        for kind in (True, False)
    ]
    if not all(rates):
        return None
    return float(np.mean([np.mean(rate) for rate in rates]))


def questions_of(choice: Choice, test: Test, rng: np.random.Generator) -> list[Question]:
    """Return the texts of a test in random order; none where either kind is missing.

    Args:
        choice: The feature's examples.
        test: ``detection`` or ``fuzzing``.
        rng: Draws the order and the wrong marks.
    """
    questions = (_detection if test == "detection" else _fuzzing)(choice, rng)
    if len({question.truth for question in questions}) < 2:
        return []
    return [questions[i] for i in rng.permutation(len(questions))]


def _detection(choice: Choice, rng: np.random.Generator) -> list[Question]:  # noqa: ARG001 - same shape as the other
    return [Question(c.text, truth=True) for c in choice.activating] + [
        Question(c.text, truth=False) for c in choice.silent
    ]


def _fuzzing(choice: Choice, rng: np.random.Generator) -> list[Question]:
    # Every context of which marks can be wrong; half of them are then marked wrongly.
    candidates = [(c, flags) for c in choice.activating if (flags := wrong_marks(c, rng)) is not None]
    wrong_of = {id(c): flags for c, flags in candidates}
    right, wrong = halves([c for c, _ in candidates])
    return [Question(marked(c.pieces, c.active), truth=True) for c in right] + [
        Question(marked(c.pieces, wrong_of[id(c)]), truth=False) for c in wrong
    ]


def count_calls(choices: Sequence[Choice], model: ChatModel, *, seed: int) -> int:
    """Return how many calls of the judge the scores of these features take."""
    sizes = [
        len(questions_of(choice, test, np.random.default_rng([seed, place])))
        for place, choice in enumerate(choices)
        for test in TESTS
    ]
    return sum(-(-size // texts_a_question(model)) for size in sizes)


def score_labels(
    llm: LLM,
    labels: Sequence[str | None],
    choices: Sequence[Choice],
    *,
    seed: int,
    tick: Callable[[], None] = lambda: None,
) -> tuple[list[dict[Test, Score]], list[str]]:
    """Judge every label by both tests.

    A group of texts whose verdicts do not come, or come malformed twice, is left out: ``n`` is then smaller, and its
    reason is returned. Nothing is counted as right or wrong by default.

    Args:
        llm: The judge.
        labels: A label of each feature, None for none.
        choices: The examples of each feature.
        seed: Of the order and of the wrong marks.
        tick: Called after each answer.

    Returns:
        The scores of each feature, and the reasons for which groups were left out.
    """
    asks: list[Ask[list[bool]]] = []
    owners: list[tuple[int, Test, list[Question]]] = []
    at_once = texts_a_question(llm.model)
    for place, (label, choice) in enumerate(zip(labels, choices, strict=True)):
        for test, judging in TESTS.items():
            if label is None:
                continue
            questions = questions_of(choice, test, np.random.default_rng([seed, place]))
            for number, ask in enumerate(judge_asks(judging, label, questions, at_once)):
                asks.append(ask)
                owners.append((place, test, questions[number * at_once : (number + 1) * at_once]))
    truths: dict[tuple[int, Test], list[bool]] = {}
    verdicts: dict[tuple[int, Test], list[bool]] = {}
    asked: dict[tuple[int, Test], int] = {}
    reasons: list[str] = []
    for index, answer in llm.ask_all(asks, tries=2, give_up=GIVE_UP):
        place, test, group = owners[index]
        asked[place, test] = asked.get((place, test), 0) + len(group)
        if isinstance(answer, NoAnswer):
            reasons.append(str(answer))
        else:
            truths.setdefault((place, test), []).extend(question.truth for question in group)
            verdicts.setdefault((place, test), []).extend(answer)
        tick()
    scores: list[dict[Test, Score]] = []
    for place in range(len(labels)):
        of_feature: dict[Test, Score] = {}
        for test in TESTS:
            key = (place, test)
            given = verdicts.get(key, [])
            accuracy = balanced_accuracy(truths.get(key, []), given)
            of_feature[test] = Score(accuracy, len(given), asked.get(key, 0))
        scores.append(of_feature)
    return scores, reasons
