"""The figures of docs/scale.md, worked out again from the constants that it states."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from conceptatlas.recording.fold import FOLD_SHARDS
from conceptatlas.recording.plan import shard_rows_for

DOCS = Path(__file__).parents[2] / "docs"

# What the document states.
LAYERS, WIDTH, D_SAE, SAES, L0, BYTES = 26, 2304, 16384, 135, 119.07, 8.29
PARAMETERS, EMBEDDING = 2_614_341_888, 256_000 * WIDTH
SENTENCES, TOKENS = 10_000_000, 20
CPU_ROWS, CPU_SECONDS = 20_194, 243
BFLOAT16, FLOAT32 = 400e12, 50e12
SUMMARY_SECONDS, FOLD_SECONDS, SUMMARY_MB, TOP_BYTES, PLAN_BYTES = 0.32, 0.05, 7.3, 403, 165

rows = SENTENCES * TOKENS
weights = PARAMETERS - EMBEDDING
forward, sae = 2 * weights, 2 * WIDTH * D_SAE
encoders = SAES * sae
row_bytes = SAES * L0 * BYTES
shard_rows = shard_rows_for(4 * PARAMETERS, 4 * LAYERS * WIDTH)
shards = rows / shard_rows
everything = rows * (forward + encoders)
final = rows * forward + SENTENCES * encoders
in_float32 = rows * forward / BFLOAT16 + rows * encoders / FLOAT32
final_in_float32 = rows * forward / BFLOAT16 + SENTENCES * encoders / FLOAT32
summaries = SAES * (SUMMARY_SECONDS + FOLD_SECONDS)


@pytest.fixture(scope="module")
def text() -> str:
    return re.sub(r"\s+", " ", (DOCS / "scale.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "figure",
    [
        f"2 × {weights / 1e9:.2f} billion weights (no embedding, no LM head) | {forward / 1e9:.1f} GFLOP",
        f"2 × 2,304 × 16,384 | {sae / 1e9:.4f} GFLOP",
        f"| 135 SAEs | | {encoders / 1e9:.1f} GFLOP",
        f"135 × published mean L0 of {L0} × {BYTES} bytes | {row_bytes / 1e3:.0f} kB",
        f"for one row of {TOKENS} | {row_bytes / TOKENS / 1e3:.1f} kB a row",
        f"are the work: {encoders / (forward + encoders):.0%} of it",
        f"{2 * PARAMETERS / 1e9:.1f} GB here, {shard_rows:,.0f}"[:-2] + "00 rows of 26 sites",
        f"{SAES * WIDTH * D_SAE * 4 / 1e9:.0f} GB of encoders",
        f"{rows / 1e6:.0f} million rows: {everything / 1e18:.1f} × 10¹⁸ floating-point operations, "
        f"{round(shards, -2):,.0f} shards",
        f"| operations | {everything / 1e18:.1f} × 10¹⁸ | {final / 1e17:.1f} × 10¹⁷ |",
        f"`mixed` | {rows * CPU_SECONDS / CPU_ROWS / 3600:.0f} hours | not measured | "
        f"{rows * CPU_SECONDS / CPU_ROWS / 3600:.0f} hours, and "
        f"{summaries / (2 * shard_rows * CPU_SECONDS / CPU_ROWS):.0%} for summaries |",
        f"400 TFLOP/s (bfloat16, `mixed`) | {everything / BFLOAT16 / 3600:.1f} hours | "
        f"{final / BFLOAT16 / 3600:.1f} hours | {everything / BFLOAT16 / 3600:.1f} hours |",
        f"50 TFLOP/s (`float32`) | {in_float32 / 3600:.1f} hours | {final_in_float32 / 3600:.1f} hours | "
        f"{in_float32 / 3600:.1f} hours |",
        f"| features on disk | {rows * row_bytes / 1e12:.0f} TB | {SENTENCES * row_bytes / 1e12:.1f} TB | "
        f"{SAES * D_SAE * TOP_BYTES / 1e9:.1f} GB |",
        f"27 sites | {SENTENCES * (LAYERS + 1) * WIDTH * 4 / 1e12:.1f} TB",
        f"{CPU_ROWS:,} rows × {SAES} SAEs in {CPU_SECONDS} s",
        f"a shard takes {shard_rows * (forward + encoders) / BFLOAT16:.1f} s, "
        f"and its {shard_rows * row_bytes / 1e9:.1f} GB of columns",
        f"{SUMMARY_SECONDS} s for an SAE and a shard, and its folding {FOLD_SECONDS} s (measured: "
        f"{shard_rows * L0 / 1e6:.1f} million activations): {summaries:.0f} s for the 135 SAEs of a shard, or "
        f"{shards * summaries / 3600:.0f} hours of one core",
        f"at most {PLAN_BYTES} bytes a row (measured): {rows * PLAN_BYTES / 1e9:.0f} GB here",
        f"recordings of a million sentences ({1e6 * TOKENS * PLAN_BYTES / 1e9:.1f} GB each)",
        f"need more memory, {4 * LAYERS * WIDTH / 1e3:.0f} kB a row here",
        f"at 1 GB/s, {rows * row_bytes / 1e9 / 3600:.1f} hours for {rows * row_bytes / 1e12:.0f} TB",
        f"{SUMMARY_MB} MB for an SAE and a shard of 21,800 rows, {SAES * SUMMARY_MB / 1e3:.1f} GB for 135 of them",
        f"Eight shards' summaries wait on the disk, {FOLD_SHARDS * SAES * SUMMARY_MB / 1e3:.1f} GB",
        f"4 bytes each: {4 * LAYERS * rows / 1e9:.0f} GB here",
    ],
)
def test_figure(figure: str, text: str) -> None:
    assert figure in text


def test_published_sparsity() -> None:
    from conceptatlas.saes import resolve_saes

    published = resolve_saes(["gemma-scope-2b-pt-res:layer_*/width_16k/*"], complete=False)
    assert len(published) == SAES
    assert np.mean([source.average_l0 for source in published]) == pytest.approx(L0, abs=0.005)


def test_measured_figures_are_those_of_the_benchmarks() -> None:
    measured = (DOCS / "benchmarks.md").read_text(encoding="utf-8")
    for figure in (f"{BYTES} bytes a nonzero", f"{CPU_ROWS:,} rows", f"{CPU_SECONDS} s"):
        assert figure in measured
