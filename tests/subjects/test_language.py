from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conceptatlas.base.errors import InputError
from conceptatlas.subjects.blocks import find_stack
from conceptatlas.subjects.capture import pad_batch
from conceptatlas.subjects.language import LanguageSubject
from conceptatlas.subjects.norms import attention_sinks, row_norms
from conceptatlas.subjects.sites import Site
from tests.helpers.tiny_models import D_MODEL, FAMILIES, N_LAYERS

SubjectOf = Callable[..., LanguageSubject]
TEXTS = [
    "She told him that the bag was new when it was old.",
    "I lied.",
    "A brave child went back for the cat; the house was already burning! What would you have done?",
]
SITES = [Site("embed"), Site("hook_mlp_out", 0), Site("attn.hook_z", 1), Site("hook_resid_post", 1)]


@pytest.mark.parametrize("family", [f for f in FAMILIES if f != "bert"])
def test_a_batch_equals_one_by_one(family: str, subject_of: SubjectOf) -> None:
    subject = subject_of(family)
    items = subject.tokenize(TEXTS)
    together = subject.hidden_states(items.token_ids, SITES, items.rows)
    each = [subject.hidden_states([ids], SITES, [mask]) for ids, mask in zip(items.token_ids, items.rows, strict=True)]
    for site in SITES:
        expected = torch.cat([one[str(site)] for one in each])
        assert expected.shape[0] == items.n_rows.sum()
        scale = float(expected.abs().max())
        torch.testing.assert_close(together[str(site)], expected, rtol=0, atol=1e-5 * scale)


def test_only_the_asked_rows_come_back_in_order(subject_of: SubjectOf) -> None:
    subject = subject_of("llama")
    items = subject.tokenize(TEXTS)
    site = Site("hook_resid_post", 2)
    everything = subject.hidden_states(items.token_ids, [site])[str(site)]
    last = [np.arange(len(ids)) == len(ids) - 1 for ids in items.token_ids]
    got = subject.hidden_states(items.token_ids, [site], last)[str(site)]
    ends = torch.from_numpy(np.cumsum(items.lengths) - 1)
    torch.testing.assert_close(got, everything[ends], rtol=0, atol=0)


def test_an_item_may_have_no_asked_row(subject_of: SubjectOf) -> None:
    subject = subject_of("llama")
    items = subject.tokenize(TEXTS[:2])
    rows = [np.zeros(len(items.token_ids[0]), dtype=bool), items.rows[1]]
    got = subject.hidden_states(items.token_ids, [Site("embed")], rows)["embed"]
    assert got.shape == (items.n_rows[1], D_MODEL)


def test_a_batch_of_mismatched_arrays_is_refused(subject_of: SubjectOf) -> None:
    subject = subject_of("llama")
    items = subject.tokenize(TEXTS[:2])
    with pytest.raises(ValueError, match="one array per item"):
        subject.hidden_states(items.token_ids, [Site("embed")], items.rows[:1])
    with pytest.raises(ValueError, match="at least one row"):
        subject.hidden_states(items.token_ids[:1], [Site("embed")], [np.zeros_like(items.rows[0])])


@pytest.mark.parametrize("family", ["gemma2", "gpt2", "bert"])
def test_the_pass_stops_after_the_deepest_site(family: str, subject_of: SubjectOf) -> None:
    subject = subject_of(family)
    ran: list[int] = []
    handles = [
        layer.register_forward_hook(lambda _m, _i, _o, n=n: ran.append(n))
        for n, layer in enumerate(subject.stack.layers)
    ]
    items = subject.tokenize(["I lied."])
    subject.hidden_states(items.token_ids, [Site("embed"), Site("hook_resid_pre", 1)], items.rows)
    for handle in handles:
        handle.remove()
    assert set(ran) == {0}


