"""Buffers: the very rows of the model, without sinks and special tokens; the same again from any number on."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch

from conceptatlas.base.errors import InputError
from conceptatlas.subjects import LanguageSubject, Site
from conceptatlas.subjects.texts import TextStream
from conceptatlas.training.activations import Buffers, norm_scale, rows_to_train_on
from conceptatlas.training.contexts import Contexts, make_contexts

SITES = [Site("hook_resid_post", 1), Site("hook_mlp_out", 2)]


@pytest.fixture(scope="module")
def contexts(organism: LanguageSubject, texts: list[str]) -> Contexts:
    return make_contexts(organism, TextStream(texts), context=32, rows=10**9)


def buffers(organism: LanguageSubject, contexts: Contexts, sites: list[Site] = SITES, **options) -> Buffers:
    few = {"rows": 300, "least": 64, "dtype": torch.float32, "seed": 0}
    return Buffers(organism, contexts, sites, **(few | options))


def ordered(rows: torch.Tensor) -> np.ndarray:
    """Return rows in an order that does not depend on theirs, rounded."""
    array = rows.float().numpy().round(3)
    return array[np.lexsort(array.T)]


def test_a_pass_over_the_text_has_every_context_once(organism: LanguageSubject, contexts: Contexts) -> None:
    training = np.flatnonzero(~contexts.held_out)
    one = buffers(organism, contexts)
    seen: list[int] = []
    number = -1
    for number, which in one.numbered(0):  # noqa: B007
        assert contexts.n_rows[which].sum() <= 300 + 64
        seen += which.tolist()
        if len(seen) >= len(training):
            break
    assert sorted(seen) == training.tolist()
    assert seen != training.tolist()
    following = next(one.numbered(number + 1))
    assert following[0] == number + 1
    assert following[1].tolist() != next(one.numbered(0))[1].tolist()


def test_rows_are_those_of_the_model(organism: LanguageSubject, contexts: Contexts) -> None:
    one = buffers(organism, contexts)
    number, which = next(one.numbered(2))
    found = one.states(number, which, {})
    for site in SITES:
        ids = [np.asarray(contexts.of(int(i))) for i in which]
        plain = torch.cat([organism.hidden_states([part], [site])[str(site)][1:] for part in ids])  # without the BOS
        norms = plain.norm(dim=1)
        kept = plain[norms <= 10 * norms.median()]
        np.testing.assert_allclose(ordered(found[str(site)]), ordered(kept), atol=2e-2)
        assert not torch.allclose(found[str(site)][: len(kept)], kept, atol=1e-2)


def test_a_site_does_not_depend_on_the_others_nor_a_buffer_on_those_before(
    organism: LanguageSubject, contexts: Contexts
) -> None:
    both, alone = buffers(organism, contexts), buffers(organism, contexts, SITES[:1])
    limits: dict[str, float] = {}
    for number, which in islice(both.numbered(0), 3):
        last = number, which, both.states(number, which, limits)
    again = alone.states(last[0], next(alone.numbered(last[0]))[1], dict(limits))
    assert torch.equal(again[str(SITES[0])], last[2][str(SITES[0])])


def test_sinks_are_left_out_by_the_limit_of_the_first_buffer() -> None:
    rows = torch.ones(9, 4)
    rows[3] *= 11
    rows[5] *= 9
    limits: dict[str, float] = {}
    assert rows_to_train_on(rows, "a", "model", limits).tolist() == [0, 1, 2, 4, 5, 6, 7, 8]
    assert limits["a"] == pytest.approx(20.0)
    assert rows_to_train_on(rows * 3, "a", "model", limits).tolist() == [0, 1, 2, 4, 6, 7, 8]
    assert norm_scale(rows[:3]) == pytest.approx(1.0)


def test_nan_is_refused() -> None:
    rows = torch.ones(9, 4)
    rows[7, 2] = float("nan")
    with pytest.raises(InputError, match=r"gemma gives NaN or infinite values at site \(row 7 of a buffer\); check"):
        rows_to_train_on(rows, "site", "gemma", {})


def test_too_little_text(organism: LanguageSubject, contexts: Contexts) -> None:
    with pytest.raises(InputError, match=r"The text gives \d+ rows to train on, fewer than 100000"):
        buffers(organism, contexts, least=100_000)


def test_bfloat16_halves_the_memory(organism: LanguageSubject, contexts: Contexts) -> None:
    one = buffers(organism, contexts, dtype=torch.bfloat16)
    assert one.states(*next(one.numbered(0)), {})[str(SITES[0])].dtype == torch.bfloat16
