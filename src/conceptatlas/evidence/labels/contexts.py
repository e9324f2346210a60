"""An example: a token in its context, with the feature's activation on every token of it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from conceptatlas.concepts.similarity import normalised
from conceptatlas.evidence.examples import cut_text
from conceptatlas.subjects.windows import Window

# A token counts as activating where it has at least this share of the example's largest activation.
ACTIVE_SHARE = 0.3
OPEN, CLOSE = "<<", ">>"


@dataclass(frozen=True, eq=False)
class Context:
    """A token, what stands around it, and the activations.

    Attributes:
        sequence_index: The number of its text in the source.
        token_position: The token's number within the text (from 0, special tokens not counted).
        text: The context as it reads in the text.
        ends: int32 [C], where each token ends in ``text``, in characters.
        activations: float32 [C].
        centre: Which of the C tokens it is: the one of the largest activation; for a silent example any.
        decile: 1 (weakest) to 10 among the activating examples, where it was chosen by decile.
        twin_key: The same for whole texts that differ in case, punctuation, white space and Unicode form only; empty
            where it is not known.
    """

    sequence_index: int
    token_position: int
    text: str
    ends: npt.NDArray[np.int32]
    activations: npt.NDArray[np.float32]
    centre: int
    decile: int | None = None
    twin_key: str = ""

    @property
    def activation(self) -> float:
        """The activation of the token itself."""
        return float(self.activations[self.centre])

    @property
    def pieces(self) -> list[str]:
        """The text of each token."""
        return cut_text(self.text, [int(end) for end in self.ends])[: len(self.ends)]

    @property
    def active(self) -> npt.NDArray[np.bool_]:
        """Which tokens activate the feature, bool [C]: those with a fair share of the largest activation here."""
        largest = float(self.activations.max(initial=0.0))
        if largest <= 0:
            return np.zeros(len(self.activations), dtype=bool)
        found: npt.NDArray[np.bool_] = self.activations >= ACTIVE_SHARE * largest
        return found

    def in_decile(self, decile: int) -> Context:
        """Return the same example, with its decile."""
        return replace(self, decile=decile)


@lru_cache(maxsize=128)  # a long text has many windows, and each of them many examples
def twin_key(text: str) -> str:
    """Return what twins share: a hash of the text but for case, punctuation, white space and Unicode form."""
    return hashlib.blake2b(normalised(text).encode(), digest_size=16).hexdigest()


def cut_context(
    window: Window,
    row: int,
    *,
    before: int,
    after: int,
    rows: npt.NDArray[np.integer] | None = None,
    values: npt.NDArray[np.float32] | None = None,
) -> Context:
    """Cut the context of a row out of its window.

    Args:
        window: The window.
        row: Which of its rows, from 0.
        before: Tokens before it.
        after: Tokens after it.
        rows: Rows of the window at which the feature is not zero, ascending; None for none.
        values: The activations there.
    """
    first, last = max(0, row - before), min(window.n_rows, row + after + 1)
    begin, stop = int(window.starts[first]), int(window.ends[last - 1])
    acts = np.zeros(last - first, dtype=np.float32)
    if rows is not None and values is not None:
        low, high = np.searchsorted(rows, [first, last])
        acts[rows[low:high] - first] = values[low:high]
    return Context(
        sequence_index=window.sequence_index,
        token_position=window.first_position + row,
        text=window.text[begin:stop],
        ends=(window.ends[first:last] - begin).astype(np.int32),
        activations=acts,
        centre=row - first,
        twin_key=twin_key(window.text),
    )


def marked(pieces: Sequence[str], flags: npt.NDArray[np.bool_]) -> str:
    """Return the text with the flagged tokens in ``<<`` and ``>>``: neighbours in one pair, a leading space outside."""
    out: list[str] = []
    inside = False
    for piece, flag in zip(pieces, flags, strict=True):
        if flag and not inside:
            bare = piece.lstrip()
            out += [piece[: len(piece) - len(bare)], OPEN, bare]
        elif inside and not flag:
            out += [CLOSE, piece]
        else:
            out.append(piece)
        inside = bool(flag)
    if inside:
        out.append(CLOSE)
    return "".join(out)
