"""Baselines of the text alone: words, n-grams, sentence embeddings, length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from conceptatlas.ranking.baselines import PENALTIES, Baseline, Contest, logistic, rounded, standardised
from conceptatlas.ranking.kernels import F64
from conceptatlas.statistics import auroc
from conceptatlas.statistics.folds import group_folds, mean_auroc

# TF-IDF rows have unit norm, so a weak penalty is the usual choice.
TEXT_C = 10.0
_WORD = r"(?u)\b\w+\b"
Texts = Sequence[str]

# Kind → (name, options of scikit-learn's TfidfVectorizer). Order counts: a word that follows another is another pair.
TF_IDF: dict[str, tuple[str, dict[str, Any]]] = {
    "bag_of_words": ("bag of words", {"token_pattern": _WORD}),
    "word_ngrams": ("word n-grams (1-3)", {"token_pattern": _WORD, "ngram_range": (1, 3)}),
    "char_ngrams": ("character n-grams (1-3)", {"analyzer": "char", "ngram_range": (1, 3)}),
}


def fit_text(
    texts: Texts, on: npt.NDArray[np.int64], is_high: npt.NDArray[np.bool_], new: npt.NDArray[np.int64], **options: Any
) -> F64:
    """Return the log-odds that a logistic regression on TF-IDF gives the texts ``new``; zeros where there is no word.

    Args:
        texts: All texts, [N].
        on: The items that vocabulary, document frequencies and weights come from.
        is_high: The class of all items, bool [N]; both occur in ``on``.
        new: The items to score.
        options: Of scikit-learn's ``TfidfVectorizer``.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    vectoriser = TfidfVectorizer(sublinear_tf=True, **options)
    try:
        x = vectoriser.fit_transform([texts[i] for i in on])
    except ValueError:  # no word at all in these texts
        return np.zeros(len(new))
    fitted = LogisticRegression(C=TEXT_C, tol=1e-6, max_iter=10_000).fit(x, is_high[on])
    return np.asarray(fitted.decision_function(vectoriser.transform([texts[i] for i in new])), dtype=np.float64)


def text_baseline(contest: Contest, texts: Texts, kind: str) -> Baseline:
    """Return a baseline of ``TF_IDF``: TF-IDF and logistic regression, all of it from the items fitted on."""
    name, options = TF_IDF[kind]
    y = contest.is_high[contest.train]
    scores, judged = np.zeros(len(y)), np.zeros(len(y), dtype=bool)
    for inside, outside in contest.splits():
        found = fit_text(texts, contest.train[inside], contest.is_high, contest.train[outside], **options)
        scores[outside] = rounded(found)
        judged |= outside
    final = fit_text(texts, contest.train, contest.is_high, np.arange(contest.design.n_items), **options)
    discovery = mean_auroc(scores[judged], y[judged], contest.fold[judged])
    return contest.entry(kind, name, final, discovery, detail=f"TF-IDF, C = {TEXT_C:g}")


def bag_of_words(contest: Contest, texts: Texts) -> Baseline:
    """Score by logistic regression on TF-IDF of words."""
    return text_baseline(contest, texts, "bag_of_words")


def bag_of_words_scores(contest: Contest, texts: Texts) -> F64:
    """Return the bag-of-words score of every discovery item by a fit that saw nothing of its group, float64 [N].

    Folds are over all discovery items by group; in each, the fit tells the highest grade from the lowest without the
    fold's items, and scores those of every grade. For holding fixed what the words alone say (partial correlation).

    Args:
        contest: The items.
        texts: All texts, [N].

    Returns:
        Log-odds; NaN on the hold-out, and where a fold leaves only one class to fit on.
    """
    design = contest.design
    inside = np.flatnonzero(design.discovery)
    fold = group_folds(design.labels[inside], design.groups[inside], np.random.default_rng([contest.seed, 6]))
    out = np.full(design.n_items, np.nan)
    options = TF_IDF["bag_of_words"][1]
    for f in np.unique(fold):
        on = np.setdiff1d(contest.train, inside[fold == f])
        if len(np.unique(contest.is_high[on])) == 2:
            out[inside[fold == f]] = fit_text(texts, on, contest.is_high, inside[fold == f], **options)
    return out


def sentence_embedding_baseline(contest: Contest, vectors: npt.NDArray[np.floating], detail: str) -> Baseline:
    """Score by a logistic probe on one vector per text; the penalty is chosen by the folds.

    Args:
        contest: The items.
        vectors: [N, E], from any sentence encoder, or the mean of the model's own token embeddings.
        detail: What made the vectors.
    """
    x = standardised(vectors.astype(np.float64), contest.train)
    y = contest.is_high[contest.train]
    found = {c: contest.cross_validated(x[contest.train], logistic(c)) for c in PENALTIES}
    best = max(found, key=lambda c: (np.nan_to_num(found[c], nan=-1.0), -c))
    scores = logistic(best)(x[contest.train], y, x)
    name = "sentence embedding"
    return contest.entry("sentence_embedding", name, scores, found[best], detail=f"{detail}, C = {best:g}")


def sentence_length(contest: Contest) -> Baseline:
    """Score by the number of characters alone, in the direction that is better on discovery."""
    length = contest.design.confounds[:, 0]
    found = auroc(length[contest.train], contest.is_high[contest.train])
    sign = -1.0 if found < 0.5 else 1.0
    return contest.entry("length", "sentence length", sign * length, max(found, 1 - found))
