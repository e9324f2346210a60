"""How the work is cut. A function of data and options only, never of free memory, so that it comes out the same again.

Shards are consecutive items, so that joining what the shards wrote is plain concatenation; within a shard the items are
batched by length, so that padding costs little.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from conceptatlas.concepts import Concept
from conceptatlas.recording.store import ROW_COLUMNS

if TYPE_CHECKING:
    from conceptatlas.subjects.tokens import Tokenized

Fragments = Literal["token", "word"]

# Tokens (padding included) of one forward batch, by kind of device.
BATCH_TOKENS = {"cpu": 768, "mps": 4096, "cuda": 16384}
# Of so many batches one more or less does not matter.
_MANY = 16

# A shard's hidden states take at most half of what the model's weights take, within these bounds (bytes).
SHARD_BYTES_LEAST = 64 << 20
SHARD_BYTES_MOST = 8 << 30
# Never fewer, so that the self-check, made on the first shard, has rows to judge by.
SHARD_ROWS_LEAST = 2048


@dataclass(frozen=True)
class Plan:
    """The whole work.

    Attributes:
        token_ids: Per item, its token ids with special tokens, int32.
        masks: Per item, which tokens are rows, bool.
        rows: The rows table (``ROW_COLUMNS`` without ``sink``).
        first_rows: Where each item's rows begin, int64 [N + 1].
        shards: Half-open ranges of items.
    """

    token_ids: list[npt.NDArray[np.int32]]
    masks: list[npt.NDArray[np.bool_]]
    rows: pl.DataFrame
    first_rows: npt.NDArray[np.int64]
    shards: list[tuple[int, int]]

    @property
    def n_items(self) -> int:
        """N."""
        return len(self.token_ids)

    @property
    def n_rows(self) -> int:
        """T."""
        return int(self.first_rows[-1])

    @property
    def n_tokens(self) -> int:
        """Tokens, special ones included."""
        return sum(len(ids) for ids in self.token_ids)

    def row_range(self, shard: int) -> tuple[int, int]:
        """Return the half-open range of rows of a shard."""
        first, last = self.shards[shard]
        return int(self.first_rows[first]), int(self.first_rows[last])

    def row_counts(self, shard: int) -> npt.NDArray[np.int64]:
        """Return the number of rows of each item of a shard, int64."""
        first, last = self.shards[shard]
        return np.diff(self.first_rows[first : last + 1])

    def final_rows(self, shard: int) -> npt.NDArray[np.int64]:
        """Return the last row of each item of a shard, counted from the shard's first row."""
        first, last = self.shards[shard]
        return self.first_rows[first + 1 : last + 1] - 1 - self.first_rows[first]


