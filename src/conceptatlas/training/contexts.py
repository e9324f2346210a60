"""Texts cut into contexts: each of one text, with BOS where the model has one; one text in fifty held out.

Whether a text is held out follows from its own characters (a hash), so that it stays held out whatever stands beside it,
and a text that comes twice does not stand on both sides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from conceptatlas.base.errors import InputError
from conceptatlas.base.files import write_npy
from conceptatlas.base.progress import progress_bar
from conceptatlas.subjects.texts import TextStream
from conceptatlas.subjects.windows import WindowCutter

if TYPE_CHECKING:
    from conceptatlas.subjects import LanguageSubject

HELD_OUT_ONE_IN = 50
_TEXTS_AT_ONCE = 256
_FILES = ("token_ids", "starts", "held_out", "n_rows")


@dataclass(frozen=True)
class Contexts:
    """C contexts of n tokens in all.

    Attributes:
        token_ids: int32 [n], one context after the other.
        starts: int64 [C + 1], where each begins.
        held_out: bool [C].
        n_rows: int32 [C], tokens of each that are no special ones.
    """

    token_ids: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int64]
    held_out: npt.NDArray[np.bool_]
    n_rows: npt.NDArray[np.int32]

    def of(self, context: int) -> npt.NDArray[np.int32]:
        """Return the token ids of a context, int32."""
        return self.token_ids[self.starts[context] : self.starts[context + 1]]

    @property
    def training_rows(self) -> int:
        """Rows of the contexts that are not held out."""
        return int(self.n_rows[~self.held_out].sum())

    def save(self, folder: Path) -> None:
        """Write the arrays into ``folder``; the last one says that all are there."""
        for name in _FILES:
            write_npy(folder / f"{name}.npy", getattr(self, name))

    @classmethod
    def load(cls, folder: Path) -> Contexts | None:
        """Return what `save` wrote (mapped into memory), or None where it is not whole."""
        paths = [folder / f"{name}.npy" for name in _FILES]
        if not paths[-1].exists():
            return None
        return cls(*(np.load(path, mmap_mode="r", allow_pickle=False) for path in paths))


def is_held_out(text: str) -> bool:
    """Whether a text is one of the held-out fiftieth."""
    return _number(text) % HELD_OUT_ONE_IN == 0


def _number(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def make_contexts(subject: LanguageSubject, texts: TextStream, *, context: int, rows: int) -> Contexts:
    """Read texts until there are enough rows to train on, or no text is left.

    Args:
        subject: The model; its tokenizer and its rule for BOS are used.
        texts: Where the texts come from; one that was there before is left out.
        context: Tokens of a context at most, special ones counted.
        rows: How many rows to train on are enough.

    Raises:
        InputError: The source holds no text, or only one.
    """
    cutter = WindowCutter(subject, max_tokens=context)
    ids: list[npt.NDArray[np.int32]] = []
    n_rows: list[int] = []
    numbers: list[int] = []
    seen: set[int] = set()
    found = 0
    with progress_bar("Reading texts", rows) as bar:
        for some in _chunks(texts):
            fresh = {}
            for place, text in some:
                number = _number(text)
                if number not in seen:
                    seen.add(number)
                    fresh[place] = (text, number)
            for window in cutter.cut([(place, text) for place, (text, _) in fresh.items()]):
                number = fresh[window.sequence_index][1]
                ids.append(window.token_ids)
                n_rows.append(window.n_rows)
                numbers.append(number)
                if number % HELD_OUT_ONE_IN:
                    found += window.n_rows
                    bar.advance(window.n_rows)
            if found >= rows and any(number % HELD_OUT_ONE_IN == 0 for number in seen):
                break
    held_out = _held_out(np.array(numbers, dtype=np.uint64), texts)
    starts = np.concatenate([[0], np.cumsum([len(part) for part in ids])]).astype(np.int64)
    return Contexts(np.concatenate(ids), starts, held_out, np.array(n_rows, dtype=np.int32))


def _held_out(numbers: npt.NDArray[np.uint64], texts: TextStream) -> npt.NDArray[np.bool_]:
    """Return which contexts are held out, by the numbers of their texts; of few texts, that of the least number."""
    held: npt.NDArray[np.bool_] = numbers % np.uint64(HELD_OUT_ONE_IN) == 0
    if not held.any():
        held = numbers == numbers.min()
    if held.all():
        raise InputError(
            f"{texts.source} holds {len(np.unique(numbers))} different text, and one is held out to measure on; "
            "give a source with several texts (one a line, or one a record)."
        )
    return held


def _chunks(texts: TextStream) -> Iterator[Sequence[tuple[int, str]]]:
    some: list[tuple[int, str]] = []
    for numbered in texts:
        some.append(numbered)
        if len(some) == _TEXTS_AT_ONCE:
            yield some
            some = []
    if some:
        yield some
