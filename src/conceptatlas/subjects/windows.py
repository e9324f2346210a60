"""Texts to windows: each at most as long as the model reads at once, each with its own BOS, nothing concatenated."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from conceptatlas.base.errors import InputError

if TYPE_CHECKING:
    from conceptatlas.subjects import LanguageSubject, Tokenized


@dataclass(frozen=True, eq=False)
class Window:
    """A text, or as much of a long one as the model reads at once.

    Attributes:
        sequence_index: The number of the text in its source.
        text: The whole text.
        first_position: The number of the window's first row within the text (rows from 0, special tokens not counted).
        token_ids: int32 [L], BOS first where the model has one.
        mask: bool [L], False at special tokens.
        starts: int32 [R], where each row begins in the text, in characters.
        ends: int32 [R], where it ends.
    """

    sequence_index: int
    text: str
    first_position: int
    token_ids: npt.NDArray[np.int32]
    mask: npt.NDArray[np.bool_]
    starts: npt.NDArray[np.int32]
    ends: npt.NDArray[np.int32]

    @property
    def n_rows(self) -> int:
        """How many of its tokens are no special ones."""
        return len(self.ends)


class WindowCutter:
    """Cuts texts into windows for one model.

    A text that is longer than ``max_tokens`` (special tokens counted) becomes several windows, one after the other and
    without overlap; each has the special tokens that the tokenizer puts around a text (BOS; [CLS] and [SEP]).

    Attributes:
        max_tokens: The longest window: what was asked, or what the model takes where that is less.
    """

    def __init__(self, subject: LanguageSubject, *, max_tokens: int) -> None:
        rules = copy.copy(subject.token_rules)
        self.max_tokens = min(max_tokens, rules.limit or max_tokens)
        rules.limit = None  # texts are cut here, not refused
        self._rules = rules
        self._tail = len(rules.suffix)
        if self.max_tokens < 2 + self._tail:
            raise InputError(f"--max-tokens is {max_tokens}; a window needs room for a token beside the special ones.")

    def cut(self, numbered: Sequence[tuple[int, str]]) -> Iterator[Window]:
        """Yield the windows of some texts, in order.

        Args:
            numbered: (number in the source, text).

        Raises:
            InputError: A text holds special tokens only; the message says which.
        """
        tokens = self._tokenized(numbered)
        for (number, text), ids, mask, ends in zip(
            numbered, tokens.token_ids, tokens.rows, tokens.char_ends, strict=True
        ):
            yield from self._windows(number, text, ids, mask, ends)

    def _tokenized(self, numbered: Sequence[tuple[int, str]]) -> Tokenized:
        try:
            return self._rules.tokenize([text for _, text in numbered])
        except InputError:
            for number, text in numbered:  # once more, to say which text it was
                try:
                    self._rules.tokenize([text])
                except InputError as error:
                    raise InputError(f"Text {number}: {error}") from error
            raise

    def _windows(
        self,
        number: int,
        text: str,
        ids: npt.NDArray[np.int32],
        mask: npt.NDArray[np.bool_],
        ends: npt.NDArray[np.int32],
    ) -> Iterator[Window]:
        ends = np.maximum.accumulate(np.where(mask, ends, 0)).astype(np.int32)
        starts = np.concatenate([np.zeros(1, np.int32), ends[:-1]])
        if len(ids) <= self.max_tokens:
            yield Window(number, text, 0, ids, mask, starts[mask], ends[mask])
            return
        head = 0 if mask[0] else 1
        tail = self._tail
        size = self.max_tokens - head - tail
        last = len(ids) - tail
        position = 0
        for first in range(head, last, size):
            body = slice(first, min(first + size, last))
            inner = mask[body]
            if inner.any():
                yield Window(
                    number,
                    text,
                    position,
                    np.concatenate([ids[:head], ids[body], ids[last:]]),
                    np.concatenate([mask[:head], inner, mask[last:]]),
                    starts[body][inner],
                    ends[body][inner],
                )
            position += int(inner.sum())


def batches_of(windows: Sequence[Window], *, padded_tokens: int) -> list[list[int]]:
    """Return the windows' numbers in batches of like length: windows times the longest is at most ``padded_tokens``."""
    order = sorted(range(len(windows)), key=lambda i: len(windows[i].token_ids))
    batches: list[list[int]] = []
    for index in order:
        longest = len(windows[index].token_ids)
        if batches and (len(batches[-1]) + 1) * longest <= padded_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches
