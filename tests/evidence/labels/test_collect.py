"""What one pass keeps, against a slow pass that keeps everything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conceptatlas.base.errors import InputError
from conceptatlas.base.ties import comparable
from conceptatlas.evidence.labels import collect as module
from conceptatlas.evidence.labels.collect import (
    Collected,
    CollectOptions,
    FeatureExamples,
    Smallest,
    collect,
    window_peaks,
)
from conceptatlas.evidence.labels.contexts import Context
from conceptatlas.evidence.labels.targets import Target
from conceptatlas.saes import SAESource, encode_dense, resolve_saes
from conceptatlas.subjects import LanguageSubject, Site
from conceptatlas.subjects.texts import TextStream
from conceptatlas.subjects.windows import WindowCutter
from tests.evidence.labels.conftest import SITE, WORDS, Planted
from tests.helpers.tiny_saes import write_saelens


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=5), max_size=6))
def test_window_peaks(windows: list[list[int]]) -> None:
    acts = np.array([value for window in windows for value in window], dtype=np.float32)
    owner = np.repeat(np.arange(len(windows)), [len(window) for window in windows])
    rows = np.flatnonzero(acts)
    expected, first = [], 0
    for number, window in enumerate(windows):
        if max(window) > 0:
            expected.append((number, first + window.index(max(window)), float(max(window))))
        first += len(window)
    assert window_peaks(rows, acts[rows], owner) == expected


def a_context(number: int) -> Context:
    return Context(number, 0, "x", np.array([1], np.int32), np.ones(1, np.float32), 0)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 5), max_size=30), st.integers(1, 6))
def test_smallest_keeps_the_smallest_keys(keys: list[int], size: int) -> None:
    kept = Smallest(size)
    for number, key in enumerate(keys):
        if kept.wants(key, number):
            kept.add(a_context(number), key, number)
    expected = sorted(range(len(keys)), key=lambda i: (keys[i], i))[:size]
    assert [context.sequence_index for context in kept.in_order()] == expected


@pytest.fixture(scope="module")
def dense(planted: Planted, subject: LanguageSubject) -> SAESource:
    """An SAE of random features, many of which fire in every text."""
    write_saelens(planted.folder / "dense", "jumprelu", d_in=32, d_sae=24, site=SITE, hook=SITE)
    return resolve_saes([str(planted.folder / "dense")])[0]


def run(subject: LanguageSubject, source: SAESource, texts: Path, columns: list[int], **options: Any) -> Collected:
    stream = TextStream(str(texts))
    return collect(subject, [Target(source, column) for column in columns], stream, CollectOptions(**options))


def facts(contexts: list[Context]) -> list[tuple[int, int, Any]]:
    return [(c.sequence_index, c.token_position, pytest.approx(c.activation, abs=1e-4)) for c in contexts]


def decile_facts(found: FeatureExamples) -> dict[int, list[tuple[int, int, Any]]]:
    return {decile: facts(members) for decile, members in found.by_decile.items()}


@pytest.mark.parametrize("max_tokens", [9, 1024])
def test_against_a_pass_that_keeps_everything(
    planted: Planted, subject: LanguageSubject, dense: SAESource, max_tokens: int
) -> None:
    columns = [3, 17, 5]
    found = run(
        subject, dense, planted.texts, columns, max_examples=7, sample=40, silent=15, max_tokens=max_tokens, before=4
    )
    cutter = WindowCutter(subject, max_tokens=max_tokens)
    windows = list(cutter.cut(list(TextStream(str(planted.texts)))))
    assert found.n_windows == len(windows)
    assert found.n_tokens == sum(window.n_rows for window in windows)
    assert found.n_texts == 360
    encoder = dense.load_encoder("cpu")
    acts = []
    for window in windows:
        x = subject.hidden_states([window.token_ids], [Site.parse(SITE)], [window.mask])[SITE]
        acts.append(encode_dense(x, encoder)[:, columns].numpy())
    for number, feature in enumerate(found.features):
        own = [a[:, number] for a in acts]
        peaks = [(float(a.max()), w, int(comparable(a).argmax())) for w, a in enumerate(own) if a.max() > 0]
        assert feature.n_active_windows == len(peaks)
        assert feature.n_active_tokens == sum(int((a > 0).sum()) for a in own)
        strongest = sorted(peaks, key=lambda peak: (-comparable(peak[0]), peak[1]))[:7]
        assert [c.activation for c in feature.top] == pytest.approx([value for value, _, _ in strongest], abs=1e-4)
        assert [c.sequence_index for c in feature.top] == [windows[w].sequence_index for _, w, _ in strongest]
        by_place = {(windows[w].sequence_index, windows[w].first_position + row): value for value, w, row in peaks}
        sampled = [context for members in feature.by_decile.values() for context in members]
        assert len(sampled) == min(40, len(peaks))
        assert len({c.token_position + 10_000 * c.sequence_index for c in sampled}) == len(sampled)
        for context in [*feature.top, *sampled]:
            value = by_place[context.sequence_index, context.token_position]
            assert context.activation == pytest.approx(value, abs=1e-4)
            assert context.activations.max() >= context.activation
        for context in feature.silent:
            of_text = np.concatenate(
                [a for a, w in zip(own, windows, strict=True) if w.sequence_index == context.sequence_index]
            )
            first = context.token_position - context.centre
            assert not of_text[first : first + len(context.ends)].any()
        deciles = {decile: [c.activation for c in members] for decile, members in feature.by_decile.items()}
        assert list(deciles) == sorted(deciles, reverse=True)
        for higher, lower in zip(list(deciles)[:-1], list(deciles)[1:], strict=True):
            assert comparable(deciles[higher]).min() >= comparable(deciles[lower]).max()


def test_batches_change_nothing(planted: Planted, subject: LanguageSubject, dense: SAESource) -> None:
    runs = [
        run(subject, dense, planted.texts, [3, 17, 5], windows_at_once=many, features_at_once=columns, sample=30)
        for many, columns in ((64, 256), (5, 2))
    ]
    for one, other in zip(runs[0].features, runs[1].features, strict=True):
        assert facts(one.top) == facts(other.top)
        assert facts(one.silent) == facts(other.silent)
        assert decile_facts(one) == decile_facts(other)
    assert [c.text for c in runs[0].background] == [c.text for c in runs[1].background]


def test_the_last_bits_of_a_product_change_nothing(
    planted: Planted, subject: LanguageSubject, dense: SAESource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another processor gives products whose last bits differ; many texts of the planted ones tie."""
    exact = run(subject, dense, planted.texts, [3, 17, 5], sample=30)
    real, rng = module.encode_rows, np.random.default_rng(0)

    def elsewhere(x: Any, encoder: Any) -> Any:
        columns = real(x, encoder)
        noise = rng.choice(np.array([1 - 2**-23, 1, 1 + 2**-23], dtype=np.float32), size=len(columns.values))
        return columns._replace(values=columns.values * noise)

    monkeypatch.setattr(module, "encode_rows", elsewhere)
    other = run(subject, dense, planted.texts, [3, 17, 5], sample=30)
    for one, two in zip(exact.features, other.features, strict=True):
        assert facts(one.top) == facts(two.top)
        assert decile_facts(one) == decile_facts(two)


