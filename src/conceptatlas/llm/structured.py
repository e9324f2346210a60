"""Strict reading of a model's answer: one JSON value and nothing else, validated, or a ``BadAnswer`` that says why."""

from __future__ import annotations

import json
import re
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from conceptatlas.llm.model import BadAnswer

_Model = TypeVar("_Model", bound=BaseModel)
_SHOWN = 80
_THOUGHTS = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
_FENCE = re.compile(r"\A```(?:json)?[ \t]*\n(.*)\n```\Z", re.DOTALL | re.IGNORECASE)


def shown(text: str) -> str:
    """Return the beginning of an answer, on one line, for a message."""
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def read_json_answer(text: str) -> Any:
    """Return the one JSON value that an answer consists of.

    A leading ``<think>`` block and one code fence round the whole are taken off, since endpoints without a schema mode
    add them; nothing is searched for inside prose.

    Raises:
        BadAnswer: The answer is empty or is anything else.
    """
    body = _THOUGHTS.sub("", text, count=1).strip()
    fenced = _FENCE.match(body)
    body = fenced[1].strip() if fenced else body
    if not body:
        raise BadAnswer("the answer is empty")
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BadAnswer(f"the answer is not JSON: {shown(text)!r}") from error


def read_answer(text: str, form: type[_Model]) -> _Model:
    """Return an answer as a validated model (strict: no number for a string, no further keys where it forbids them).

    Raises:
        BadAnswer: The answer is not JSON, or not of the form.
    """
    value = read_json_answer(text)
    try:
        return form.model_validate(value, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        raise BadAnswer(
            f"the answer is not of the form asked for ({place}: {first['msg']}): {shown(text)!r}"
        ) from error


def schema_of(form: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON schema of ``form``, as endpoints take it."""
    return form.model_json_schema()