def batches(lengths: Sequence[int], batch_tokens: int) -> list[npt.NDArray[np.int64]]:
    """Cut sequences into batches of like length: indices, longest first, of at most ``batch_tokens`` padded tokens.

    A single sequence longer than that is a batch of its own. Ties keep their order. Where there are a few batches they are
    of an even number, if smaller ones give that: on a CPU two run at a time, and the odd one out would run alone.
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    found = _cut(order, lengths, batch_tokens)
    smaller, longest = batch_tokens, max(lengths, default=0)
    while 1 < len(found) < _MANY and len(found) % 2 and smaller > longest:
        smaller = max(longest, smaller - smaller // 32 - 1)
        found = _cut(order, lengths, smaller)
    return found


def _cut(order: npt.NDArray[np.int64], lengths: Sequence[int], batch_tokens: int) -> list[npt.NDArray[np.int64]]:
    found, start = [], 0
    while start < len(order):
        count = max(1, batch_tokens // max(1, lengths[int(order[start])]))
        found.append(order[start : start + count])
        start += count
    return found


def shard_rows_for(model_bytes: int, row_bytes: int) -> int:
    """Return how many rows a shard may have.

    Args:
        model_bytes: The model's weights as float32.
        row_bytes: The hidden states of one row at all sites, as float32.
    """
    budget = min(max(model_bytes // 2, SHARD_BYTES_LEAST), SHARD_BYTES_MOST)
    return max(SHARD_ROWS_LEAST, budget // max(1, row_bytes))


def cut_shards(n_rows: Sequence[int], shard_rows: int) -> list[tuple[int, int]]:
    """Cut items into consecutive shards of at most ``shard_rows`` rows (one item may exceed it on its own)."""
    shards, first, rows = [], 0, 0
    for item, count in enumerate(n_rows):
        if rows and rows + count > shard_rows:
            shards.append((first, item))
            first, rows = item, 0
        rows += count
    if first < len(n_rows):
        shards.append((first, len(n_rows)))
    return shards


def word_ends(text: str, ends: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    """Return which tokens (character offsets of their ends) are the last of a word; words stand between whitespace."""
    last = np.zeros(len(ends), dtype=bool)
    begin = 0
    for index, end in enumerate(ends.tolist()):
        shared = index + 1 < len(ends) and ends[index + 1] == end
        if not shared and text[begin:end].strip():
            last[index] = end >= len(text) or text[end].isspace() or text[end - 1].isspace()
            begin = end
    if len(last):
        last[-1] = True
    return last


def make_plan(
    concept: Concept,
    tokenized: Tokenized,
    *,
    fragments: Fragments,
    shard_rows: int,
    token_texts: Callable[[npt.NDArray[np.int32]], list[str]],
) -> Plan:
    """Choose the rows of every item and cut the items into shards.

    Args:
        concept: The items.
        tokenized: Their tokens.
        fragments: Rows at every token, or at each word's last token only.
        shard_rows: Rows of a shard, at most.
        token_texts: Token ids → texts, for tokens that hold no whole character of the text.
    """
    masks: list[npt.NDArray[np.bool_]] = []
    columns: dict[str, list[npt.NDArray[np.int32]]] = {"position": [], "token_id": [], "fragment_end": []}
    tokens: list[str] = []
    for item, text in enumerate(concept.texts):
        ids, ends = tokenized.token_ids[item], tokenized.char_ends[item]
        places = np.flatnonzero(tokenized.rows[item])
        if fragments == "word":
            places = places[word_ends(text, ends[places])]
        mask = np.zeros(len(ids), dtype=bool)
        mask[places] = True
        masks.append(mask)
        columns["position"].append(tokenized.positions[item][places])
        columns["token_id"].append(ids[places])
        columns["fragment_end"].append(ends[places])
        # Most pieces have come before: one text for all of them, a third of what a plan takes at its largest.
        tokens += map(sys.intern, _pieces(text, ends[places], ids[places], token_texts))
    counts = np.array([len(part) for part in columns["position"]], dtype=np.int64)
    first_rows = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Plan(
        token_ids=list(tokenized.token_ids),
        masks=masks,
        rows=_rows_table(counts, columns, tokens),
        first_rows=first_rows,
        shards=cut_shards(counts.tolist(), shard_rows),
    )


def _pieces(
    text: str,
    ends: npt.NDArray[np.int32],
    ids: npt.NDArray[np.int32],
    token_texts: Callable[[npt.NDArray[np.int32]], list[str]],
) -> list[str]:
    """Return the part of the text that each row adds; where it adds no character (a part of one), the token's text."""
    pieces, begin = [], 0
    for index, end in enumerate(ends.tolist()):
        pieces.append(text[begin:end] if end > begin else token_texts(ids[index : index + 1])[0])
        begin = max(begin, end)
    return pieces


def _rows_table(
    counts: npt.NDArray[np.int64], columns: dict[str, list[npt.NDArray[np.int32]]], tokens: list[str]
) -> pl.DataFrame:
    n_rows = int(counts.sum())
    final = np.zeros(n_rows, dtype=bool)
    final[np.cumsum(counts) - 1] = True
    joined = {name: np.concatenate(parts) if parts else np.zeros(0, np.int32) for name, parts in columns.items()}
    return pl.DataFrame(
        {
            "row": np.arange(n_rows, dtype=np.int32),
            "item": np.repeat(np.arange(len(counts), dtype=np.int32), counts),
            "position": joined["position"],
            "token_id": joined["token_id"],
            "token": tokens,
            "fragment_end": joined["fragment_end"],
            "is_final": final,
        },
        schema={name: kind for name, kind in ROW_COLUMNS.items() if name != "sink"},
    )
