"""Chat prompts against the bare forward passes, in the same process: 1,000 prompts of about 200 tokens, a Llama-shaped model.

    python benchmarks/prompts.py [--prompts 1000] [--pairs 3]

What is timed is everything after loading: rendering, tokenising, the passes, the encoders of two SAEs and the tables.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from conceptatlas.prompts.analysis import universal_rows
from conceptatlas.prompts.data import Prompt
from conceptatlas.prompts.reading import BATCH_TOKENS, ChatOptions, Reading, encode_prompts, header_states
from conceptatlas.prompts.sources import Source
from conceptatlas.saes import encode_rows, resolve_saes
from conceptatlas.subjects import load_subject
from conceptatlas.subjects.chat import ChatFormat
from tests.helpers.tiny_models import tiny_model
from tests.helpers.tiny_saes import write_saelens

WIDTH, LAYERS, FEATURES = 512, 8, 8192


def main() -> None:
    """Print the ratio of the analysis to the bare passes, pair by pair."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shape = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "intermediate_size": 4 * WIDTH,
                 "num_attention_heads": 8, "num_key_value_heads": 8, "head_dim": 64,
                 "max_position_embeddings": 2048}  # fmt: skip
        subject = load_subject(str(tiny_model("llama", folder / "model", **shape)), device="cpu")
        write_saelens(folder / "sae", "jumprelu", d_in=WIDTH, d_sae=FEATURES)
        (sae,) = resolve_saes([str(folder / "sae")])
        encoder = sae.load_encoder("cpu")
        source = Source("llama_trainer1_layer1", "llama", "llama", sae)
        words = ["the", "quick", "brown", "fox", "nobody", "minds", "what", "would", "you", "have", "done"]
        rng = np.random.default_rng(0)
        prompts = [Prompt(" ".join(rng.choice(words, 104)), "x") for _ in range(options.prompts)]
        chat = ChatFormat(subject.tokenizer, name="llama")
        last = f"blocks.{LAYERS - 1}.hook_resid_post"

        def analysis() -> float:
            start = time.perf_counter()
            types = chat.check_types(ChatOptions().tokens)
            encoded = encode_prompts(chat, prompts, types, limit=None)
            states = header_states(subject, encoded, types, [sae.site, last])
            for site in (sae.site, last):
                columns = encode_rows(states[site], encoder)
                universal_rows(
                    Reading(source, types, columns, len(prompts), [], ""), threshold=0.3, activation_threshold=0.01
                )
            return time.perf_counter() - start

        encoded = encode_prompts(chat, prompts, ["last"], limit=None)
        lengths = [len(prompt.ids) for prompt in encoded]
        order = np.argsort([-length for length in lengths], kind="stable")

        @torch.no_grad()
        def limit() -> float:
            start = time.perf_counter()
            at = 0
            while at < len(order):
                batch = order[at : at + max(1, BATCH_TOKENS // lengths[order[at]])]
                at += len(batch)
                ids = torch.zeros(len(batch), lengths[batch[0]], dtype=torch.long)
                for row, number in enumerate(batch):
                    ids[row, : lengths[number]] = torch.from_numpy(encoded[number].ids.astype(np.int64))
                subject.hf_model.model(input_ids=ids, use_cache=False)
            return time.perf_counter() - start

        limit()
        pairs = [(analysis(), limit()) for _ in range(options.pairs)]
    print(f"{len(prompts)} prompts of {np.mean(lengths):.0f} tokens on average, {options.threads} threads")
    for ours, bare in pairs:
        print(f"analysis {ours:.2f} s, bare passes {bare:.2f} s, ratio {ours / bare:.3f}")
    print(f"median ratio {median(ours / bare for ours, bare in pairs):.3f}")


if __name__ == "__main__":
    main()
