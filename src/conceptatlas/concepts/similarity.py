"""Near-duplicates: texts that share most of their words and word pairs.

The measure is the Jaccard index of the sets of words and of adjacent word pairs, |A ∩ B| / |A ∪ B|. One changed word in
a sentence of ten gives 0.73, two apart 0.52; texts of fewer than four words are compared by runs of three characters.

All pairs of N texts are found without comparing all pairs: to reach the index t, two sets must share one of the rarest
``|A| - ceil(t·|A|) + 1`` elements of each (prefix filtering: Chaudhuri, Ganti and Kaushik, ICDE 2006).
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

NEAR = 0.7

_WORD = re.compile(r"\w+")
_MIN_WORDS = 4
_BLOCK = 500
_MAX_PAIRS = 50_000
# Pairs that share a rare element and are compared; the commonest elements are left out beyond that (seconds on one core).
_MAX_CANDIDATES = 5_000_000


def normalised(text: str) -> str:
    """Return a text's words in NFKC and lower case, single spaces between: texts equal by this are twins."""
    plain = unicodedata.normalize("NFKC", text)
    return " ".join(_WORD.findall(unicodedata.normalize("NFKC", plain.casefold()))) or " ".join(plain.split())


def shingles(text: str) -> frozenset[str]:
    """Return the set of a text's words and adjacent word pairs (of its runs of three characters when it is short)."""
    plain = normalised(text)
    words = plain.split(" ")
    if len(words) < _MIN_WORDS:
        return frozenset(plain[i : i + 3] for i in range(max(1, len(plain) - 2)))
    return frozenset(words) | frozenset(f"{a} {b}" for a, b in pairwise(words))


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """Return |a ∩ b| / |a ∪ b|, 1 for two empty sets."""
    shared = len(a & b)
    whole = len(a) + len(b) - shared
    return shared / whole if whole else 1.0


class NearDuplicates:
    """Texts accepted so far; tells whether a new one is a near-duplicate of one of them."""

    def __init__(self, threshold: float = NEAR) -> None:
        self._threshold = threshold
        self._by_size: dict[int, list[frozenset[str]]] = {}

    def has_near(self, text: str) -> bool:
        """Say whether an accepted text is as near to ``text`` as the threshold, or nearer."""
        mine = shingles(text)
        low, high = math.floor(self._threshold * len(mine)), math.ceil(len(mine) / self._threshold)
        return any(
            jaccard(mine, other) >= self._threshold
            for size in range(low, high + 1)
            for other in self._by_size.get(size, ())
        )

    def add(self, text: str) -> None:
        """Accept a text."""
        mine = shingles(text)
        self._by_size.setdefault(len(mine), []).append(mine)


@dataclass(frozen=True)
class NearPairs:
    """Pairs of near-duplicates, first < second, in order.

    Attributes:
        first, second: Indices of the two texts, int64 [P].
        similarity: Jaccard index, float64 [P].
        complete: False when the search stopped at its limit of pairs, or left common elements out.
    """

    first: npt.NDArray[np.int64]
    second: npt.NDArray[np.int64]
    similarity: npt.NDArray[np.float64]
    complete: bool


def near_pairs(texts: Sequence[str], *, threshold: float = NEAR, max_pairs: int = _MAX_PAIRS) -> NearPairs:
    """Return every pair of texts whose Jaccard index is at least ``threshold`` (0 < threshold ≤ 1).

    The search ends early, and says so, when it has found ``max_pairs``; where more pairs than can be compared share an
    element, it leaves out the commonest elements, and says so too.
    """
    from scipy import sparse

    sets = [shingles(text) for text in texts]
    counts = Counter(shingle for one in sets for shingle in one)
    rank = {shingle: i for i, (shingle, _) in enumerate(sorted(counts.items(), key=lambda kv: (kv[1], kv[0])))}
    rows = [np.sort(np.fromiter((rank[s] for s in one), dtype=np.int64, count=len(one))) for one in sets]
    whole = _binary(rows, len(rank), sparse)
    prefixes = [row[: len(row) - math.ceil(threshold * len(row)) + 1] for row in rows]
    limit = _common_from(prefixes, len(rank))
    prefix = _binary([row[row < limit] for row in prefixes] if limit < len(rank) else prefixes, len(rank), sparse)
    sizes = np.array([len(row) for row in rows], dtype=np.int64)
    found: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]] = []
    total = 0
    for start in range(0, len(texts), _BLOCK):
        candidates = (prefix[start : start + _BLOCK] @ prefix[start:].T).tocoo()
        i, j = candidates.row.astype(np.int64) + start, candidates.col.astype(np.int64) + start
        possible = (i < j) & (np.minimum(sizes[i], sizes[j]) >= threshold * np.maximum(sizes[i], sizes[j]))
        i, j = i[possible], j[possible]
        shared = _shared(whole, i, j)
        similarity = shared / (sizes[i] + sizes[j] - shared)
        near = similarity >= threshold
        order = np.lexsort((j[near], i[near]))
        found.append((i[near][order], j[near][order], similarity[near][order]))
        total += len(order)
        if total >= max_pairs:
            break
    first, second, similarity = (np.concatenate(part) for part in zip(*found, strict=True)) if found else _no_pairs()
    return NearPairs(first, second, similarity, complete=total < max_pairs and limit == len(rank))


def _common_from(prefixes: list[npt.NDArray[np.int64]], width: int) -> int:
    """Return the rank (rarest first) from which elements are too common to compare all that share them; else width."""
    shared = np.bincount(np.concatenate([np.zeros(0, np.int64), *prefixes]), minlength=width)
    beyond = np.flatnonzero(np.cumsum(shared * (shared - 1) // 2) > _MAX_CANDIDATES)
    return int(beyond[0]) if len(beyond) else width


def _no_pairs() -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)


def _binary(rows: list[npt.NDArray[np.int64]], width: int, sparse):  # type: ignore[no-untyped-def]  # SciPy has no types
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    indices = np.concatenate(rows) if rows else np.zeros(0, np.int64)
    return sparse.csr_array((np.ones(len(indices), np.int32), indices, indptr), shape=(len(rows), width))


def _shared(whole, i: npt.NDArray[np.int64], j: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:  # type: ignore[no-untyped-def]
    """Return the number of shared elements of each pair, in slices that bound the memory."""
    parts = [
        np.asarray(whole[i[k : k + 20_000]].multiply(whole[j[k : k + 20_000]]).sum(axis=1), dtype=np.int64)
        for k in range(0, len(i), 20_000)
    ]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