def test_only_the_asked_columns_are_encoded(
    planted: Planted, subject: LanguageSubject, dense: SAESource, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[tuple[float, ...]] = set()
    real = module.encode_rows

    def spy(x: Any, encoder: Any) -> Any:
        seen.add(tuple(encoder.W_enc[0].tolist()))
        return real(x, encoder)

    monkeypatch.setattr(module, "encode_rows", spy)
    run(subject, dense, planted.texts, [3, 17, 5], features_at_once=2)
    weights = dense.load_encoder().W_enc[0]
    assert seen == {tuple(weights[[3, 17]].tolist()), tuple(weights[[5]].tolist())}


def test_topk_is_encoded_once_for_all_columns(planted: Planted, subject: LanguageSubject) -> None:
    write_saelens(planted.folder / "topk", "topk", d_in=32, d_sae=24, hook=SITE, k=3)
    (source,) = resolve_saes([str(planted.folder / "topk")])
    found = run(subject, source, planted.texts, list(range(24)), features_at_once=2)
    assert sum(feature.n_active_tokens for feature in found.features) <= 3 * found.n_tokens


def test_planted_features(planted: Planted, subject: LanguageSubject) -> None:
    (source,) = resolve_saes([str(planted.sae)])
    found = run(subject, source, planted.texts, [0, 1, 2, 3, 4])
    for feature, word in zip(found.features, WORDS, strict=False):
        assert feature.n_active_windows == 30
        assert all(word in context.text for context in feature.top)
        assert not any(word in context.text for context in feature.silent)
        assert len(feature.top) == 20
        assert [context.activation for context in feature.top] == pytest.approx([1.0] * 20, abs=1e-4)
    never = found.features[4]
    assert (never.n_active_tokens, never.top, never.by_decile, len(never.silent)) == (0, [], {}, 60)


def test_an_sae_of_another_width(planted: Planted, subject: LanguageSubject) -> None:
    write_saelens(planted.folder / "wide", "jumprelu", d_in=48, d_sae=24, hook=SITE)
    (source,) = resolve_saes([str(planted.folder / "wide")])
    with pytest.raises(InputError, match=r"takes rows of width 48 .* is 32 wide"):
        run(subject, source, planted.texts, [1])
