"""Plain hooks give what TransformerLens's bridge gives; the bridge gives the rest; the model stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Gemma3ForCausalLM

from conceptatlas.base.errors import InputError
from conceptatlas.subjects import bridge as bridge_module
from conceptatlas.subjects.bridge import build_bridge
from conceptatlas.subjects.language import LanguageSubject
from conceptatlas.subjects.places import find_place
from conceptatlas.subjects.sites import BLOCK_HOOKS, BRIDGE_HOOKS, Site
from tests.helpers.tiny_models import D_HEAD, D_MLP, D_MODEL, FAMILIES, N_HEADS, N_LAYERS

SubjectOf = Callable[..., LanguageSubject]

# gemma3_conditional is compared with a text model of its own weights, below.
BRIDGED = [family for family in FAMILIES if family not in ("bert", "gemma3_conditional")]
TEXT = "She told him that the bag was new when"  # at most 12 tokens: one pass, also under Phi-3's long rope
# The bridge calls the MLP's input so; its own hook_mlp_in is off by default.
SAME = {"hook_mlp_in": "mlp.hook_in"}
PARALLEL = [("gpt_neox", "hook_resid_mid")]


def bridge_values(bridge: Any, ids: np.ndarray, names: list[str]) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        _, cache = bridge.run_with_cache(torch.from_numpy(ids.astype(np.int64))[None], return_type="logits")
    return {name: cache[name][0].reshape(len(ids), -1) for name in names}


@pytest.fixture(scope="module")
def bridge_of(subject_of: SubjectOf) -> Callable[[str], Any]:
    built: dict[str, Any] = {}

    def build(family: str) -> Any:
        if family not in built:
            subject = subject_of(family)
            built[family] = build_bridge(subject.hf_model, subject.tokenizer, subject.location)
        return built[family]

    return build


def assert_close(got: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("family", BRIDGED)
def test_plain_hooks_equal_the_bridge(family: str, subject_of: SubjectOf, bridge_of: Callable[[str], Any]) -> None:
    subject = subject_of(family)
    ids = subject.tokenize([TEXT]).token_ids[0][:12]
    hooks = [hook for hook in BLOCK_HOOKS if (family, hook) not in PARALLEL]
    sites = [Site("embed"), *(Site(hook, layer) for layer in range(N_LAYERS) for hook in hooks)]
    assert all(find_place(site, subject.stack, subject.config) is not None for site in sites)
    got = subject.hidden_states([ids], sites)
    theirs = {
        str(s): f"blocks.{s.layer}.{SAME.get(s.hook, s.hook)}" if s.layer is not None else "hook_embed" for s in sites
    }
    expected = bridge_values(bridge_of(family), ids, list(theirs.values()))
    for site in sites:
        assert_close(got[str(site)], expected[theirs[str(site)]])


def test_the_text_part_of_a_conditional_gemma_3_equals_the_bridge(subject_of: SubjectOf) -> None:
    subject = subject_of("gemma3_conditional")
    text = Gemma3ForCausalLM(subject.config).eval()
    text.model.load_state_dict(subject.stack.base.state_dict())
    ids = subject.tokenize([TEXT]).token_ids[0]
    sites = [Site(hook, 1) for hook in BLOCK_HOOKS]
    bridge = build_bridge(text, subject.tokenizer, subject_of("gemma3").location)
    names = [f"blocks.1.{SAME.get(hook, hook)}" for hook in BLOCK_HOOKS]
    expected = bridge_values(bridge, ids, names)
    got = subject.hidden_states([ids], sites)
    for site, name in zip(sites, names, strict=True):
        assert_close(got[str(site)], expected[name])


@pytest.mark.parametrize("family", ["gemma2", "qwen3", "gpt2", "gpt_neox"])
def test_other_sites_come_through_the_bridge(
    family: str, subject_of: SubjectOf, bridge_of: Callable[[str], Any]
) -> None:
    subject = subject_of(family)
    items = subject.tokenize([TEXT, "I lied.", "They carried the stranger home through the rain."]).token_ids
    sites = [*(Site(hook, 1) for hook in BRIDGE_HOOKS), Site("hook_resid_post", 1)]
    got = subject.hidden_states(items, sites)
    assert list(got) == [str(site) for site in sites]
    each = [bridge_values(bridge_of(family), ids, [str(site) for site in sites]) for ids in items]
    for site in sites:
        assert_close(got[str(site)], torch.cat([one[str(site)] for one in each]))


def test_the_bridge_leaves_the_model_as_it_is_and_shares_its_weights(subject_of: SubjectOf) -> None:
    subject = subject_of("llama")
    before = {name: type(module) for name, module in subject.hf_model.named_modules()}
    subject.hidden_states(subject.tokenize([TEXT]).token_ids, [Site("mlp.hook_post", 0)])
    assert {name: type(module) for name, module in subject.hf_model.named_modules()} == before
    assert subject.attention == "sdpa" == subject.hf_model.config._attn_implementation
    own = {p.data_ptr() for p in subject.hf_model.parameters()}
    copied = sum(p.numel() for p in subject._bridge.parameters() if p.data_ptr() not in own)
    assert copied <= subject.vocabulary, "more than the bias of zeros that the bridge gives the head"


def test_widths_are_those_of_the_values(subject_of: SubjectOf) -> None:
    sites = [
        Site("embed"),
        Site("attn.hook_z", 1),
        Site("mlp.hook_post", 0),
        Site("attn.hook_k", 2),
        Site("hook_mlp_in", 2),
    ]
    assert list(subject_of("llama").widths(sites).values()) == [D_MODEL, N_HEADS * D_HEAD, D_MLP, 2 * D_HEAD, D_MODEL]


def test_a_place_that_the_architecture_lacks_is_an_error(subject_of: SubjectOf) -> None:
    subject = subject_of("gpt_neox")
    ids = subject.tokenize([TEXT]).token_ids
    with pytest.raises(InputError) as caught:
        subject.hidden_states(ids, [Site("hook_resid_mid", 1)])
    assert str(caught.value) == (
        "There is no blocks.1.hook_resid_mid in GPTNeoXForCausalLM; residual sites (hook_resid_pre, hook_resid_post) "
        "exist in every architecture."
    )


def test_a_layer_that_is_not_there_is_an_error(subject_of: SubjectOf) -> None:
    subject = subject_of("gpt2")
    with pytest.raises(
        InputError, match=r"There is no blocks\.3\.hook_resid_pre in gpt2_seed0: its 3 blocks are numbered 0 to 2\."
    ):
        subject.hidden_states(subject.tokenize([TEXT]).token_ids, [Site("hook_resid_pre", 3)])


def test_no_bridge_is_built_over_a_model_with_a_vision_part(
    subject_of: SubjectOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TransformerLens would run pip to install torchvision."""
    subject = subject_of("gemma3_conditional")
    monkeypatch.setattr(bridge_module, "share_weights", lambda _model: pytest.fail("a bridge was begun"))
    with pytest.raises(
        InputError, match=r"Gemma3ForConditionalGeneration is not a pure text model, and TransformerLens"
    ):
        subject.hidden_states(subject.tokenize([TEXT]).token_ids, [Site("mlp.hook_post", 0)])


