"""Baselines of the text alone."""

from __future__ import annotations

import numpy as np

from conceptatlas.ranking.baselines import Contest
from conceptatlas.ranking.design import Design
from conceptatlas.ranking.text_baselines import (
    bag_of_words,
    bag_of_words_scores,
    sentence_embedding_baseline,
    text_baseline,
)
from conceptatlas.statistics import auroc
from tests.ranking.test_baselines import contest


def test_word_order_is_for_n_grams_only():
    """Both grades have the same words; who does it to whom stands in their order alone."""
    here = contest(n=300)
    texts = ["dog bites man" if label == 3 else "man bites dog" for label in here.design.labels]
    assert bag_of_words(here, texts).auroc_holdout == 0.5
    assert text_baseline(here, texts, "word_ngrams").auroc_holdout == 1
    assert text_baseline(here, texts, "char_ngrams").auroc_holdout == 1


def test_spelling_is_for_characters_only():
    rng = np.random.default_rng(0)
    here = contest(n=300)
    texts = [f"{'un' if label == 3 else 'in'}{rng.integers(1e9)}" for label in here.design.labels]
    assert bag_of_words(here, texts).auroc_holdout == 0.5
    assert text_baseline(here, texts, "char_ngrams").auroc_holdout == 1


def test_texts_without_a_word():
    found = text_baseline(contest(n=60), ["…"] * 60, "word_ngrams")
    assert found.auroc_discovery == found.auroc_holdout == 0.5


def test_a_sentence_embedding_is_probed():
    here = contest(n=300)
    vectors = np.random.default_rng(0).normal(0, 1, (300, 6)).astype(np.float32)
    vectors[:, 2] += here.design.labels
    found = sentence_embedding_baseline(here, vectors, "test vectors")
    assert found.auroc_holdout > 0.9
    assert found.detail.startswith("test vectors, C = ")


def test_bag_of_words_scores_saw_nothing_of_the_items_group():
    """Every group has a word of its own: out of fold it says nothing, and within the fit it would say everything."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(80), 3)
    labels = np.repeat(rng.integers(0, 4, 80), 3)
    held = np.repeat(rng.random(80) < 0.3, 3)
    here = Contest(Design.build(labels, held, groups=groups), 0)
    own = bag_of_words_scores(here, [f"word{g}" for g in groups])
    assert np.isnan(own[held]).all()
    assert np.isfinite(own[~held]).all()
    for f in np.unique(own[~held]):
        assert len(np.unique(groups[~held & (own == f)])) >= 1
    inside = np.flatnonzero(~held)
    per_group = {g: own[inside][groups[inside] == g] for g in np.unique(groups[inside])}
    assert all(len(np.unique(v)) == 1 for v in per_group.values())
    assert len(np.unique(np.round(own[~held], 6))) <= 5  # one intercept for each fold, nothing of the word
    assert auroc(own[here.train], here.is_high[here.train]) < 0.6


def test_bag_of_words_scores_tell_what_words_tell():
    here = contest(n=200)
    words = np.array(["calm", "some", "more", "rage"])[here.design.labels]
    own = bag_of_words_scores(here, words.tolist())
    d = here.design.discovery
    assert own[d & here.is_high].min() > own[d & (here.design.labels == 0)].max()
    assert np.isfinite(own[d]).all()
