"""Prompts and lists of features, read and checked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from conceptatlas.base.errors import InputError


@dataclass(frozen=True)
class Prompt:
    """One user turn and its label."""

    content: str
    label: str


@dataclass(frozen=True)
class PromptSet:
    """Prompts in order, and how many of them repeat an earlier one."""

    prompts: tuple[Prompt, ...]
    duplicates: int

    def __len__(self) -> int:
        return len(self.prompts)


def load_prompts(path: Path) -> PromptSet:
    """Read a JSONL file of prompts, or every one of a folder in sorted order.

    Raises:
        InputError: Missing, empty, or a line that is no prompt (file, line and reason are named).
    """
    if path.is_dir():
        files = sorted(path.glob("*.jsonl"))
        if not files:
            raise InputError(f"The folder {path} holds no .jsonl file; put prompts there, or give --prompts-path.")
    elif path.is_file():
        files = [path]
    else:
        raise InputError(f"There are no prompts at {path}; give --prompts-path a .jsonl file or a folder of them.")
    prompts = [prompt for file in files for prompt in _read(file)]
    if not prompts:
        raise InputError(f'{path} holds no prompt; each line is {{"content": …, "label": …}}.')
    return PromptSet(tuple(prompts), len(prompts) - len({prompt.content for prompt in prompts}))


def _read(file: Path) -> list[Prompt]:
    found = []
    for number, raw in enumerate(file.read_bytes().split(b"\n"), start=1):
        if not raw.strip():
            continue
        place = f"{file}, line {number}"
        try:
            entry = json.loads(raw.decode("utf-8-sig" if number == 1 else "utf-8"))
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise InputError(f"{place}: this is not JSON in UTF-8 ({error}); mend the line.") from error
        if not isinstance(entry, dict) or not isinstance(entry.get("content"), str):
            raise InputError(f'{place}: a prompt needs "content", a text; it has {_said(entry)}.')
        if not entry["content"].strip():
            raise InputError(f"{place}: the content is empty; fill it in or remove the line.")
        found.append(Prompt(entry["content"], str(entry.get("label", ""))))
    return found


def _said(entry: object) -> str:
    return ", ".join(map(str, entry)) or "nothing" if isinstance(entry, dict) else f"a {type(entry).__name__}"


@dataclass(frozen=True)
class FeatureList:
    """Features to follow, by source, and the rows whose source is not in the run."""

    by_source: dict[str, list[int]]
    outside: dict[str, int]


def load_features(path: Path, sources: dict[str, int]) -> FeatureList:
    """Read a CSV with ``feature_id`` and ``source``.

    Args:
        path: The file.
        sources: Source name → number of features of its SAE.

    Raises:
        InputError: Missing, without these columns, or a feature that its SAE does not have.
    """
    if not path.is_file():
        raise InputError(f"There is no features CSV at {path}; check --features-csv.")
    try:
        table = pl.read_csv(path, infer_schema=False)
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a CSV in UTF-8 ({error}); mend it.") from error
    for column in ("feature_id", "source"):
        if column not in table.columns:
            raise InputError(f"{path} has no column {column!r}; it has {', '.join(table.columns)}.")
    found: dict[str, dict[int, None]] = {}
    outside: dict[str, int] = {}
    for line, (feature, source) in enumerate(table.select("feature_id", "source").iter_rows(), start=2):
        if source not in sources:
            outside[str(source)] = outside.get(str(source), 0) + 1
            continue
        try:
            index = int(feature)
        except (TypeError, ValueError) as error:
            raise InputError(f"{path}, line {line}: feature_id is {feature!r}; give a whole number.") from error
        if not 0 <= index < sources[source]:
            raise InputError(
                f"{path}, line {line}: {source} has no feature {index}; it has the features 0 to {sources[source] - 1}."
            )
        found.setdefault(source, {})[index] = None
    return FeatureList({source: list(features) for source, features in found.items()}, outside)


def labels_of(prompts: Sequence[Prompt]) -> list[str]:
    """Return the labels in the order in which they first occur."""
    return list(dict.fromkeys(prompt.label for prompt in prompts))
