"""The stage ``prompts`` of a study: universal features, their contrast between labels, and the clearest ones followed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl

from conceptatlas.base.artefact import open_sealed
from conceptatlas.base.files import write_csv
from conceptatlas.base.kinds import PROMPTS
from conceptatlas.base.writing import writing
from conceptatlas.prompts.reading import ChatOptions
from conceptatlas.prompts.run import PromptsConfig, PromptsResult, analyse_prompts

BUILT_IN = "builtin"
UNIVERSAL_FILE = PROMPTS.marker
CONTRAST_FILE = "universal_by_label.csv"
FOLLOWED_FILE = "followed.csv"
SPECIFIC_FILE = "specific.csv"


def prompts(
    out: str | os.PathLike[str],
    *,
    prompts_path: str | os.PathLike[str] = BUILT_IN,
    sources: Sequence[str] = ("organism",),
    tokens: Sequence[str] = (),
    threshold: float = 0.3,
    activation_threshold: float = 0.01,
    follow: int = 12,
    device: str = "auto",
) -> PromptsResult:
    """Analyse chat prompts and write the tables that the report shows.

    Args:
        out: The folder to write: universal features, activity by label, the followed features and their prompts.
        prompts_path: A JSONL file, a folder of them, or ``builtin`` (those that ship with the built-in model).
        sources: See `conceptatlas.prompts.resolve_sources`.
        tokens: Token types; those of the template where empty.
        threshold: Share of the prompts on which a universal feature is active.
        activation_threshold: Above this a feature is active.
        follow: How many features are followed over every prompt: those that tell the labels apart best, one token type each.
        device: Where the models run.

    Raises:
        InputError: See `conceptatlas.prompts.analyse_prompts`.
    """
    path = _built_in_prompts() if str(prompts_path) == BUILT_IN else Path(prompts_path)
    chat = ChatOptions(tokens=tuple(tokens), device=device)
    with writing(PROMPTS, out, {"prompts": path} if path.is_file() else {}) as folder:
        found = analyse_prompts(
            PromptsConfig(
                "universal",
                prompts_path=path,
                sources=tuple(sources),
                chat=chat,
                threshold=threshold,
                activation_threshold=activation_threshold,
                universal_output=folder / UNIVERSAL_FILE,
                by="label",
            )
        )
        table = found.contrast if found.contrast.height else found.universal
        followed = table.select("feature_id", "source").unique(maintain_order=True).head(follow)
        write_csv(folder / FOLLOWED_FILE, followed)
        result = analyse_prompts(
            PromptsConfig(
                "specific",
                prompts_path=path,
                sources=tuple(sources),
                chat=chat,
                activation_threshold=activation_threshold,
                features_csv=folder / FOLLOWED_FILE,
                specific_output=folder / SPECIFIC_FILE,
                record_prompts=True,
            )
        )
    return replace(result, written=[Path(out) / file.relative_to(folder) for file in result.written])


def _built_in_prompts() -> Path:
    from conceptatlas.subjects.organism import prompts_path

    return Path(prompts_path())


def read_tables(folder: Path) -> dict[str, pl.DataFrame]:
    """Return the stage's tables by file name, those that are not empty.

    Raises:
        InputError: They are not there, or were not finished.
        WorkError: A file is damaged.
    """
    sealed = open_sealed(PROMPTS, folder)
    paths = {name: sealed.file(name) for name in (UNIVERSAL_FILE, CONTRAST_FILE, SPECIFIC_FILE) if name in sealed.files}
    tables = {name: pl.read_csv(path, glob=False) for name, path in paths.items() if path.stat().st_size > 1}
    return {name: table for name, table in tables.items() if table.height}
