"""Tiny random models of every family, with tokenizers that add BOS as the family does. Made offline, in under a second.

>>> path = tiny_model("gemma2", tmp_path)  # a folder that `from_pretrained` and `load_subject` read
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "The quick brown fox jumps over the lazy dog, and nobody minds.",
    "She told him that the bag was new when it was old; he believed her.",
    "I lied to my friend about the money, then I said that I was sorry.",
    "They carried the stranger home through the rain without a word.",
    "A brave child went back for the cat. The house was already burning!",
    "What would you have done? Nothing, said the man, and shut the door.",
]

D_MODEL, N_LAYERS, N_HEADS, D_HEAD, D_MLP, VOCAB, CONTEXT = 32, 3, 4, 8, 64, 400, 128
WINDOW = 8


def _bpe(specials: list[str], *, metaspace: bool) -> Tokenizer:
    if metaspace:
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
        alphabet: list[str] = []
        specials = [*specials, *(f"<0x{i:02X}>" for i in range(256))]
        size = VOCAB + 200
    else:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        size = VOCAB
    named = [s for s in specials if not s.startswith("<0x")]
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=specials, initial_alphabet=alphabet, show_progress=False, min_frequency=1
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return _without_specials(tokenizer, named) if metaspace else tokenizer


def _without_specials(tokenizer: Tokenizer, named: list[str]) -> Tokenizer:
    """Make the byte tokens ordinary vocabulary, as in SentencePiece models; only ``named`` stay special."""
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] in named]
    return Tokenizer.from_str(json.dumps(state))


def _prepend(tokenizer: Tokenizer, token: str) -> Tokenizer:
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{token} $A", pair=f"{token} $A {token} $B", special_tokens=[(token, tokenizer.token_to_id(token))]
    )
    return tokenizer


def gemma_tokenizer() -> PreTrainedTokenizerFast:
    """<pad> 0, <eos> 1, <bos> 2 (added), turns as control tokens and a template."""
    raw = _prepend(
        _bpe(["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"], metaspace=True), "<bos>"
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>"
    )
    tokenizer.chat_template = (
        "{{ bos_token }}{% for message in messages %}<start_of_turn>"
        "{{ 'model' if message.role == 'assistant' else message.role }}\n{{ message.content }}<end_of_turn>\n"
        "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
    )
    return tokenizer


def llama_tokenizer() -> PreTrainedTokenizerFast:
    """Llama 3's way: byte-level, <|begin_of_text|> added, header tokens and a template."""
    names = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    raw = _prepend(_bpe(["!!", *names], metaspace=False), names[0])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token=names[0], eos_token=names[1])
    tokenizer.chat_template = (
        "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message.role }}<|end_header_id|>\n\n"
        "{{ message.content }}<|eot_id|>{% endfor %}{% if add_generation_prompt %}"
        "<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
    )
    return tokenizer


def mistral_tokenizer() -> PreTrainedTokenizerFast:
    """Llama 2's and Mistral's way: <unk> 0, <s> 1 (added), </s> 2."""
    raw = _prepend(_bpe(["<unk>", "<s>", "</s>"], metaspace=True), "<s>")
    return PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def qwen_tokenizer() -> PreTrainedTokenizerFast:
    """No BOS at all; <|endoftext|> pads, <|im_end|> ends; a template."""
    raw = _bpe(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], metaspace=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.chat_template = (
        "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    return tokenizer


def gpt2_tokenizer() -> PreTrainedTokenizerFast:
    """<|endoftext|> is BOS, EOS and UNK, and is not added; its id is the last of the vocabulary."""
    raw = _bpe([], metaspace=False)
    raw.add_special_tokens(["<|endoftext|>"])
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token=end, eos_token=end, unk_token=end)


def neox_tokenizer() -> PreTrainedTokenizerFast:
    """<|endoftext|> is BOS and EOS with id 0, and is not added (Pythia)."""
    end = "<|endoftext|>"
    raw = _bpe([end, "<|padding|>"], metaspace=False)
    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token=end, eos_token=end)


def phi3_tokenizer() -> PreTrainedTokenizerFast:
    """<s> is named but not added; chat tags are control tokens."""
    raw = _bpe(["<unk>", "<s>", "<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>"], metaspace=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        add_bos_token=False,
    )


