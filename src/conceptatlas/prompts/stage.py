"""The stage ``prompts`` of a study: universal features, their contrast between labels, and the clearest ones followed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from conceptatlas.base.files import atomic_file, ensure_folder
from conceptatlas.prompts.reading import ChatOptions
from conceptatlas.prompts.run import PromptsConfig, PromptsResult, analyse_prompts

BUILT_IN = "builtin"
UNIVERSAL_FILE = "universal.csv"
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
    folder = ensure_folder(Path(out))
    path = _built_in_prompts() if str(prompts_path) == BUILT_IN else Path(prompts_path)
    chat = ChatOptions(tokens=tuple(tokens), device=device)
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
    with atomic_file(folder / FOLLOWED_FILE) as handle:
        followed.write_csv(handle)
    return analyse_prompts(
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


def _built_in_prompts() -> Path:
    from conceptatlas.subjects.organism import prompts_path

    return Path(prompts_path())


def read_tables(folder: Path) -> dict[str, pl.DataFrame]:
    """Return the stage's tables by file name, those that are there and not empty."""
    found = {}
    for name in (UNIVERSAL_FILE, CONTRAST_FILE, SPECIFIC_FILE):
        path = folder / name
        if path.is_file() and path.stat().st_size > 1:
            table = pl.read_csv(path)
            if table.height:
                found[name] = table
    return found
