"""``check_concept``: what in a data set could make a feature look good for the wrong reason."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from conceptatlas.concepts.confounds import bag_of_words, length_confound
from conceptatlas.concepts.grouping import near_groups
from conceptatlas.concepts.model import GRADES, Concept
from conceptatlas.concepts.similarity import near_pairs, normalised
from conceptatlas.concepts.verdicts import SHOWN_PAIRS, ConceptCheck, TextPair, judge

MAX_COMPARED = 10_000  # items compared for near-duplicates; beyond, a seeded sample


def check_concept(concept: Concept, *, seed: int = 0) -> ConceptCheck:
    """Check a concept's data for what could mislead: duplicates, and labels that length or mere words give away.

    Args:
        concept: The items; load them with ``skip_bad_rows=True`` to have bad rows reported here.
        seed: For the folds, and for the sample when there are more than ``MAX_COMPARED`` items.
    """
    labels = concept.labels.astype(np.int64)
    words = np.array([len(text.split()) for text in concept.texts], dtype=np.float64)
    within, across = _exact_duplicates(concept.texts, labels)
    near = _near_duplicates(concept, labels, seed)
    items = concept.items
    joined = near_groups(concept.texts, items["group"].to_list(), items["split"].to_list())
    facts = ConceptCheck(
        name=concept.name,
        n_items=len(concept),
        n_groups=concept.items["group"].n_unique(),
        label_counts={grade: int((labels == grade).sum()) for grade in GRADES},
        words={g: float(words[labels == g].mean()) if (labels == g).any() else None for g in GRADES},
        bad_rows=concept.bad_rows,
        n_missing=sum(row.kind == "missing" for row in concept.bad_rows),
        duplicates_within=within,
        duplicates_across=across,
        n_near_across=near.n_across,
        n_near_straddling=near.n_straddling,
        n_near_groups=joined.n_joined,
        n_near_items=joined.n_items,
        near_largest=joined.largest,
        near_notes=tuple(joined.notes),
        near_complete=near.complete,
        pairs=near.pairs,
        length=length_confound(concept, words, labels),
        bag_of_words=bag_of_words(concept, labels, seed),
    )
    return ConceptCheck(**{**facts.__dict__, "verdicts": judge(facts)})


def _exact_duplicates(texts: list[str], labels: npt.NDArray[np.int64]) -> tuple[int, int]:
    """Return how many items repeat an earlier text (within, across labels)."""
    seen: dict[str, set[int]] = {}
    within = across = 0
    for text, label in zip(texts, labels.tolist(), strict=True):
        before = seen.setdefault(normalised(text), set())
        within += label in before
        across += bool(before - {label})
        before.add(label)
    return within, across


@dataclass(frozen=True)
class _Near:
    n_across: int
    n_straddling: int
    complete: bool
    pairs: tuple[TextPair, ...]


def _near_duplicates(concept: Concept, labels: npt.NDArray[np.int64], seed: int) -> _Near:
    texts, groups = concept.texts, concept.items["group"].to_numpy()
    chosen = np.arange(len(texts))
    if len(texts) > MAX_COMPARED:
        chosen = np.sort(np.random.default_rng(seed).choice(len(texts), MAX_COMPARED, replace=False))
    near = near_pairs([texts[i] for i in chosen])
    i, j = chosen[near.first], chosen[near.second]
    other_label = labels[i] != labels[j]
    exact = np.array([normalised(texts[a]) == normalised(texts[b]) for a, b in zip(i, j, strict=True)], dtype=bool)
    straddling = ~other_label & (groups[i] != groups[j]) & ~exact
    order = np.lexsort((j[other_label], i[other_label], -near.similarity[other_label]))[:SHOWN_PAIRS]
    shown = np.flatnonzero(other_label)[order]
    pairs = tuple(
        TextPair(
            int(i[k]),
            int(j[k]),
            int(labels[i[k]]),
            int(labels[j[k]]),
            float(near.similarity[k]),
            texts[i[k]],
            texts[j[k]],
        )
        for k in shown
    )
    complete = near.complete and len(chosen) == len(texts)
    return _Near(int((other_label & ~exact).sum()), int(straddling.sum()), complete, pairs)
