"""Language models as functions: what they are asked, and judges that decide from the text alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from typing import Any

from conceptatlas.evidence.labels.asking import DETECTION_SYSTEM, FUZZING_SYSTEM, LABEL_SYSTEM
from conceptatlas.evidence.labels.contexts import CLOSE, OPEN
from conceptatlas.evidence.labels.keywords import word_spans
from tests.llm.scripted_server import Answer, Request, Script

KINDS = {LABEL_SYSTEM: "label", DETECTION_SYSTEM: "detection", FUZZING_SYSTEM: "fuzzing"}


def kind(request: Request) -> str:
    return KINDS[request.system]


def lines_of(request: Request) -> list[str]:
    """The lines of texts, without the words that are added when it is asked again."""
    return request.user.split("Texts:\n", 1)[1].split("\n\n")[0].splitlines()


def texts_of(request: Request) -> list[dict[str, Any]]:
    """The texts to be judged, with their ids."""
    return [json.loads(line) for line in lines_of(request)]


def shown_texts(request: Request) -> list[str]:
    """The texts that a labeller is shown, without the marks."""
    texts = [json.loads(line.split(". ", 1)[1]) for line in lines_of(request)]
    return [text.replace(OPEN, "").replace(CLOSE, "") for text in texts]


def marked_words(text: str) -> list[str]:
    """The words of which a part is marked."""
    parts = text.split(OPEN)[1:]
    return [word for part in parts for word, _, _ in word_spans(part.split(CLOSE)[0])]


def as_answer(verdicts: list[tuple[int, bool]]) -> Answer:
    return Answer(json.dumps({"answers": [{"id": i, "fits": fits} for i, fits in verdicts]}))


def judge(fits: Callable[[str], bool], *, label: Callable[[Request], str] = lambda _: "brave deeds") -> Script:
    """A model that labels by ``label`` and judges each text by itself: the whole of it, or what is marked."""

    def script(request: Request) -> Answer:
        if kind(request) == "label":
            return Answer(json.dumps({"label": label(request)}))
        relevant = (lambda t: " ".join(marked_words(t))) if kind(request) == "fuzzing" else (lambda t: t)
        return as_answer([(one["id"], fits(relevant(one["text"]))) for one in texts_of(request)])

    return script


def knows(words: Collection[str]) -> Callable[[str], bool]:
    """Whether a text holds one of the words."""
    return lambda text: any(word in words for word, _, _ in word_spans(text))
