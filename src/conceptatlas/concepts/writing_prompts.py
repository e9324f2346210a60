"""What a language model is asked when it writes new texts of a grade, and how its answer is read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel

from conceptatlas.concepts.reading import is_unicode
from conceptatlas.llm import BadAnswer, ChatRequest, read_answer, schema_of

EXAMPLES_SHOWN = 5
AVOIDED_SHOWN = 10

# Drawn anew for every question, since models asked for "variety" alone give the same office scene again and again.
SETTINGS = (
    "at home", "among neighbours", "at school or in training", "in an office", "in a workshop or on a building site",
    "in a shop or at a market", "on the road or on a journey", "in a hospital or surgery", "in sport or play",
    "on a farm or out of doors", "in public office or at court", "online or on the telephone", "among friends",
    "between children", "among old people", "in the arts", "in a laboratory or library", "in the army or the police",
    "long ago", "in a club or a charity",
)  # fmt: skip
FORMS = (
    "a plain statement in the third person", "the first person, looking back", "the present tense",
    "a sentence with reported speech", "a sentence that begins with a subordinate clause", "two short sentences",
    "a long sentence with several actions", "a sentence about a group", "a sentence that names no one",
    "a matter-of-fact note, as in a diary or report",
)  # fmt: skip

_INSTRUCTIONS = """You write texts for a data set that grades how strongly a text shows a concept: {concept}.
{description}
{rubric}

Write as people do in everyday life: natural, concrete, each text complete in itself, no two alike in structure, setting
or wording. Never name the grade, and name the concept itself only where a person would. Keep to the language of the
examples, and to about their length, whatever the grade.

Answer with one JSON object and nothing else: {{"sentences": ["…", "…"]}}."""


class _Sentences(BaseModel, extra="forbid"):
    sentences: list[str]


def writing_instructions(concept: str, description: str, rubric: str) -> str:
    """Return the standing instructions for writing."""
    return _INSTRUCTIONS.format(concept=concept, description=description, rubric=rubric).strip()


def writing_request(
    instructions: str, grade: int, n: int, *, examples: Sequence[str], avoid: Sequence[str], number: int, seed: int
) -> ChatRequest:
    """Return the request for ``n`` new texts of ``grade``.

    Args:
        instructions: From ``writing_instructions``.
        grade: The grade aimed at.
        n: How many texts.
        examples: Seeds of that grade, of which some are shown.
        avoid: Texts of that grade that there are already, of which the last are shown.
        number: The number of this request for the grade, from 0; it draws examples, settings and forms.
        seed: The seed of the whole run.
    """
    rng = np.random.default_rng([seed, grade, number])
    shown = [examples[i] for i in rng.permutation(len(examples))[:EXAMPLES_SHOWN]]
    parts = [f"Write {n} new texts of grade {grade}."]
    if shown:
        parts.append("Texts of this grade, to show the kind:\n" + "\n".join(f"- {text}" for text in shown))
    if avoid:
        parts.append(
            "There are already, and should not be varied:\n" + "\n".join(f"- {t}" for t in avoid[-AVOIDED_SHOWN:])
        )
    settings = ", ".join(SETTINGS[i] for i in rng.permutation(len(SETTINGS))[:4])
    forms = "; ".join(FORMS[i] for i in rng.permutation(len(FORMS))[:3])
    parts.append(f"Settings to draw on: {settings}. Forms to use among others: {forms}.")
    return ChatRequest(
        instructions,
        "\n\n".join(parts),
        schema_name="sentences",
        schema=schema_of(_Sentences),
        temperature=1.0,
        max_tokens=2048 + 80 * n,
        sample=number,
    )


def read_sentences_answer(text: str) -> list[str]:
    """Return the texts of an answer, each on one line, empty ones left out.

    Raises:
        BadAnswer: The answer is not of the form, or holds no text.
    """
    found = [" ".join(sentence.split()) for sentence in read_answer(text, _Sentences).sentences]
    # Half a character (an escaped lone surrogate) cannot be written to any file.
    good = [sentence for sentence in found if sentence and is_unicode(sentence)]
    if not good:
        raise BadAnswer("the answer holds no sentence")
    return good
