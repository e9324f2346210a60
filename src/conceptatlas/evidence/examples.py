"""What a feature fires on: examples by grade and by decile of activation, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from conceptatlas.base.ties import comparable, strongest_first
from conceptatlas.evidence.features import FeatureRef, column_of_rows, item_bounds

if TYPE_CHECKING:
    from conceptatlas.recording import Recording

N_DECILES = 10


@dataclass(frozen=True)
class TokenExample:
    """One item with a feature's activation on each of its pieces.

    Attributes:
        item: The item's number in the concept.
        label: Its grade.
        pieces: The text cut at the rows' fragment ends; joined they are the text. Text after the last row (if any) is
            one more piece.
        activations: Activation per piece, as long as ``pieces`` (0 for text after the last row).
        peak: The largest activation (0 when the feature is silent here).
        final: The activation at the item's last row.
        decile: 1 (weakest) to 10, among the items on which the feature fires; None when it was not chosen by decile.
    """

    item: int
    label: int
    pieces: tuple[str, ...]
    activations: tuple[float, ...]
    peak: float
    final: float
    decile: int | None = None

    @property
    def text(self) -> str:
        """The item's text."""
        return "".join(self.pieces)


def cut_text(text: str, fragment_ends: Sequence[int]) -> list[str]:
    """Cut ``text`` at the rows' fragment ends (character offsets after each row's last character).

    A token that ends inside a character (byte-level tokenisers split some) gives an empty piece, so that there is
    exactly one piece per row; what stands after the last row is one more piece.
    """
    pieces, start = [], 0
    for end in fragment_ends:
        stop = min(max(start, int(end)), len(text))
        pieces.append(text[start:stop])
        start = stop
    if start < len(text):
        pieces.append(text[start:])
    return pieces


def decile_of(peaks_N: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    """Return each item's decile of activation, int64 [N]: 1 to 10 among the active (peak > 0), 0 for the silent.

    The active items in ascending order of their peak (ties in the order of the items) are cut into ten runs of as
    equal a length as can be; with fewer than ten active items some deciles are empty.
    """
    deciles = np.zeros(len(peaks_N), dtype=np.int64)
    active = np.flatnonzero(np.asarray(peaks_N) > 0)
    order = active[np.argsort(comparable(peaks_N[active]), kind="stable")]
    if len(order):
        deciles[order] = 1 + (np.arange(len(order)) * N_DECILES) // len(order)
    return deciles


def strongest_by_label(
    scores_N: npt.NDArray[np.floating], labels_N: npt.NDArray[np.integer], n: int
) -> dict[int, list[int]]:
    """Return for each grade its ``n`` items of highest score, best first (ties in the order of the items)."""
    chosen = {}
    for label in np.unique(labels_N):
        members = np.flatnonzero(labels_N == label)
        chosen[int(label)] = [int(i) for i in members[strongest_first(scores_N[members])][:n]]
    return chosen


def sample_by_decile(peaks_N: npt.NDArray[np.floating], n: int, rng: np.random.Generator) -> dict[int, list[int]]:
    """Return for each decile that has items ``n`` of them drawn without replacement, strongest first."""
    deciles = decile_of(peaks_N)
    chosen = {}
    for decile in range(N_DECILES, 0, -1):
        members = np.flatnonzero(deciles == decile)
        if len(members):
            drawn = rng.choice(members, size=min(n, len(members)), replace=False)
            chosen[decile] = [int(i) for i in drawn[strongest_first(peaks_N[drawn])]]
    return chosen


class ItemTexts:
    """The items of a recording cut into pieces, read once and asked often."""

    def __init__(self, recording: Recording) -> None:
        self.texts: list[str] = recording.items["text"].to_list()
        self.labels: npt.NDArray[np.int64] = recording.items["label"].to_numpy().astype(np.int64)
        self.bounds = item_bounds(recording)
        self._ends: npt.NDArray[np.int64] = recording.rows["fragment_end"].to_numpy().astype(np.int64)

    def pieces(self, item: int) -> list[str]:
        """Return the pieces of one item."""
        start, stop = self.bounds[item]
        return cut_text(self.texts[item], [int(end) for end in self._ends[start:stop]])

    def example(self, item: int, acts_T: npt.NDArray[np.floating], *, decile: int | None = None) -> TokenExample:
        """Return one item with the activations of the feature whose column is ``acts_T`` [T]."""
        start, stop = self.bounds[item]
        acts = [float(value) for value in acts_T[start:stop]]
        pieces = self.pieces(item)
        padded = acts + [0.0] * (len(pieces) - len(acts))
        return TokenExample(
            item=item,
            label=int(self.labels[item]),
            pieces=tuple(pieces),
            activations=tuple(padded),
            peak=max(acts, default=0.0),
            final=acts[-1] if acts else 0.0,
            decile=decile,
        )

    def peaks(self, acts_T: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """Return the largest activation of each item, float64 [N] (0 for an item without rows)."""
        return np.array([acts_T[start:stop].max(initial=0.0) for start, stop in self.bounds], dtype=np.float64)


def examples_by_label(
    texts: ItemTexts, acts_T: npt.NDArray[np.floating], scores_N: npt.NDArray[np.floating], *, n: int
) -> dict[int, list[TokenExample]]:
    """Return for each grade the ``n`` items that score highest, with token-level activations.

    Args:
        texts: The recording's items.
        acts_T: The feature's activation on every row, [T].
        scores_N: What to order the items by, [N]: the pooled score that the ranking used.
        n: How many per grade.
    """
    chosen = strongest_by_label(scores_N, texts.labels, n)
    return {label: [texts.example(item, acts_T) for item in items] for label, items in chosen.items()}


def examples_by_decile(
    texts: ItemTexts, acts_T: npt.NDArray[np.floating], *, n: int, rng: np.random.Generator
) -> dict[int, list[TokenExample]]:
    """Return for each decile of activation (10 first) ``n`` items drawn with ``rng``, with token-level activations.

    The strongest examples alone flatter a feature; the lower deciles show what else it fires on.
    """
    chosen = sample_by_decile(texts.peaks(acts_T), n, rng)
    return {decile: [texts.example(item, acts_T, decile=decile) for item in items] for decile, items in chosen.items()}


def feature_examples(
    recording: Recording, feature: FeatureRef, *, per_label: int, per_decile: int, rng: np.random.Generator
) -> tuple[dict[int, list[TokenExample]], dict[int, list[TokenExample]]]:
    """Return a feature's examples by grade (ordered by their peak) and by decile."""
    texts = ItemTexts(recording)
    acts = column_of_rows(recording, feature)
    by_label = examples_by_label(texts, acts, texts.peaks(acts), n=per_label)
    return by_label, examples_by_decile(texts, acts, n=per_decile, rng=rng)
