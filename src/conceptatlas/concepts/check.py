"""``check_concept``: what in a data set could make a feature look good for the wrong reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from conceptatlas.concepts.model import GRADES, BadRow, Concept
from conceptatlas.concepts.similarity import near_pairs, normalised
from conceptatlas.concepts.verdicts import Verdict, judge
from conceptatlas.statistics import auroc

MAX_COMPARED = 10_000  # items compared for near-duplicates; beyond, a seeded sample
SHOWN_PAIRS = 20
FOLDS = 5


@dataclass(frozen=True)
class Confound:
    """How well something trivial alone predicts the label.

    Attributes:
        auroc: Label 3 against 0, ties ½; None where it could not be judged.
        spearman: Rank correlation with the grade over all items; None where it could not be judged.
        why_not: Why it could not be judged, else empty.
    """

    auroc: float | None
    spearman: float | None
    why_not: str = ""


@dataclass(frozen=True)
class TextPair:
    """Two items that are the same or nearly the same text, ``similarity`` being their Jaccard index (1: the same)."""

    first: int
    second: int
    label_first: int
    label_second: int
    similarity: float
    text_first: str
    text_second: str


@dataclass(frozen=True)
class ConceptCheck:
    """What ``check_concept`` found.

    Attributes:
        name: The concept.
        n_items, n_groups: Items, and groups that the split keeps together.
        label_counts: Items of each grade 0–3.
        words: Mean number of words of each grade (None where there is none).
        bad_rows: Rows that were dropped when the concept was loaded; those with no label among them are ``n_missing``.
        n_missing: Rows without a label.
        duplicates_within: Items whose text (but for case and punctuation) another item of the same label already has.
        duplicates_across: Items whose text another item of another label already has.
        n_near_across: Pairs of near-duplicates of different labels (exact ones not counted).
        n_near_straddling: Pairs of near-duplicates of the same label in different groups, which the split may part.
        near_complete: False when the comparison stopped at its limit or took a sample.
        pairs: The pairs across labels, most alike first, at most ``SHOWN_PAIRS``; exact ones included.
        length: How well the number of words alone predicts the label.
        bag_of_words: How well a bag of words alone does, out of fold, folds by group.
        verdicts: All of it in plain words.
    """

    name: str
    n_items: int
    n_groups: int
    label_counts: Mapping[int, int]
    words: Mapping[int, float | None]
    bad_rows: tuple[BadRow, ...]
    n_missing: int
    duplicates_within: int
    duplicates_across: int
    n_near_across: int
    n_near_straddling: int
    near_complete: bool
    pairs: tuple[TextPair, ...]
    length: Confound
    bag_of_words: Confound
    verdicts: tuple[Verdict, ...] = field(default=())

    @property
    def ok(self) -> bool:
        """True when no verdict is a problem."""
        return all(verdict.level != "problem" for verdict in self.verdicts)

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values, ready for JSON."""
        return asdict(self) | {"ok": self.ok}


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
        near_complete=near.complete,
        pairs=near.pairs,
        length=Confound(*_figures(words, labels)),
        bag_of_words=_bag_of_words(concept, labels, seed),
    )
    return ConceptCheck(**{**facts.__dict__, "verdicts": judge(facts)})


def auroc_of(scores: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> float | None:
    """Return the AUROC of ``scores`` [N] for grade 3 against 0 (ties ½), None where either grade is absent."""
    ends = np.isin(labels, (GRADES[0], GRADES[-1]))
    found = auroc(scores[ends].astype(np.float64), labels[ends] == GRADES[-1])
    return None if np.isnan(found) else found


def _figures(scores: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> tuple[float | None, float | None]:
    """Return (AUROC 3 against 0, Spearman), None where undefined."""
    constant = len(scores) < 2 or np.ptp(scores) == 0 or np.ptp(labels) == 0
    return auroc_of(scores, labels), None if constant else float(stats.spearmanr(scores, labels).statistic)


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


def _bag_of_words(concept: Concept, labels: npt.NDArray[np.int64], seed: int) -> Confound:
    """Out-of-fold figures: logistic regression for 3 against 0, ridge regression for the grade; folds by group."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression, Ridge

    if not any(char.isalnum() for text in concept.texts for char in text):
        return Confound(None, None, "the texts hold no words")
    counts = CountVectorizer(binary=True, token_pattern=r"(?u)\w+").fit_transform(concept.texts)
    groups = concept.items["split_hash"].to_numpy()
    ends = np.flatnonzero((labels == GRADES[0]) | (labels == GRADES[-1]))
    auroc = spearman = None
    folds = _folds(labels[ends], groups[ends], seed)
    if folds:
        scores = np.zeros(len(ends))
        for train, test in folds:
            model = LogisticRegression(max_iter=2000).fit(counts[ends[train]], labels[ends[train]])
            scores[test] = model.decision_function(counts[ends[test]])
        auroc = auroc_of(scores, labels[ends])
    folds = _folds(labels, groups, seed)
    if folds:
        scores = np.zeros(len(labels))
        for train, test in folds:
            scores[test] = Ridge(alpha=1.0, solver="lsqr").fit(counts[train], labels[train]).predict(counts[test])
        spearman = _figures(scores, labels)[1]
    why = "" if auroc is not None else f"it takes {FOLDS} groups each of label 3 and label 0"
    return Confound(auroc, spearman, why)


def _folds(
    labels: npt.NDArray[np.int64], groups: npt.NDArray[np.uint64], seed: int
) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Return stratified folds by group; none where a grade has too few groups, or a fold would lack one."""
    from sklearn.model_selection import StratifiedGroupKFold

    present = np.unique(labels)
    if len(present) < 2 or any(len(np.unique(groups[labels == grade])) < FOLDS for grade in present):
        return []
    splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    folds = list(splitter.split(np.zeros(len(labels)), labels, groups))
    return folds if all(len(np.unique(labels[train])) == len(present) for train, _ in folds) else []