def bert_tokenizer() -> PreTrainedTokenizerFast:
    """[CLS] … [SEP]."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    raw = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    raw.normalizer = normalizers.BertNormalizer(lowercase=True)
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    raw.decoder = decoders.WordPiece()
    raw.train_from_iterator(
        CORPUS, trainers.WordPieceTrainer(vocab_size=VOCAB, special_tokens=names, show_progress=False)
    )
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", raw.token_to_id("[CLS]")), ("[SEP]", raw.token_to_id("[SEP]"))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def _shape() -> dict[str, Any]:
    """The sizes under the names that Llama-like configurations use. A large init makes attention far from uniform."""
    return {
        "hidden_size": D_MODEL,
        "num_hidden_layers": N_LAYERS,
        "num_attention_heads": N_HEADS,
        "num_key_value_heads": 2,
        "head_dim": D_HEAD,
        "intermediate_size": D_MLP,
        "max_position_embeddings": CONTEXT,
        "initializer_range": 0.3,
    }


def _mha_shape() -> dict[str, Any]:
    """The same for families in which every head has keys of its own."""
    return {key: value for key, value in _shape().items() if key not in ("num_key_value_heads", "head_dim")}


@dataclass(frozen=True)
class Family:
    """How to build one family: its tokenizer, its model class and the arguments of its configuration."""

    tokenizer: Callable[[], PreTrainedTokenizerFast]
    model_class: str
    config_class: str
    options: dict[str, Any] = field(default_factory=dict)
    llama_like: bool = True


def _gemma3_text() -> dict[str, Any]:
    return {"query_pre_attn_scalar": D_HEAD, "sliding_window": WINDOW, "sliding_window_pattern": 2}


_LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * (D_HEAD // 2),
    "long_factor": [1.0, 2.0, 4.0, 8.0],
    "original_max_position_embeddings": 12,
}

FAMILIES: dict[str, Family] = {
    "gemma2": Family(
        gemma_tokenizer,
        "Gemma2ForCausalLM",
        "Gemma2Config",
        {
            "query_pre_attn_scalar": D_HEAD,
            "sliding_window": WINDOW,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 5.0,
        },
    ),
    "gemma3": Family(gemma_tokenizer, "Gemma3ForCausalLM", "Gemma3TextConfig", _gemma3_text()),
    "gemma3_conditional": Family(gemma_tokenizer, "Gemma3ForConditionalGeneration", "Gemma3Config", _gemma3_text()),
    "llama": Family(llama_tokenizer, "LlamaForCausalLM", "LlamaConfig"),
    "mistral": Family(mistral_tokenizer, "MistralForCausalLM", "MistralConfig", {"sliding_window": WINDOW}),
    "qwen2": Family(qwen_tokenizer, "Qwen2ForCausalLM", "Qwen2Config"),
    "qwen3": Family(qwen_tokenizer, "Qwen3ForCausalLM", "Qwen3Config"),
    "phi3": Family(
        phi3_tokenizer,
        "Phi3ForCausalLM",
        "Phi3Config",
        {"rope_parameters": _LONGROPE, "original_max_position_embeddings": 12, "partial_rotary_factor": 1.0},
    ),
    "gpt2": Family(
        gpt2_tokenizer,
        "GPT2LMHeadModel",
        "GPT2Config",
        {"n_embd": D_MODEL, "n_layer": N_LAYERS, "n_head": N_HEADS, "n_positions": CONTEXT, "initializer_range": 0.3},
        llama_like=False,
    ),
    "gpt_neox": Family(
        neox_tokenizer,
        "GPTNeoXForCausalLM",
        "GPTNeoXConfig",
        {**_mha_shape(), "rotary_pct": 0.5, "use_parallel_residual": True},
        llama_like=False,
    ),
    "bert": Family(bert_tokenizer, "BertForMaskedLM", "BertConfig", _mha_shape(), llama_like=False),
}


def _config(family: Family, tokenizer: PreTrainedTokenizerFast) -> Any:
    ids = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    options = {**(_shape() if family.llama_like else {}), **ids, **family.options}
    if family.config_class == "Gemma3Config":
        vision = {
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": N_LAYERS,
            "num_attention_heads": 2,
            "image_size": 8,
            "patch_size": 4,
        }
        return transformers.Gemma3Config(
            text_config=transformers.Gemma3TextConfig(**options), vision_config=vision, mm_tokens_per_image=4
        )
    return getattr(transformers, family.config_class)(**options)


def build_model(family: str, *, seed: int = 0, **options: Any) -> tuple[Any, PreTrainedTokenizerFast]:
    """Return a tiny random (model, tokenizer) of ``family``; ``options`` override the configuration's."""
    spec = FAMILIES[family]
    spec = Family(spec.tokenizer, spec.model_class, spec.config_class, {**spec.options, **options}, spec.llama_like)
    tokenizer = spec.tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(transformers, spec.model_class)(_config(spec, tokenizer))
        _shake_norms_and_biases(model)
    return model.eval(), tokenizer


def _shake_norms_and_biases(model: torch.nn.Module) -> None:
    """Move norm gains and biases off their initial 1 and 0, so that a test sees whether they were applied."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))


def tiny_model(family: str, folder: Path, *, seed: int = 0, **options: Any) -> Path:
    """Save a tiny random model of ``family`` (a key of ``FAMILIES``) with its tokenizer; return its folder.

    Built once per ``folder``, family, seed and options: a second call finds it there.
    """
    parts = [family, f"seed{seed}", *(f"{key}-{value}" for key, value in sorted(options.items()))]
    path = folder / "_".join(parts).replace("/", "-").replace(" ", "")[:120]
    if not (path / "tokenizer.json").exists():
        model, tokenizer = build_model(family, seed=seed, **options)
        level = logging.getLogger("transformers").level
        logging.getLogger("transformers").setLevel(logging.ERROR)
        model.save_pretrained(path)
        tokenizer.save_pretrained(path)
        logging.getLogger("transformers").setLevel(level)
    return path
