"""The hidden state of token t in the whole text is that of the last token of "tokens 1..t", in every family."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conceptatlas.subjects.language import LanguageSubject
from conceptatlas.subjects.prefix import BIDIRECTIONAL, Prefix, breaks_when_run, context_limit, plan_passes
from conceptatlas.subjects.sites import Site
from tests.helpers.tiny_models import FAMILIES, N_LAYERS, WINDOW

SubjectOf = Callable[..., LanguageSubject]

SITES = [Site("embed")] + [Site(h, layer) for layer in range(N_LAYERS) for h in ("hook_resid_pre", "hook_resid_post")]
# Shorter than, as long as and much longer than the sliding window of 8 and the original context of 12.
LENGTHS = [1, 5, 8, 9, 12, 13, 40]
CAUSAL = [family for family in FAMILIES if family != "bert"]
DYNAMIC = {
    "rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0},
    "max_position_embeddings": 12,
}


def random_items(subject: LanguageSubject, lengths: list[int]) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.integers(6, 200, size=n).astype(np.int32) for n in lengths]


def whole_pass(subject: LanguageSubject, ids: np.ndarray, sites: list[Site]) -> dict[str, torch.Tensor]:
    """Run the unmodified model once, unpadded, and return all positions of the sites, [S, D] each."""
    seen: dict[str, torch.Tensor] = {}
    handles = []
    for site in sites:

        def keep(_module: object, inputs: tuple, output: torch.Tensor, site: Site = site) -> None:
            seen[str(site)] = (inputs[0] if site.hook == "hook_resid_pre" else output)[0].clone()

        module = subject.stack.embed if site.layer is None else subject.stack.layers[site.layer]
        handles.append(module.register_forward_hook(keep))
    with torch.no_grad():
        subject._reset_rope(subject.stack.base)
        subject.stack.base(input_ids=torch.from_numpy(ids.astype(np.int64))[None])
    for handle in handles:
        handle.remove()
    return seen


def fragment_by_fragment(subject: LanguageSubject, ids: np.ndarray, sites: list[Site]) -> dict[str, torch.Tensor]:
    """The obvious oracle: run each fragment alone through the unmodified model and keep its last token."""
    seen: dict[str, list[torch.Tensor]] = {str(site): [] for site in sites}
    tail = len(subject.token_rules.suffix)
    ends = range(1, len(ids) + 1) if tail == 0 else range(2, len(ids))
    for end in ends:
        fragment = np.concatenate([ids[:end], subject.token_rules.suffix])
        for name, value in whole_pass(subject, fragment, sites).items():
            seen[name].append(value[end - 1])
    return {name: torch.stack(values) for name, values in seen.items()}


def assert_same(got: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        scale = float(value.abs().max())
        torch.testing.assert_close(got[name], value, rtol=0, atol=1e-5 * scale, msg=lambda m, name=name: f"{name}: {m}")


def check_family(subject: LanguageSubject) -> None:
    items = random_items(subject, LENGTHS)
    got = subject.hidden_states(items, SITES)
    each = [fragment_by_fragment(subject, ids, SITES) for ids in items]
    assert_same(got, {str(s): torch.cat([one[str(s)] for one in each]) for s in SITES})


@pytest.mark.parametrize("family", CAUSAL)
def test_one_batch_gives_every_fragment(family: str, subject_of: SubjectOf) -> None:
    subject = subject_of(family)
    assert subject.prefix == ("needs true passes" if family == "phi3" else "proven by architecture")
    check_family(subject)


def test_dynamic_rope_gets_passes_of_one_length_and_keeps_no_memory(subject_of: SubjectOf) -> None:
    subject = subject_of("llama", **DYNAMIC)
    assert subject.prefix == "needs true passes"
    assert "dynamic rope" in subject.prefix_rule.reason
    assert context_limit(subject.config) == 48
    check_family(subject)
    short = random_items(subject, [11])
    before = subject.hidden_states(short, SITES)
    subject.hidden_states(random_items(subject, [40]), SITES)
    after = subject.hidden_states(short, SITES)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_an_encoder_gets_a_pass_per_fragment_with_its_end_token(subject_of: SubjectOf) -> None:
    subject = subject_of("bert")
    assert subject.prefix == "needs true passes"
    items = subject.tokenize(["She told him.", "I lied to my friend about the money, then I said that I was sorry."])
    got = subject.hidden_states(items.token_ids, SITES, items.rows)
    each = [fragment_by_fragment(subject, ids, SITES) for ids in items.token_ids]
    assert_same(got, {str(s): torch.cat([one[str(s)] for one in each]) for s in SITES})


@pytest.mark.parametrize("family", ["phi3", "bert"])
def test_one_plain_pass_would_be_wrong_where_the_property_breaks(family: str, subject_of: SubjectOf) -> None:
    subject = subject_of(family)
    (ids,) = random_items(subject, [30])
    site = Site("hook_resid_post", N_LAYERS - 1)
    right = subject.hidden_states([ids], [site])[str(site)]
    plain = whole_pass(subject, ids, [site])[str(site)]
    assert float((plain - right).abs().max()) > 1e-2 * float(right.abs().max())


def test_a_long_neighbour_in_the_batch_changes_nothing_under_long_rope(subject_of: SubjectOf) -> None:
    subject = subject_of("phi3")
    short, long = random_items(subject, [6, 40])
    site = Site("hook_resid_post", N_LAYERS - 1)
    alone = subject.hidden_states([short], [site])[str(site)]
    together = subject.hidden_states([short, long], [site])[str(site)][:6]
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5 * float(alone.abs().max()))


def test_the_sliding_window_and_the_soft_cap_are_in_force(subject_of: SubjectOf) -> None:
    """Otherwise the proofs above would prove nothing of them."""
    site = Site("hook_resid_post", N_LAYERS - 1)

    def last(subject: LanguageSubject) -> torch.Tensor:
        return subject.hidden_states(random_items(subject, [5 * WINDOW]), [site])[str(site)][-1]

    capped = last(subject_of("gemma2"))
    assert subject_of("gemma2").attention == "eager"
    assert not torch.allclose(capped, last(subject_of("gemma2", attn_logit_softcapping=1000.0)), rtol=1e-2)
    assert not torch.allclose(capped, last(subject_of("gemma2", sliding_window=64)), rtol=1e-2)
    for family in ("mistral", "gemma3"):
        assert not torch.allclose(last(subject_of(family)), last(subject_of(family, sliding_window=64)), rtol=1e-2)


def test_a_gemma_3_that_looks_both_ways_gets_true_passes(subject_of: SubjectOf) -> None:
    subject = subject_of("gemma3", use_bidirectional_attention=True)
    assert subject.prefix_rule == BIDIRECTIONAL


def test_an_unknown_architecture_is_tried(subject_of: SubjectOf, monkeypatch: pytest.MonkeyPatch) -> None:
    from conceptatlas.subjects import language

    monkeypatch.setattr(language, "PROVEN", frozenset())
    assert subject_of("llama")._find_prefix_rule().proof == "checked on this model"
    assert subject_of("bert")._find_prefix_rule() == BIDIRECTIONAL


def test_the_trial_sees_tokens_that_look_ahead_and_encodings_that_depend_on_length() -> None:
    def causal(ids: np.ndarray) -> np.ndarray:
        return np.cumsum(ids)[:, None].astype(np.float32)

    assert not breaks_when_run(causal, 50, 1e-3)
    assert breaks_when_run(lambda ids: causal(ids[::-1])[::-1], 50, 1e-3)
    assert breaks_when_run(lambda ids: causal(ids) * len(ids), 50, 1e-3)


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    limit=st.sampled_from([None, 0, 3]),
    beyond=st.sampled_from(["pass", "fragments", "equal fragments"]),
    tail=st.integers(0, 1),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=100)
def test_every_asked_row_is_planned_exactly_once(
    lengths: list[int], limit: int | None, beyond: str, tail: int, seed: int
) -> None:
    if limit == 0 and beyond == "pass":
        beyond = "fragments"
    rng = np.random.default_rng(seed)
    suffix = np.full(tail, 99, dtype=np.int32)
    items = [np.concatenate([rng.integers(0, 50, size=n), suffix]).astype(np.int32) for n in lengths]
    rows = [np.append(rng.random(n) < 0.7, np.zeros(tail, dtype=bool)).astype(bool) for n in lengths]
    if not any(mask.any() for mask in rows):
        rows[0][0] = True
    prefix = Prefix("needs true passes", limit, beyond)  # type: ignore[arg-type]
    expected = [ids[: t + 1] for ids, mask in zip(items, rows, strict=True) for t in np.flatnonzero(mask)]
    planned: dict[int, np.ndarray] = {}
    budget = len(items) * max(len(ids) for ids in items) if limit is not None else 0
    for one in plan_passes(prefix, items, rows, suffix):
        places = iter(one.places)
        for ids, mask in zip(one.token_ids, one.rows, strict=True):
            for t in np.flatnonzero(mask):
                place = int(next(places))
                assert place not in planned
                planned[place] = ids[: t + 1]
        if limit is not None:
            width = max(len(ids) for ids in one.token_ids)
            assert len(one.token_ids) * width <= max(budget, width)
        if beyond == "equal fragments" and limit is not None and max(len(i) for i in one.token_ids) > limit:
            assert len({len(ids) for ids in one.token_ids}) == 1
    assert sorted(planned) == list(range(len(expected)))
    assert all(np.array_equal(planned[i], ids) for i, ids in enumerate(expected))
