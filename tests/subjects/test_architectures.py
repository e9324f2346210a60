"""Architectures beyond the families that are proven: what can be read is right, what cannot says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from conceptatlas.base.errors import InputError
from conceptatlas.subjects import LanguageSubject, Site, load_subject
from tests.helpers.tiny_models import CONTEXT, D_MODEL, N_HEADS, N_LAYERS, VOCAB, llama_tokenizer

LLAMA_LIKE = {
    "hidden_size": D_MODEL,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": N_HEADS,
    "num_key_value_heads": N_HEADS,
    "intermediate_size": 64,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.3,
}
LINEAR = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "num_hidden_layers": 4,
    "head_dim": 8,
}
ENCODER = {key: value for key, value in LLAMA_LIKE.items() if key != "num_key_value_heads"}

# Model class -> (configuration class, options, bidirectional?)
OTHERS: dict[str, tuple[str, dict[str, Any], bool]] = {
    "OPTForCausalLM": (
        "OPTConfig",
        {**ENCODER, "ffn_dim": 64, "word_embed_proj_dim": D_MODEL, "init_std": 0.3},
        False,
    ),
    "BloomForCausalLM": ("BloomConfig", {"hidden_size": D_MODEL, "n_layer": 3, "n_head": 4}, False),
    "GraniteForCausalLM": ("GraniteConfig", {**LLAMA_LIKE, "embedding_multiplier": 3.0}, False),
    "Qwen3MoeForCausalLM": (
        "Qwen3MoeConfig",
        {**LLAMA_LIKE, "head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
        False,
    ),
    "Qwen3_5ForCausalLM": ("Qwen3_5TextConfig", {**LLAMA_LIKE, **LINEAR}, False),
    "Qwen3_5ForConditionalGeneration": ("Qwen3_5Config", {**LLAMA_LIKE, **LINEAR}, False),
    "MambaForCausalLM": ("MambaConfig", {"hidden_size": D_MODEL, "num_hidden_layers": 3, "state_size": 4}, False),
    "GPT2Model": ("GPT2Config", {"n_embd": D_MODEL, "n_layer": 3, "n_head": 4, "n_positions": CONTEXT}, False),
    "RobertaForMaskedLM": ("RobertaConfig", ENCODER, True),
    "ModernBertForMaskedLM": ("ModernBertConfig", {**ENCODER, "sep_token_id": 2, "cls_token_id": 1}, True),
}


def build(folder: Path, name: str, config: str, options: dict[str, Any]) -> Path:
    tokenizer = llama_tokenizer()
    ids = {"vocab_size": VOCAB, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    if config == "Qwen3_5Config":
        text = transformers.Qwen3_5TextConfig(**options, **ids)
        vision = {"depth": 2, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": D_MODEL}
        built = transformers.Qwen3_5Config(text_config=text.to_dict(), vision_config=vision)
    else:
        built = getattr(transformers, config)(**options, **ids)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(transformers, name)(built)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Any:
    loaded: dict[str, LanguageSubject] = {}

    def load(name: str) -> LanguageSubject:
        if name not in loaded:
            config, options, _ = OTHERS[name]
            loaded[name] = load_subject(build(tmp_path_factory.mktemp(name), name, config, options), device="cpu")
        return loaded[name]

    return load


@pytest.mark.parametrize("name", OTHERS)
def test_the_residual_stream_can_be_read_and_the_prefix_property_is_tried(name: str, other: Any) -> None:
    subject = other(name)
    proven = "proven by architecture" if name == "GPT2Model" else "checked on this model"
    assert subject.prefix == ("needs true passes" if OTHERS[name][2] else proven)
    rng = np.random.default_rng(0)
    items = [rng.integers(6, 200, size=n).astype(np.int32) for n in (3, 17, 9)]
    sites = [Site("embed"), Site("hook_resid_pre", 0), Site("hook_resid_post", subject.n_layers - 1)]
    together = subject.hidden_states(items, sites)
    for i, ids in enumerate(items):
        for t in range(len(ids)):
            row = sum(len(one) for one in items[:i]) + t
            alone = subject.hidden_states([ids[: t + 1]], sites, [np.arange(t + 1) == t])
            for site, value in alone.items():
                scale = float(together[site].abs().max())
                torch.testing.assert_close(together[site][row], value[0], rtol=0, atol=2e-5 * scale)


def test_an_mlp_that_flattens_its_items_is_read_row_by_row(other: Any) -> None:
    """OPT's MLP works on [B * S, D]."""
    subject = other("OPTForCausalLM")
    items = [np.arange(6, 6 + n, dtype=np.int32) for n in (4, 9)]
    site = Site("hook_mlp_out", 1)
    together = subject.hidden_states(items, [site])[str(site)]
    each = torch.cat([subject.hidden_states([ids], [site])[str(site)] for ids in items])
    assert together.shape == (13, D_MODEL)
    torch.testing.assert_close(together, each, rtol=0, atol=1e-5 * float(each.abs().max()))


def test_a_site_that_the_pass_never_reaches_is_an_error(other: Any) -> None:
    subject = other("GraniteForCausalLM")
    with pytest.raises(InputError) as caught:
        subject.hidden_states([np.array([5, 6], dtype=np.int32)], [Site("hook_mlp_out", 1)])
    assert str(caught.value) == (
        "The forward pass of this architecture never reaches the site blocks.1.hook_mlp_out; choose a residual site "
        "(hook_resid_pre, hook_resid_post)."
    )


def test_a_residual_stream_of_several_vectors_per_token_is_refused(tmp_path: Path) -> None:
    options = {
        **LLAMA_LIKE,
        "head_dim": 8,
        "num_kv_shared_layers": 1,
        "vocab_size_per_layer_input": VOCAB,
        "layer_types": ["sliding_attention", "full_attention", "full_attention"],
        "activation_sparsity_pattern": [0.0] * 3,
        "laurel_rank": 4,
        "hidden_size_per_layer_input": 8,
    }
    folder = build(tmp_path / "m", "Gemma3nForCausalLM", "Gemma3nTextConfig", options)
    with pytest.raises(
        InputError, match=r"blocks\.2\.hook_resid_post holds values of shape \[4, 1, 24, 32\] for 1 items"
    ):
        load_subject(folder, device="cpu")


def test_a_model_without_a_cache_generates_too(other: Any) -> None:
    subject = other("MambaForCausalLM")
    got = subject.generate("I lied to", max_new_tokens=4)
    ids = subject.tokenize(["I lied to"]).token_ids[0]
    first = int(subject.logits([ids])[0].argmax())
    assert got.new_ids[:1].tolist() == [first]
    assert len(got.new_ids) <= 4


def test_a_bare_base_model_reads_but_does_not_predict(other: Any) -> None:
    subject = other("GPT2Model")
    with pytest.raises(InputError, match=r"\(GPT2Model\) has no head that predicts tokens; take a causal model\."):
        subject.logits([np.array([5], dtype=np.int32)])


def test_ids_beyond_the_embeddings_are_an_error(other: Any) -> None:
    subject = other("OPTForCausalLM")
    with pytest.raises(InputError, match=rf"^The token id {VOCAB} is beyond the {VOCAB} embeddings of "):
        subject.hidden_states([np.array([5, VOCAB], dtype=np.int32)], [Site("embed")])
