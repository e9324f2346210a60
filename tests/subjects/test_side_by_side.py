"""Passes of one model in several threads at a time: each reads its own, and finds what it would find alone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from conceptatlas.subjects.language import LanguageSubject
from conceptatlas.subjects.sites import Site
from tests.helpers.tiny_models import FAMILIES, N_LAYERS
from tests.subjects.test_prefix import DYNAMIC

SubjectOf = Callable[..., LanguageSubject]

SITES = [Site("embed"), *(Site("hook_resid_post", layer) for layer in range(N_LAYERS))]
THREADS = 4


def items(seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(6, 200, size=n).astype(np.int32) for n in rng.integers(1, 40, size=3)]


@pytest.mark.parametrize("family", FAMILIES)
def test_side_by_side_is_one_after_the_other(subject_of: SubjectOf, family: str) -> None:
    subject = subject_of(family)
    if not subject.runs_side_by_side(SITES):
        assert "rope" in subject.prefix_rule.reason
        return
    batches = [items(seed) for seed in range(16)]
    alone = [subject.hidden_states(batch, SITES) for batch in batches]
    begin = threading.Barrier(THREADS)

    def some(first: int) -> list[dict[str, torch.Tensor]]:
        begin.wait()
        return [read(batch, None) for batch in batches[first::THREADS]]

    with subject.reading(SITES) as read, ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(some, range(THREADS)))
    for number, expected in enumerate(alone):
        for name, states in found[number % THREADS][number // THREADS].items():
            torch.testing.assert_close(states, expected[name], rtol=0, atol=0)


def test_a_pass_that_reads_nothing_is_left_alone(subject_of: SubjectOf) -> None:
    """Hooks are the model's: a thread that has not asked for anything runs to its end."""
    subject = subject_of("gemma2")
    ids = torch.from_numpy(items(0)[0][None].astype(np.int64))
    with torch.no_grad():
        expected = subject.hf_model(ids).logits
        with subject.reading(SITES):
            found = subject.hf_model(ids).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_what_changes_in_a_pass_is_not_run_side_by_side(subject_of: SubjectOf) -> None:
    assert not subject_of("llama", **DYNAMIC).runs_side_by_side(SITES), (
        "dynamic rope keeps the last length's frequencies"
    )
    assert not subject_of("phi3").runs_side_by_side(SITES), "long rope, too"
    assert not subject_of("gemma2").runs_side_by_side([Site("mlp.hook_post", 1)]), "the bridge is not known to be safe"
    assert subject_of("gemma2").runs_side_by_side(SITES)
