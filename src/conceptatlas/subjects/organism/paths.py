"""Where the built-in model's files lie within the package."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from conceptatlas.base.errors import WorkError

DATA: Final = Path(__file__).parent / "data"


def _existing(path: Path) -> Path:
    if not path.exists():
        raise WorkError(
            f"The built-in model's files are not at {path}; reinstall conceptatlas, or make them with "
            "`python tools/train_organism.py`."
        )
    return path


def organism_path() -> Path:
    """Return the model's folder, in Hugging Face form. Raises WorkError where it is missing."""
    return _existing(DATA / "model")


def saes_path() -> Path:
    """Return the folder of its SAEs, in SAELens form at ``{hook_name}/l0_{k}``. Raises WorkError if it is missing."""
    return _existing(DATA / "saes")


def prompts_path() -> Path:
    """Return the shipped chat prompts, JSONL of ``content`` and ``label``. Raises WorkError where they are missing."""
    return _existing(DATA / "prompts.jsonl")


def card_path() -> Path:
    """Return the model's card, Markdown (``card.json`` beside it: the figures). Raises WorkError if it is missing."""
    return _existing(DATA / "card.md")
