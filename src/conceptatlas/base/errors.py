"""The two ways in which a command fails, each with its exit code.

A message is one plain sentence: what was wrong, where (file, line, column or value), and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ConceptAtlasError(Exception):
    """Any failure that we explain ourselves; the command line prints it without a traceback."""

    exit_code = 1


class InputError(ConceptAtlasError):
    """Bad usage or bad input: a missing file, a wrong column, an unknown name. Exit code 2."""

    exit_code = 2


class WorkError(ConceptAtlasError):
    """A failure during the work: a full disk, a damaged artefact, an endpoint that went away. Exit code 1."""

    exit_code = 1


def nearest(name: str, valid: Iterable[str], *, n: int = 3) -> list[str]:
    """Return the up to ``n`` valid names most like ``name``, best first (never empty while ``valid`` is not)."""
    names = list(valid)
    close = difflib.get_close_matches(name, names, n=n, cutoff=0.3)
    return close or names[:n]


def unknown_name(kind: str, name: str, valid: Iterable[str]) -> InputError:
    """Return the error for a name that a registry does not hold, with the nearest names that it does."""
    names = sorted(valid)
    if not names:
        return InputError(f"Unknown {kind} {name!r}: there is none here.")
    return InputError(f"Unknown {kind} {name!r}; nearest: {', '.join(nearest(name, names))}.")
