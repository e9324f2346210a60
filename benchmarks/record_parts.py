# ruff: noqa: D102
"""What the recording benchmarks share: a Gemma-2-shaped model of random weights, SAEs with a wanted L0, the bare limit."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from conceptatlas.concepts import Concept, build_concept
from conceptatlas.saes.architectures import Decoder
from conceptatlas.saes.encoder import Encoder, on_device, threshold_encoder
from conceptatlas.saes.mixed import to_mixed

WORDS = 3997


def make_model(folder: Path, *, d_model: int, layers: int, d_mlp: int, heads: int, kv_heads: int, d_head: int) -> Path:
    """Save a random Gemma-2 with a tokenizer of whole words, unless it is there."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import Gemma2Config, Gemma2ForCausalLM, PreTrainedTokenizerFast

    if (folder / "tokenizer.json").exists():
        return folder
    vocabulary = {"<pad>": 0, "<eos>": 1, "<bos>": 2} | {f"w{i}": i + 3 for i in range(WORDS)}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<eos>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>")
    config = Gemma2Config(
        vocab_size=WORDS + 3,
        hidden_size=d_model,
        num_hidden_layers=layers,
        intermediate_size=d_mlp,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=d_head,
        query_pre_attn_scalar=d_head,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
        attn_implementation="eager",
    )
    torch.manual_seed(0)
    Gemma2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_concept(n_items: int, *, shortest: int = 12, longest: int = 28, seed: int = 0) -> Concept:
    """Return sentences of random words, about 20 each, with random grades."""
    rng = np.random.default_rng(seed)
    texts = [
        " ".join(f"w{word}" for word in rng.integers(0, WORDS, rng.integers(shortest, longest + 1)))
        for _ in range(n_items)
    ]
    return build_concept("benchmark", texts, rng.integers(0, 4, n_items).tolist())


@dataclass
class LoadedSource:
    """An SAE whose weights are where they are used already: its loading is not what is measured."""

    slug: str
    site: str
    layer: int
    encoder: Encoder
    decoder: Decoder
    average_l0: float
    release: str = "benchmark"
    architecture: str = "jumprelu"
    l0_measured: bool = False
    neuronpedia_id: str | None = None
    model_name: str | None = None
    site_out: str | None = None
    is_row_wise: bool = True
    mixed: Encoder | None = None

    @property
    def sae_id(self) -> str:
        return self.slug

    @property
    def d_in(self) -> int:
        return self.encoder.d_in

    @property
    def d_sae(self) -> int:
        return self.encoder.d_sae

    def completed(self) -> LoadedSource:
        return self

    def load_encoder(self, device: Any = "cpu", dtype: str = "float32") -> Encoder:
        if dtype == "float32":
            return self.encoder.to(device)
        if self.mixed is None:
            self.mixed = to_mixed(self.encoder.to(device))
        return self.mixed

    def load_decoder(self, device: Any = "cpu") -> Decoder:
        return on_device(self.decoder, device)


def sample_states(subject: Any, concept: Concept, sites: list[str], most: int = 200) -> dict[str, torch.Tensor]:
    """Return hidden states of the first items, to set thresholds by."""
    from conceptatlas.subjects import Site

    tokens = subject.tokenize(concept.texts[:most])
    return subject.hidden_states(tokens.token_ids, [Site.parse(site) for site in sites], tokens.rows)


