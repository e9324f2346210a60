"""Edits from a site upwards against the products that cannot be avoided, and against whole passes with a hook.

    python -m benchmarks.effect [--small] [--edits 12] [--items 16] [--tokens 24] [--threads 1]

The model is randomly initialised, in the shape of a Llama of 135 million parameters (30 blocks, width 576, vocabulary 49,152);
``--small`` takes 6 blocks of width 256 and 4,096 tokens. The limit: every weight matrix of the blocks above the site times all
tokens, and the unembedding times the rows that are read.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median
from types import SimpleNamespace

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from conceptatlas.evidence.edits import steer_each
from conceptatlas.evidence.measuring import Items
from conceptatlas.evidence.readout import LanguageOutputs, Shown
from conceptatlas.subjects import LanguageSubject, Site
from conceptatlas.subjects.above import TOKENS_AT_ONCE
from tests.helpers.tiny_models import llama_tokenizer


def build(*, small: bool) -> LanguageSubject:
    """Return the random model as a subject."""
    blocks, width, inner, vocabulary = (6, 256, 704, 4096) if small else (30, 576, 1536, 49152)
    config = LlamaConfig(
        hidden_size=width, num_hidden_layers=blocks, intermediate_size=inner, vocab_size=vocabulary,
        num_attention_heads=width // 64, num_key_value_heads=max(1, width // 192), head_dim=64, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval()
    loaded = SimpleNamespace(model=model, tokenizer=llama_tokenizer(), text_config=config, revision="random")
    source = SimpleNamespace(id="random llama", location="random llama")
    return LanguageSubject(source, loaded)  # type: ignore[arg-type]


def timed(run: Callable[[], object]) -> float:
    """Return how long a call takes, in seconds."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    """Print seconds per (edit, item), and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--edits", type=int, default=12)
    parser.add_argument("--items", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    subject = build(small=options.small)
    layer = subject.n_layers // 2 - 1
    site = f"blocks.{layer}.hook_resid_post"
    rng = np.random.default_rng(0)
    everywhere = np.ones(options.tokens, dtype=bool)
    shown = [
        Shown(rng.integers(10, 300, options.tokens).astype(np.int32), everywhere, everywhere)
        for _ in range(options.items)
    ]
    items = Items(LanguageOutputs(subject), shown, site, [40, 41])
    _ = items.base
    vectors = torch.randn(options.edits, subject.d_model)
    pairs = options.edits * options.items
    above = subject.stack.layers[layer + 1 :]
    weights = [module.weight for block in above for module in block.modules() if isinstance(module, torch.nn.Linear)]
    head = subject.hf_model.get_output_embeddings().weight
    inputs = {w.shape[1]: torch.randn(TOKENS_AT_ONCE, w.shape[1]) for w in [*weights, head]}

    @torch.no_grad()
    def limit() -> None:
        left = pairs * options.tokens
        while left > 0:
            now = min(left, TOKENS_AT_ONCE)
            for weight in weights:
                torch.nn.functional.linear(inputs[weight.shape[1]][:now], weight)
            torch.nn.functional.linear(inputs[head.shape[1]][: max(1, now // options.tokens)], head)
            left -= now

    def before() -> None:
        for vector in vectors:
            with subject.edited(Site.parse(site), lambda x, vector=vector: x + vector):
                subject.logits([one.ids for one in shown]).log_softmax(-1)

    limit()
    rounds = [
        (timed(lambda: items.moved(steer_each(vectors))), timed(limit), timed(before)) for _ in range(options.repeats)
    ]
    ours, bare, whole = (median(times) for times in zip(*rounds, strict=True))
    print(f"{subject.n_layers} blocks, width {subject.d_model}, site {site}, {pairs} pairs of {options.tokens} tokens")
    for name, seconds in (("edits from the site", ours), ("products alone", bare), ("whole passes", whole)):
        print(f"{name}: {1000 * seconds / pairs:.2f} ms a pair")
    print(f"ratio to the limit {ours / bare:.2f}; whole passes {whole / bare:.2f}; gain {whole / ours:.2f}")


if __name__ == "__main__":
    main()