def test_no_head_and_no_graph(subject_of: SubjectOf) -> None:
    subject = subject_of("gemma2")
    handle = subject.hf_model.lm_head.register_forward_hook(lambda *_: pytest.fail("the head ran"))
    got = subject.hidden_states([np.array([5, 6], dtype=np.int32)], [Site("hook_resid_post", N_LAYERS - 1)])
    handle.remove()
    assert not any(value.requires_grad for value in got.values())


def test_the_result_is_in_the_models_dtype_or_the_asked_one(tiny_folder, subject_of: SubjectOf) -> None:
    from conceptatlas.subjects import load_subject

    subject = load_subject(subject_of("llama").location, device="cpu", dtype="bfloat16")
    assert subject.dtype == torch.bfloat16
    ids = [np.array([5, 6, 7], dtype=np.int32)]
    site = Site("hook_resid_post", 1)
    own = subject.hidden_states(ids, [site])[str(site)]
    wide = subject.hidden_states(ids, [site], dtype=torch.float32)[str(site)]
    assert own.dtype == torch.bfloat16
    torch.testing.assert_close(wide, own.float(), rtol=0, atol=0)


@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4), seed=st.integers(0, 9))
@settings(deadline=None, max_examples=50)
def test_padding_stands_on_the_right_and_is_no_row(lengths: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids = [rng.integers(1, 9, size=n).astype(np.int32) for n in lengths]
    rows = [rng.random(n) < 0.5 for n in lengths]
    batch = pad_batch(ids, rows, pad_id=0, device=torch.device("cpu"))
    assert batch.input_ids.shape == (len(lengths), max(lengths))
    expected = np.concatenate([one[mask] for one, mask in zip(ids, rows, strict=True)])
    np.testing.assert_array_equal(batch.input_ids.reshape(-1)[batch.rows].numpy(), expected)
    np.testing.assert_array_equal((batch.input_ids != 0).numpy(), batch.attention_mask.numpy() == 1)


# Logits --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [f for f in FAMILIES if f not in ("bert", "phi3")])
def test_logits_are_the_models_own_at_the_asked_rows(family: str, subject_of: SubjectOf) -> None:
    subject = subject_of(family)
    items = subject.tokenize(TEXTS)
    got = subject.logits(items.token_ids, items.rows)
    with torch.no_grad():
        expected = torch.cat(
            [
                subject.hf_model(input_ids=torch.from_numpy(ids.astype(np.int64))[None]).logits[0][
                    torch.from_numpy(mask)
                ]
                for ids, mask in zip(items.token_ids, items.rows, strict=True)
            ]
        )
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    last = subject.logits(items.token_ids)
    torch.testing.assert_close(last, got[torch.from_numpy(np.cumsum(items.n_rows) - 1)], rtol=1e-4, atol=1e-4)


def test_logits_keep_a_graph_on_request(subject_of: SubjectOf) -> None:
    subject = subject_of("gemma2")
    items = subject.tokenize(TEXTS[:1])
    leaves: list[torch.Tensor] = []

    def leaf(x: torch.Tensor) -> torch.Tensor:
        leaves.append(x.detach().requires_grad_())
        return leaves[-1]

    with subject.edited(Site("hook_resid_post", 1), leaf):
        subject.logits(items.token_ids, grad=True)[0, 7].backward()
    assert leaves[0].grad is not None
    assert float(leaves[0].grad.abs().sum()) > 0


def test_a_model_without_a_head_has_no_logits(subject_of: SubjectOf, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = subject_of("llama")
    monkeypatch.setattr(subject.hf_model, "get_output_embeddings", lambda: None)
    with pytest.raises(InputError, match=r"llama_seed0 \(LlamaForCausalLM\) has no head that predicts tokens"):
        subject.logits(subject.tokenize(TEXTS).token_ids)


# Edits ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gemma2", "gemma3_conditional", "llama", "gpt2", "gpt_neox", "qwen3"])
@pytest.mark.parametrize(
    ("edited", "shows"),
    [
        (Site("embed"), Site("embed")),
        (Site("hook_resid_pre", 1), Site("hook_resid_pre", 1)),
        (Site("hook_resid_post", 0), Site("hook_resid_pre", 1)),
        (Site("hook_mlp_out", 1), Site("hook_resid_post", 1)),
    ],
)
def test_an_edit_adds_to_what_follows_and_ends_with_its_block(
    family: str, edited: Site, shows: Site, subject_of: SubjectOf
) -> None:
    subject = subject_of(family)
    items = subject.tokenize(TEXTS)
    vector = torch.linspace(-1, 1, D_MODEL)
    sites = [shows, Site("hook_resid_post", 2)]
    plain = subject.hidden_states(items.token_ids, sites, items.rows)
    with subject.edited(edited, lambda x: x + vector):
        changed = subject.hidden_states(items.token_ids, sites, items.rows)
    again = subject.hidden_states(items.token_ids, sites, items.rows)
    scale = float(plain[str(shows)].abs().max())
    torch.testing.assert_close(changed[str(shows)], plain[str(shows)] + vector, rtol=0, atol=1e-5 * scale)
    assert not torch.allclose(changed["blocks.2.hook_resid_post"], plain["blocks.2.hook_resid_post"], atol=1e-3)
    assert all(torch.equal(again[name], plain[name]) for name in plain)


def test_an_edit_of_the_heads_goes_through_the_output_projection(subject_of: SubjectOf) -> None:
    subject = subject_of("llama")
    ids = subject.tokenize(TEXTS).token_ids
    vector = torch.linspace(-1, 1, D_MODEL)
    site = Site("hook_attn_out", 1)
    plain = subject.hidden_states(ids, [site])[str(site)]
    with subject.edited(Site("attn.hook_z", 1), lambda x: x + vector):
        changed = subject.hidden_states(ids, [site])[str(site)]
    weight = subject.stack.layers[1].get_submodule("self_attn.o_proj").weight
    torch.testing.assert_close(changed, plain + weight @ vector, rtol=1e-4, atol=1e-4)


def test_edits_nest_in_the_order_of_their_blocks(subject_of: SubjectOf) -> None:
    subject = subject_of("llama")
    ids = [np.array([5, 6], dtype=np.int32)]
    site = Site("hook_resid_post", 0)
    plain = subject.hidden_states(ids, [site])[str(site)]
    with subject.edited(site, lambda x: x + 1), subject.edited(site, lambda x: x * 2):
        changed = subject.hidden_states(ids, [site])[str(site)]
    torch.testing.assert_close(changed, (plain + 1) * 2)


def test_an_edit_ends_also_after_an_error(subject_of: SubjectOf) -> None:
    subject = subject_of("llama")
    with pytest.raises(ZeroDivisionError), subject.edited(Site("hook_resid_post", 0), lambda x: x / (1 // 0)):
        subject.hidden_states([np.array([5], dtype=np.int32)], [Site("hook_resid_post", 1)])
    assert subject._edits == 0
    subject.hidden_states([np.array([5], dtype=np.int32)], [Site("hook_resid_post", 1)])


@pytest.mark.parametrize("hook", ["hook_resid_mid", "ln2.hook_normalized", "mlp.hook_post"])
def test_sites_that_can_only_be_read_say_so(hook: str, subject_of: SubjectOf) -> None:
    subject = subject_of("llama")
    with pytest.raises(InputError) as caught, subject.edited(Site(hook, 0), lambda x: x):
        pass
    assert str(caught.value) == (
        f"The site blocks.0.{hook} of LlamaForCausalLM can be read but not edited; edit a residual site (hook_resid_pre, "
        "hook_resid_post), or the output of the MLP or of attention."
    )


def test_a_bridged_site_under_an_edit_is_refused_not_read_unedited(subject_of: SubjectOf) -> None:
    subject = subject_of("llama")
    ids = [np.array([5], dtype=np.int32)]
    with (
        subject.edited(Site("hook_resid_post", 0), lambda x: x),
        pytest.raises(InputError, match=r"blocks\.1\.mlp\.hook_post of LlamaForCausalLM cannot be read while an edit"),
    ):
        subject.hidden_states(ids, [Site("mlp.hook_post", 1)])


# Generation ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gemma2", "gemma3_conditional", "gpt2", "phi3"])
def test_generated_text_is_the_likeliest_token_each_time(family: str, subject_of: SubjectOf) -> None:
    subject = subject_of(family)
    got = subject.generate("I lied to", max_new_tokens=5)
    ids = subject.tokenize(["I lied to"]).token_ids[0]
    np.testing.assert_array_equal(got.prompt_ids, ids)
    expected: list[int] = []
    for _ in range(5):
        token = int(subject.logits([np.append(ids, expected).astype(np.int32)])[0].argmax())
        if token in (subject.tokenizer.eos_token_id,):
            break
        expected.append(token)
    assert got.new_ids.tolist() == expected
    assert got.text == subject.tokenizer.decode(expected)


def test_an_edit_steers_the_text(subject_of: SubjectOf) -> None:
    """Pushing the last residual along a token's unembedding makes the model say it."""
    subject = subject_of("llama")
    push = 100 * subject.hf_model.lm_head.weight[77] / subject.stack.base.norm.weight
    with subject.edited(Site("hook_resid_post", N_LAYERS - 1), lambda x: x + push):
        steered = subject.generate("I lied to", max_new_tokens=3)
    assert steered.new_ids.tolist() == [77, 77, 77]
    assert subject.generate("I lied to", max_new_tokens=3).new_ids.tolist() != [77, 77, 77]


def test_generation_stops_at_the_end_token(subject_of: SubjectOf) -> None:
    subject = subject_of("llama")
    end = subject.tokenizer.eos_token_id
    push = 100 * subject.hf_model.lm_head.weight[end] / subject.stack.base.norm.weight
    with subject.edited(Site("hook_resid_post", N_LAYERS - 1), lambda x: x + push):
        assert subject.generate("I lied to", max_new_tokens=3).new_ids.tolist() == []


def test_draws_come_from_the_generator_that_is_passed(subject_of: SubjectOf) -> None:
    subject = subject_of("llama")

    def draw(seed: int) -> list[int]:
        generator = torch.Generator().manual_seed(seed)
        return subject.generate("I", max_new_tokens=12, temperature=2.0, generator=generator).new_ids.tolist()

    assert draw(1) == draw(1) != draw(2)
    with pytest.raises(InputError, match=r"temperature 0\.7 needs a torch\.Generator"):
        subject.generate("I", temperature=0.7)


def test_an_encoder_cannot_continue_a_text(subject_of: SubjectOf) -> None:
    with pytest.raises(
        InputError, match=r"bert_seed0 \(BertForMaskedLM\) is no causal model and cannot continue a text"
    ):
        subject_of("bert").generate("I lied")


# Small parts ---------------------------------------------------------------------------------------------------------


def test_norms_and_sinks() -> None:
    hidden = torch.ones(9, 4)
    hidden[3] *= 10.0
    hidden[5] *= 10.1
    norms = row_norms(hidden)
    np.testing.assert_allclose(norms[:4], [2, 2, 2, 20])
    assert np.flatnonzero(attention_sinks(norms)).tolist() == [5]
    assert np.flatnonzero(attention_sinks(norms, factor=5)).tolist() == [3, 5]
    assert attention_sinks(norms[:0]).shape == (0,)


def test_the_blocks_of_a_vision_tower_are_not_taken_for_the_models(subject_of: SubjectOf) -> None:
    subject = subject_of("gemma3_conditional")
    vision = subject.hf_model.get_submodule("model.vision_tower")
    assert any(isinstance(m, torch.nn.ModuleList) and len(m) == N_LAYERS for m in vision.modules())
    assert type(subject.stack.base).__name__ == "Gemma3TextModel"


def test_a_model_without_such_blocks_is_an_error(subject_of: SubjectOf) -> None:
    with pytest.raises(InputError, match="Cannot find the 7 blocks of LlamaForCausalLM beside its token embedding"):
        find_stack(subject_of("llama").hf_model, 7)