def make_sae(slug: str, layer: int, x_TD: torch.Tensor, d_sae: int, l0: float, seed: int) -> LoadedSource:
    """Return a JumpReLU SAE whose features fire at log-normal rates, about ``l0`` of them on the average row of ``x_TD``.

    Its weights are those of the seed on any device, and lie where the rows do.
    """
    device = x_TD.device
    generator = torch.Generator().manual_seed(seed)
    # Sentences differ: rows of all of them.
    x_TD = x_TD.cpu()[torch.randperm(len(x_TD), generator=generator)[:1024]].float()
    d_in = x_TD.shape[1]
    weights = torch.randn(d_in, d_sae, generator=generator) / d_in**0.5
    bias = -(x_TD.mean(dim=0) @ weights)
    rate = torch.exp(torch.randn(d_sae, generator=generator))
    rate = (rate / rate.mean() * l0 / d_sae).clamp(1e-4, 0.5)
    pre = x_TD @ weights + bias
    threshold = pre.std(dim=0) * torch.special.ndtri(1 - rate)
    low, high = 0.3, 3.0  # the states are not quite normal: one factor for all brings the mean L0 to what was asked
    for _ in range(12):
        middle = (low + high) / 2
        found = float((pre > middle * threshold).sum()) / len(pre)
        low, high = (middle, high) if found > l0 else (low, middle)
    encoder = threshold_encoder("jumprelu", weights, bias, threshold=(high * threshold).clamp(min=1e-3))
    decoder = Decoder(W_dec=weights.T.contiguous(), b_dec=torch.zeros(d_in))
    there = encoder.to(device), on_device(decoder, device)
    return LoadedSource(slug, f"blocks.{layer}.hook_resid_post", layer, *there, average_l0=l0)


def anonymous_mb() -> float:
    """Return the anonymous memory of this process, in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no RssAnon in /proc/self/status")


@contextmanager
def peak_memory() -> Iterator[dict[str, float]]:
    """Sample the anonymous memory; ``peak`` and ``before`` (MB) are filled at the end.

    What was freed before is given back first: else it would be used again and not be seen.
    """
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    found = {"before": anonymous_mb()}
    found["peak"] = found["before"]
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.004):
            found["peak"] = max(found["peak"], anonymous_mb())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done what was queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Limit:
    """Nothing but the products: the base model on the same batches, then ``x @ W_enc`` for every SAE.

    Args:
        subject: The model; everything lies on its device.
        concept: The items.
        weights_DF: The encoders' weights, which several SAEs may share.
        sae_dtype: ``mixed`` makes the products bfloat16's.
    """

    def __init__(self, subject: Any, concept: Concept, weights_DF: Sequence[torch.Tensor], sae_dtype: str) -> None:
        from conceptatlas.recording.plan import BATCH_TOKENS, batches
        from conceptatlas.subjects.capture import pad_batch

        self.subject, self.device = subject, subject.device
        tokens = subject.tokenize(concept.texts)
        order = batches([len(ids) for ids in tokens.token_ids], BATCH_TOKENS[self.device.type])
        self.batches = [
            pad_batch([tokens.token_ids[i] for i in b], [tokens.rows[i] for i in b], pad_id=0, device=self.device)
            for b in order
        ]
        n_rows = int(tokens.n_rows.sum())
        dtype = torch.bfloat16 if sae_dtype == "mixed" else torch.float32
        once = {id(weights): weights.to(self.device, dtype) for weights in weights_DF}
        self.weights = [once[id(weights)] for weights in weights_DF]
        self.x = torch.randn(n_rows, weights_DF[0].shape[0], device=self.device).to(dtype)
        widest = max(weights.shape[1] for weights in weights_DF)
        self.out = torch.empty(n_rows * widest, dtype=dtype, device=self.device)

    @torch.no_grad()
    def run(self) -> dict[str, float]:
        """Return the seconds of ``forward`` and ``encode``, and of both together (``wall``)."""
        synchronize(self.device)
        begin = time.perf_counter()
        for batch in self.batches:
            self.subject.stack.base(input_ids=batch.input_ids, use_cache=False)
        synchronize(self.device)
        middle = time.perf_counter()
        for weights in self.weights:
            shape = len(self.x), weights.shape[1]
            torch.mm(self.x, weights, out=self.out[: shape[0] * shape[1]].view(shape))
        synchronize(self.device)
        end = time.perf_counter()
        return {"forward": middle - begin, "encode": end - middle, "wall": end - begin}


def show(name: str, **figures: Any) -> None:
    """Print one result as a line of JSON."""
    print(json.dumps({"name": name, **figures}, ensure_ascii=False), flush=True)


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        "?",
    )
    found = {"cpu": model, "cores": os.cpu_count(), "torch": torch.__version__, "threads": torch.get_num_threads()}
    return found | ({"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {})
