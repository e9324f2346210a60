"""Running on from a site equals the whole forward pass with a hook, in every family and at every kind of site."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from conceptatlas.base.errors import InputError
from conceptatlas.subjects import LanguageSubject, Site, above
from conceptatlas.subjects.above import KeptTexts, unedited
from tests.helpers.tiny_models import D_MODEL, N_LAYERS

SubjectOf = Callable[..., LanguageSubject]
TEXTS = ["She told him that the bag was new when it was old", "I lied", "What would you have done? Nothing", "I lied"]
FAMILIES = ["gemma2", "gemma3", "llama", "mistral", "qwen3", "phi3", "gpt2", "gpt_neox", "bert"]
SITES = ["blocks.1.hook_resid_post", f"blocks.{N_LAYERS - 1}.hook_resid_post", "blocks.2.hook_resid_pre", "embed"]


def vectors(n: int, width: int = D_MODEL) -> torch.Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(1))


def slow(
    subject: LanguageSubject,
    ids: Sequence[Any],
    masks: Sequence[Any],
    site: str,
    vectors_ED: torch.Tensor,
    rows: Sequence[Any] | None = None,
) -> torch.Tensor:
    """Run text by text and edit by edit through the whole model: [E, T, V]."""
    found = []
    for vector in vectors_ED:
        per_text = []
        for number, (tokens, mask) in enumerate(zip(ids, masks, strict=True)):
            moved = torch.from_numpy(mask.astype(np.float32))[None, :, None] * vector
            with subject.edited(Site.parse(site), lambda x, moved=moved: x + moved):
                per_text.append(subject.logits([tokens], None if rows is None else [rows[number]]))
        found.append(torch.cat(per_text))
    return torch.stack(found)


def fast(kept: KeptTexts, vectors_ED: torch.Tensor, rows: Sequence[Any] | None = None) -> torch.Tensor:
    total = kept.n_texts if rows is None else int(sum(mask.sum() for mask in rows))
    found = torch.full((len(vectors_ED), total, kept.subject.vocabulary), torch.nan)
    for part in kept.logits(lambda x: x[None] + vectors_ED[:, None, None], rows=rows):
        found[part.edits, part.rows] = part.logits
    return found


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("site", SITES)
def test_it_equals_the_whole_pass(family: str, site: str, subject_of: SubjectOf) -> None:
    subject = subject_of(family)
    tokens = subject.tokenize(TEXTS)
    kept = KeptTexts(subject, tokens.token_ids, Site.parse(site), editable=tokens.rows)
    given = 2 * vectors(3)
    expected = slow(subject, tokens.token_ids, tokens.rows, site, given)
    assert torch.allclose(fast(kept, given), expected, atol=2e-4), family
    if family != "bert":  # it is read at its [SEP], which no edit of the last block's text reaches
        assert not torch.allclose(expected[0], expected[1], atol=1e-2)
    assert kept.whole == (site == "embed")


@pytest.mark.parametrize("site", ["blocks.1.hook_mlp_out", "blocks.1.hook_attn_out", "blocks.1.mlp.hook_in"])
def test_sites_within_a_block_run_their_block_again(site: str, subject_of: SubjectOf) -> None:
    subject = subject_of("gemma2")
    tokens = subject.tokenize(TEXTS)
    kept = KeptTexts(subject, tokens.token_ids, Site.parse(site), editable=tokens.rows)
    expected = slow(subject, tokens.token_ids, tokens.rows, site, vectors(2))
    assert torch.allclose(fast(kept, vectors(2)), expected, atol=2e-4)


def test_any_rows_in_any_number_of_parts(subject_of: SubjectOf, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = subject_of("llama")
    tokens = subject.tokenize(TEXTS)
    rows = [mask & (np.arange(len(mask)) % 2 == 0) for mask in tokens.rows]
    site = "blocks.0.hook_resid_post"
    expected = slow(subject, tokens.token_ids, tokens.rows, site, vectors(5), rows)
    for limit, logits in ((above.TOKENS_AT_ONCE, above.LOGITS_AT_ONCE), (40, 10**9), (7, 10**9), (4096, 3000)):
        monkeypatch.setattr(above, "TOKENS_AT_ONCE", limit)
        monkeypatch.setattr(above, "LOGITS_AT_ONCE", logits)
        kept = KeptTexts(subject, tokens.token_ids, Site.parse(site), editable=tokens.rows)
        assert torch.allclose(fast(kept, vectors(5), rows), expected, atol=2e-4)
        parts = [part.logits.shape for part in kept.logits(lambda x: x[None] + vectors(5)[:, None, None], rows=rows)]
        assert len(parts) == (1 if limit > 1000 and logits > 10**6 else len(parts))
        assert max(edits * at for edits, at, _ in parts) * subject.vocabulary <= max(logits, 8 * subject.vocabulary)


def test_blocks_below_the_site_are_not_run_again(subject_of: SubjectOf) -> None:
    subject = subject_of("llama")
    tokens = subject.tokenize(TEXTS)
    kept = KeptTexts(subject, tokens.token_ids, Site("hook_resid_post", 1))
    counts = [0] * N_LAYERS
    handles = [
        block.mlp.register_forward_hook(lambda *_args, i=i: counts.__setitem__(i, counts[i] + 1))
        for i, block in enumerate(subject.stack.layers)
    ]
    list(kept.logits(unedited))
    for handle in handles:
        handle.remove()
    assert counts == [0, 0, 1]
    assert not any("forward" in block.__dict__ for block in subject.stack.layers)


def test_a_model_whose_later_blocks_look_back_is_run_whole(subject_of: SubjectOf) -> None:
    """Its last block adds what the first block's MLP gave: the residual stream alone does not hold that."""
    subject = subject_of("llama", intermediate_size=48)
    first, last = subject.stack.layers[0].mlp, subject.stack.layers[2].mlp
    given: list[torch.Tensor] = []
    handles = [
        first.register_forward_hook(lambda _m, _a, out: given.append(out)),
        last.register_forward_hook(lambda _m, _a, out: out + given[-1] if given[-1].shape == out.shape else out + 1),
    ]
    tokens = subject.tokenize(TEXTS)
    kept = KeptTexts(subject, tokens.token_ids, Site("hook_resid_post", 1), editable=tokens.rows)
    assert kept.whole
    expected = slow(subject, tokens.token_ids, tokens.rows, "blocks.1.hook_resid_post", vectors(2))
    assert torch.allclose(fast(kept, vectors(2)), expected, atol=2e-4)
    for handle in handles:
        handle.remove()


def test_only_the_text_is_edited(subject_of: SubjectOf) -> None:
    subject = subject_of("gemma2")
    tokens = subject.tokenize(TEXTS)
    nothing = [np.zeros(len(ids), dtype=bool) for ids in tokens.token_ids]
    kept = KeptTexts(subject, tokens.token_ids, Site("hook_resid_post", 1), editable=nothing)
    plain = torch.cat([subject.logits([ids]) for ids in tokens.token_ids])
    assert torch.allclose(fast(kept, 9 * vectors(1))[0], plain, atol=2e-4)
    values = kept.values(1)
    assert torch.allclose(values, subject.hidden_states([tokens.token_ids[1]], [kept.site])[str(kept.site)], atol=1e-5)
    with pytest.raises(IndexError, match="no text 9"):
        kept.values(9)


def test_a_site_that_can_only_be_read_is_refused(subject_of: SubjectOf) -> None:
    subject = subject_of("gemma2")
    with pytest.raises(InputError, match="can be read but not edited"):
        KeptTexts(subject, subject.tokenize(["I lied"]).token_ids, Site("hook_resid_mid", 1))
