"""Scripted language models that grade: they read the prompt as a model would, and are wrong as told."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from tests.llm.scripted_server import Answer, Request, Script


def items_of(request: Request) -> list[dict[str, str]]:
    """Return the {id, text} objects that a grading request holds."""
    return [json.loads(line) for line in request.user.split("\n") if line.startswith('{"id"')]


def texts_asked(requests: list[Request]) -> list[str]:
    return [item["text"] for request in requests for item in items_of(request)]


def grade_all(request: Request, grade: Callable[[str], Any]) -> list[dict[str, Any]]:
    return [{"id": item["id"], "grade": grade(item["text"])} for item in items_of(request)]


def answer(entries: list[dict[str, Any]]) -> Answer:
    return Answer(json.dumps({"grades": entries}))


def perfect(truth: Mapping[str, int]) -> Script:
    """Grade as ``truth`` says."""
    return lambda request: answer(grade_all(request, truth.__getitem__))