def test_an_encoders_bridged_site_ends_with_the_whole_text(subject_of: SubjectOf) -> None:
    """The last fragment of an encoder is the whole text; its values are those of one plain pass."""
    subject = subject_of("bert")
    items = subject.tokenize(["I lied to my friend."])
    last = [np.arange(len(ids)) == len(ids) - 2 for ids in items.token_ids]
    got = subject.hidden_states(items.token_ids, [Site("attn.hook_z", 1)], last)["blocks.1.attn.hook_z"]
    seen: list[torch.Tensor] = []
    attention = subject.stack.layers[1].get_submodule("attention.output.dense")
    handle = attention.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0][0, -2]))
    with torch.no_grad():
        subject.stack.base(input_ids=torch.from_numpy(items.token_ids[0].astype(np.int64))[None])
    handle.remove()
    assert_close(got[0], seen[0])


def test_the_embedding_is_what_the_model_adds(subject_of: SubjectOf) -> None:
    """Scaled by sqrt(d) in Gemma; without GPT-2's positions."""
    ids = np.array([7, 7, 9], dtype=np.int32)
    for family, scale in (("gemma2", D_MODEL**0.5), ("gemma3", D_MODEL**0.5), ("gpt2", 1.0), ("llama", 1.0)):
        subject = subject_of(family)
        got = subject.hidden_states([ids], [Site("embed")])["embed"]
        torch.testing.assert_close(got, subject.stack.embed.weight[torch.tensor([7, 7, 9])] * scale)


def test_granites_multiplier_is_part_of_the_embedding(subject_of: SubjectOf) -> None:
    from types import SimpleNamespace

    subject = subject_of("llama")
    place = find_place(Site("embed"), subject.stack, SimpleNamespace(embedding_multiplier=12.0))
    assert place is not None
    assert place.read is not None
    assert place.write is not None
    x = torch.ones(1, 2, 3)
    torch.testing.assert_close(place.read(x), 12 * x)
    torch.testing.assert_close(place.write(place.read(x)), x)


def test_an_architecture_that_the_bridge_does_not_know_is_an_error(subject_of: SubjectOf) -> None:
    subject = subject_of("gpt2")
    message = (
        r"^TransformerLens's bridge cannot read GPT2Model \(.+\); choose a residual site \(hook_resid_pre, "
        r"hook_resid_post\), which plain hooks read in any architecture\.$"
    )
    with pytest.raises(InputError, match=message):
        build_bridge(subject.stack.base, subject.tokenizer, subject.location)
