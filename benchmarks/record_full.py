"""The full size: Gemma-2-2B's true shape with random weights, and all 135 width-16k Gemma Scope configurations.

1,000 sentences of about 20 words, the published L0 of every SAE. The SAEs are made on the fly from a few random matrices,
so that neither weights nor disk space for 40 GB of them are needed. What that takes, little, is printed: loading is not
measured.

    python -m benchmarks.record_full --work /tmp/bench --dtype bfloat16 --sae-dtype mixed
    python -m benchmarks.record_full --work /tmp/bench --dtype float32 --sae-dtype mixed
    python -m benchmarks.record_full --work /tmp/bench --dtype bfloat16 --device cuda

``--layers``, ``--sentences`` and ``--every`` make it smaller.
"""

# ruff: noqa: D102
from __future__ import annotations

import argparse
import io
import shutil
import time
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.record_parts import folder_bytes, machine, make_concept, make_model, peak_memory, sample_states, show
from conceptatlas.recording import record
from conceptatlas.saes import resolve_saes
from conceptatlas.saes.architectures import Decoder
from conceptatlas.saes.encoder import Encoder, on_device, threshold_encoder
from conceptatlas.saes.mixed import to_mixed
from conceptatlas.subjects.language import LanguageSubject
from conceptatlas.subjects.loading import Loaded, Source

D_MODEL, D_SAE, VOCABULARY = 2304, 16384, 256_000
BASES = 4
SPENT = {"making": 0.0}


def make_subject(work: Path, layers: int, dtype: str, device: str) -> LanguageSubject:
    """Return the model, made in memory; only its tokenizer is on disk."""
    from transformers import AutoTokenizer, Gemma2Config, Gemma2ForCausalLM

    tokens = make_model(work / "tokenizer-only", d_model=32, layers=1, d_mlp=32, heads=2, kv_heads=1, d_head=16)
    config = Gemma2Config(
        vocab_size=VOCABULARY,
        hidden_size=D_MODEL,
        num_hidden_layers=layers,
        intermediate_size=9216,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=256,
        query_pre_attn_scalar=256,
        attn_implementation="eager",
        dtype=getattr(torch, dtype),
    )
    torch.manual_seed(0)
    with torch.device(device):
        model = Gemma2ForCausalLM._from_config(config, dtype=getattr(torch, dtype)).eval()
    source = Source("gemma-2-2b-random", str(tokens), local=True)
    return LanguageSubject(source, Loaded(model, AutoTokenizer.from_pretrained(tokens), config, "random"))


class Base:
    """Weights that many SAEs share; together more than a cache holds, so that each SAE finds its own in memory."""

    def __init__(self, seed: int, device: torch.device, dtype: str) -> None:
        generator = torch.Generator(device=device).manual_seed(seed)
        self.W_FD = torch.randn(D_SAE, D_MODEL, generator=generator, device=device) / D_MODEL**0.5
        zeros = torch.zeros(D_SAE, device=device)
        self.encoder = threshold_encoder("jumprelu", self.W_FD.t(), zeros, threshold=zeros)
        if dtype == "mixed":
            self.encoder = to_mixed(self.encoder)

    def with_threshold(self, bias: torch.Tensor, threshold: torch.Tensor) -> Encoder:
        """Return these weights with another bias and threshold, which stand in the columns after those of bfloat16 weights."""
        encoder = replace(self.encoder, bias=bias, threshold=threshold)
        if encoder.W_low is None:
            return encoder
        low_FD, left = encoder.W_low.t().clone(), threshold - bias
        for column in range(D_MODEL, D_MODEL + 3):
            low_FD[:, column] = left
            left = left - low_FD[:, column].float()
        return replace(encoder, W_low=low_FD.t())


