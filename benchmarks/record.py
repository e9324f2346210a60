"""Recording against the limit of the hardware, in the same process.

A Gemma-2-shaped model (d 512, 8 layers), 16 JumpReLU SAEs of 8,192 features with L0 60, 200 sentences of about 20 words:

    python -m benchmarks.record --work /tmp/bench            # five interleaved pairs of float32, and of mixed
    python -m benchmarks.record --work /tmp/bench --scaling  # time and memory over 250 … 4,000 sentences

The limit is the forward passes of the base model on the same batches plus ``x @ W_enc`` for every SAE, all weights
loaded. The ratio is wall time of the whole of ``record`` (files on disk included) over the limit's.
"""

from __future__ import annotations

import argparse
import gc
import io
import shutil
import statistics
import time
from contextlib import nullcontext, redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.record_parts import (
    Limit,
    folder_bytes,
    machine,
    make_concept,
    make_model,
    make_sae,
    peak_memory,
    sample_states,
    show,
)
from conceptatlas.recording import record
from conceptatlas.subjects import load_subject

D_MODEL, LAYERS, D_SAE, L0, SENTENCES = 512, 8, 8192, 60.0, 200


def prepare(work: Path) -> tuple[Any, list[Any]]:
    path = make_model(work / "model-512", d_model=D_MODEL, layers=LAYERS, d_mlp=2048, heads=8, kv_heads=4, d_head=64)
    subject = load_subject(str(path), device="cpu", dtype="float32")
    sites = [f"blocks.{layer}.hook_resid_post" for layer in range(LAYERS)]
    states = sample_states(subject, make_concept(SENTENCES), sites)
    sources = [
        make_sae(f"l{layer}-{copy}", layer, states[sites[layer]], D_SAE, L0, seed=2 * layer + copy)
        for layer in range(LAYERS)
        for copy in range(2)
    ]
    return subject, sources


def one_record(
    subject: Any, sources: list[Any], n_items: int, out: Path, *, watch: bool = False, **options: Any
) -> dict[str, float]:
    shutil.rmtree(out, ignore_errors=True)
    concept = make_concept(n_items)
    gc.collect()
    with peak_memory() if watch else nullcontext({"before": 0.0, "peak": 0.0}) as memory:
        begin, cpu = time.perf_counter(), time.process_time()
        with redirect_stderr(io.StringIO()):  # random SAEs reconstruct badly, and record says so
            rec = record(concept, subject, sources, out, **options)
        wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
    nnz = sum(sae.nnz for sae in rec.saes)
    return {
        "wall": wall,
        "cpu": cpu,
        "above_mb": memory["peak"] - memory["before"],
        "nnz": nnz,
        "l0": nnz / len(rec.saes) / rec.n_rows,
        "bytes_per_nonzero": folder_bytes(out) / nnz,
        "rows": rec.n_rows,
    }


def pairs(subject: Any, sources: list[Any], work: Path, sae_dtype: str, n_pairs: int) -> None:
    limit = Limit(subject, make_concept(SENTENCES), sources, sae_dtype)
    for source in sources:  # with ``mixed``, half of the weights are made when they are first asked for
        source.load_encoder("cpu", sae_dtype)
    options = {"hidden": "none", "sae_dtype": sae_dtype}
    memory = one_record(subject, sources, SENTENCES, work / "rec", watch=True, **options)
    limit.run()
    ratios, ours, bare, cpus = [], [], [], []
    for _ in range(n_pairs):
        found = one_record(subject, sources, SENTENCES, work / "rec", **options)
        cpu = time.process_time()
        least = limit.run()
        cpus.append(found["cpu"] / (time.process_time() - cpu))
        ratios.append(found["wall"] / least["wall"])
        ours.append(found["wall"])
        bare.append(least["wall"])
    show(
        f"record {sae_dtype}",
        ratio_median=round(statistics.median(ratios), 3),
        ratios=[round(ratio, 3) for ratio in ratios],
        cpu_ratio_median=round(statistics.median(cpus), 3),
        record_s=round(statistics.median(ours), 2),
        limit_s=round(statistics.median(bare), 2),
        limit_parts={key: round(value, 2) for key, value in least.items()},
        rows=found["rows"],
        rows_per_second=round(found["rows"] / statistics.median(ours)),
        l0=round(found["l0"], 1),
        bytes_per_nonzero=round(found["bytes_per_nonzero"], 2),
        above_weights_mb=round(memory["above_mb"], 1),
    )


def scaling(subject: Any, sources: list[Any], work: Path) -> None:
    one_record(subject, sources, SENTENCES, work / "rec", hidden="none")
    sizes, walls, cpus, peaks = [250, 500, 1000, 2000, 4000], [], [], []
    least = [one_record(subject, sources, 1, work / "rec", hidden="none") for _ in range(3)]
    fixed, fixed_cpu = min(one["wall"] for one in least), min(one["cpu"] for one in least)
    for size in sizes:
        found = [one_record(subject, sources, size, work / "rec", watch=i > 0, hidden="none") for i in range(2)]
        walls.append(min(one["wall"] for one in found))
        cpus.append(min(one["cpu"] for one in found))
        peaks.append(max(one["above_mb"] for one in found))
        show(
            "scaling",
            sentences=size,
            wall_s=round(walls[-1], 2),
            cpu_s=round(cpus[-1], 2),
            above_weights_mb=round(peaks[-1], 1),
        )
    slope = np.polyfit(np.log(sizes), np.log(np.array(walls) - fixed), 1)[0]
    slope_cpu = np.polyfit(np.log(sizes), np.log(np.array(cpus) - fixed_cpu), 1)[0]
    show(
        "scaling slope",
        slope=round(float(slope), 3),
        slope_of_processor_time=round(float(slope_cpu), 3),
        fixed_s=round(fixed, 3),
        peaks_mb=[round(p) for p in peaks],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="a folder for model and recordings")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--scaling", action="store_true")
    parser.add_argument("--saes", type=int, default=16, help="with --scaling: how many SAEs")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sae-dtype", choices=["float32", "mixed"], action="append")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(arguments.threads)
    show("machine", **machine())
    subject, sources = prepare(arguments.work)
    if arguments.scaling:
        scaling(subject, sources[: arguments.saes], arguments.work)
        return
    for sae_dtype in arguments.sae_dtype or ["float32", "mixed"]:
        pairs(subject, sources, arguments.work, sae_dtype, arguments.pairs)


if __name__ == "__main__":
    main()
