"""What ships with the package: five traits, their rubrics, everyday seeds, and the built-in model's graded sets."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from conceptatlas.base.errors import InputError, unknown_name

TRAITS = ("dishonesty", "aggression", "caring", "bravery", "unfairness")

# Prefix on the command line -> folder under data/.
_FOLDERS = {"builtin": "organism", "seeds": "seeds"}
# Further sets of a trait: few items, and a cue that goes with the trait in discovery only.
VARIANTS = ("small", "cue")


@dataclass(frozen=True)
class BuiltinSet:
    """One shipped data set.

    Attributes:
        name: As written on the command line: ``builtin:bravery``, ``builtin:dishonesty-small`` or ``seeds:bravery``.
        trait: One of ``TRAITS``.
        path: The CSV file.
    """

    name: str
    trait: str
    path: Path


def _data_folder() -> Path:
    return Path(str(resources.files("conceptatlas.concepts") / "data"))


def builtin_sets() -> list[BuiltinSet]:
    """Return every shipped set whose file is there, in the order of ``TRAITS``, the built-in model's sets first."""
    found = []
    for prefix, folder in _FOLDERS.items():
        for trait in TRAITS:
            for name in (trait, *(f"{trait}-{variant}" for variant in VARIANTS)):
                path = _data_folder() / folder / f"{name}.csv"
                if path.is_file():
                    found.append(BuiltinSet(f"{prefix}:{name}", trait, path))
    return found


def is_builtin_name(name: str) -> bool:
    """Say whether ``name`` is written as a shipped set is (``builtin:…`` or ``seeds:…``), known or not."""
    return name.partition(":")[0] in _FOLDERS and ":" in name


def builtin_path(name: str) -> Path:
    """Return the file of a shipped set.

    Args:
        name: ``builtin:<trait>`` (the built-in model's graded set; also ``builtin:dishonesty-small``, of 60 items, and
            ``builtin:dishonesty-cue``, with a misleading cue in discovery) or ``seeds:<trait>`` (20 everyday sentences).

    Raises:
        InputError: There is no such set; the nearest names stand in the message.
    """
    sets = {entry.name: entry.path for entry in builtin_sets()}
    if name not in sets:
        raise unknown_name("built-in data set", name, sets)
    return sets[name]


def _trait_text(trait: str, kind: str) -> str:
    path = _data_folder() / "traits" / f"{trait}.{kind}"
    if not path.is_file():
        raise unknown_name("trait", trait, TRAITS)
    return path.read_text(encoding="utf-8").strip()


def trait_description(trait: str) -> str:
    """Return what a built-in trait is, in one or two sentences (for ``--describe``).

    Raises:
        InputError: There is no such trait.
    """
    return _trait_text(trait, "describe.txt")


def trait_rubric(trait: str) -> str:
    """Return a built-in trait's rubric, in Markdown, a section per grade (for ``--rubric``).

    Raises:
        InputError: There is no such trait.
    """
    return _trait_text(trait, "rubric.md")


def concept_text(concept: str, *, describe: str | None = None, rubric_file: Path | None = None) -> tuple[str, str]:
    """Return the description and the rubric for a concept, built in or the user's own.

    Args:
        concept: The concept's name.
        describe: The user's description; needed for a concept that is not built in, unless there is a rubric file.
        rubric_file: The user's rubric; without it, the trait's own, else the general one filled with the name.

    Raises:
        InputError: A concept that is not built in has neither, or the rubric file cannot be read or is empty.
    """
    known = concept in TRAITS
    if not known and describe is None and rubric_file is None:
        raise InputError(
            f"{concept!r} is not built in ({', '.join(TRAITS)} are); say what it is with --describe or --rubric."
        )
    described = describe.strip() if describe else (trait_description(concept) if known else "")
    if rubric_file is not None:
        return described, _read_rubric(rubric_file)
    if known and describe is None:
        return described, trait_rubric(concept)
    general = (_data_folder() / "traits" / "general.rubric.md").read_text(encoding="utf-8").strip()
    return described, general.replace("{concept}", concept)


def _read_rubric(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise InputError(f"Cannot read the rubric {path}: {error.strerror}; check the path.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"The rubric {path} is not UTF-8 (byte {error.start}); save it as UTF-8.") from error
    if not text:
        raise InputError(f"The rubric {path} is empty; describe the grades 0 to 3 in it.")
    return text