@dataclass
class MadeSource:
    """One SAE, made whenever it is loaded."""

    slug: str
    sae_id: str
    layer: int
    average_l0: float
    base: Base
    mean_D: torch.Tensor
    spread: float
    seed: int
    release: str = "benchmark"
    architecture: str = "jumprelu"
    l0_measured: bool = False
    neuronpedia_id: str | None = None
    model_name: str | None = None
    site_out: str | None = None
    is_row_wise: bool = True
    d_in: int = D_MODEL
    d_sae: int = D_SAE

    @property
    def site(self) -> str:
        return f"blocks.{self.layer}.hook_resid_post"

    def completed(self) -> MadeSource:
        return self

    def load_encoder(self, device: Any = "cpu", dtype: str = "float32") -> Encoder:
        del dtype  # the base has it
        begin = time.perf_counter()
        generator = torch.Generator().manual_seed(self.seed)
        rate = torch.exp(torch.randn(D_SAE, generator=generator))
        rate = (rate / rate.mean() * self.average_l0 / D_SAE).clamp(1e-5, 0.5)
        threshold = (self.spread * torch.special.ndtri(1 - rate)).clamp(min=1e-3).to(self.base.W_FD.device)
        made = self.base.with_threshold(-(self.base.W_FD @ self.mean_D), threshold)
        SPENT["making"] += time.perf_counter() - begin
        return on_device(made, device)

    def load_decoder(self, device: Any = "cpu") -> Decoder:
        return Decoder(W_dec=self.base.W_FD.to(device), b_dec=self.mean_D.to(device))


def make_sources(subject: LanguageSubject, layers: int, every: int, sae_dtype: str) -> list[MadeSource]:
    published = resolve_saes(["gemma-scope-2b-pt-res:layer_*/width_16k/*"], complete=False)[::every]
    bases = [Base(seed, subject.device, sae_dtype) for seed in range(1, 1 + BASES)]
    used = [source for source in published if source.layer is not None and source.layer < layers]
    sites = sorted({f"blocks.{source.layer}.hook_resid_post" for source in used})
    states = sample_states(subject, make_concept(40, seed=9), sites)
    sources = []
    for number, source in enumerate(used):
        x = states[source.site].float()
        centred = x - x.mean(dim=0)
        spread = float(centred.square().sum(dim=1).mean().sqrt()) / D_MODEL**0.5
        sources.append(
            MadeSource(
                source.slug, source.sae_id, int(source.layer or 0), float(source.average_l0 or 50),
                bases[number % BASES], x.mean(dim=0), spread, number,
            )
        )  # fmt: skip
    return sources


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--sae-dtype", choices=["float32", "mixed"], default="mixed")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--layers", type=int, default=26)
    parser.add_argument("--sentences", type=int, default=1000)
    parser.add_argument("--every", type=int, default=1, help="take every n-th SAE only")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.work.mkdir(parents=True, exist_ok=True)
    show("machine", **machine())
    subject = make_subject(arguments.work, arguments.layers, arguments.dtype, arguments.device)
    sources = make_sources(subject, arguments.layers, arguments.every, arguments.sae_dtype)
    concept = make_concept(arguments.sentences)
    out = arguments.work / "full"
    shutil.rmtree(out, ignore_errors=True)
    with peak_memory() as memory, redirect_stderr(io.StringIO()):
        begin = time.perf_counter()
        rec = record(concept, subject, sources, out, hidden="final", sae_dtype=arguments.sae_dtype)
        wall = time.perf_counter() - begin
    nnz = sum(sae.nnz for sae in rec.saes)
    show(
        f"full size {arguments.dtype}, SAEs {arguments.sae_dtype}, {arguments.device}",
        wall_s=round(wall, 1),
        making_saes_s=round(SPENT["making"], 1),
        rows=rec.n_rows,
        saes=len(rec.saes),
        shards=len(rec.manifest.plan.shards),
        row_saes_per_second=round(rec.n_rows * len(rec.saes) / wall),
        mean_l0=round(nnz / rec.n_rows / len(rec.saes), 1),
        gigabytes_on_disk=round(folder_bytes(out) / 1e9, 2),
        peak_anonymous_gb=round(memory["peak"] / 1024, 2),
        above_model_gb=round((memory["peak"] - memory["before"]) / 1024, 2),
    )
    shutil.rmtree(out)


if __name__ == "__main__":
    main()
