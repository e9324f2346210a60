"""``conceptatlas train``: SAEs of one's own, at several sites, widths and sparsities from one forward pass."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from conceptatlas.base.console import print_table, say
from conceptatlas.base.errors import InputError

if TYPE_CHECKING:
    from conceptatlas.training import Card, Estimate

_UNITS = {"": 1, "k": 1_000, "m": 1_000_000, "b": 1_000_000_000}


def register(app: typer.Typer) -> None:
    """Add ``train`` to the application."""
    app.command("train")(train)


def train(
    model: Annotated[str, typer.Option("--model", help="A hub id, a local folder, or organism.")],
    text: Annotated[
        str,
        typer.Option(
            "--text", help="A text, CSV, JSONL, Parquet or .csv.zst file, a folder, a hub data set, or sae-probes."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="The folder of the SAEs.")],
    layers: Annotated[
        str | None, typer.Option(help="Blocks with commas, such as 3,7: SAEs of the residual stream after them.")
    ] = None,
    sites: Annotated[
        str | None, typer.Option(help="Sites with commas, such as blocks.3.hook_resid_post,blocks.3.hook_mlp_out.")
    ] = None,
    width: Annotated[str, typer.Option(help="Latents of an SAE; several with commas.")] = "4096",
    k: Annotated[str | None, typer.Option(help="Active latents a row; several with commas [default: 32].")] = None,
    l1: Annotated[
        str | None, typer.Option(help="Weights of the L1 penalty, for standard and gated, which have no k.")
    ] = None,
    architecture: Annotated[
        str, typer.Option(help="batchtopk, topk, matryoshka_batchtopk, jumprelu, gated or standard.")
    ] = "batchtopk",
    control: Annotated[
        bool, typer.Option("--control", help="Train the frozen-decoder control of each SAE as well.")
    ] = False,
    tokens: Annotated[str, typer.Option(help="Rows that each SAE is trained on, such as 5M or 100k.")] = "5M",
    context: Annotated[int, typer.Option(help="Tokens of a context; none holds two texts.")] = 128,
    batch: Annotated[int, typer.Option(help="Rows of a step.")] = 2048,
    lr: Annotated[float | None, typer.Option(help="Learning rate (default: from the width).")] = None,
    buffer_rows: Annotated[str, typer.Option(help="Rows of each site in memory at a time.")] = "65536",
    buffer_dtype: Annotated[str, typer.Option(help="How they are kept: float32 or bfloat16.")] = "float32",
    column: Annotated[str, typer.Option(help="The column of the text.")] = "text",
    eval_contexts: Annotated[int, typer.Option(help="Held-out contexts that are measured on, at most.")] = 200,
    checkpoint_minutes: Annotated[float, typer.Option(help="How often a checkpoint is written.")] = 5.0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    dtype: Annotated[str, typer.Option(help="The model's: auto, float32, bfloat16 or float16.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of initial weights and of the order of rows.")] = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it takes (memory, disk, time), and train nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Train SAEs on a model's activations, all from one forward pass. Running it again goes on where it stopped.

    Example: `conceptatlas train --model organism --text builtin:dishonesty --layers 2 --width 256 --tokens 20k --out saes`
    """
    from conceptatlas.training import TrainOptions, estimate_training
    from conceptatlas.training import train as run
    from conceptatlas.training.card import COLUMNS, table_rows

    options = TrainOptions(
        sites=_sites(layers, sites),
        widths=tuple(int(value) for value in _numbers("--width", width)),
        k=_numbers("--k", k),
        l1=_numbers("--l1", l1),
        architecture=architecture,
        control=control,
        tokens=read_count("--tokens", tokens),
        context=context,
        batch=batch,
        lr=lr,
        buffer_rows=read_count("--buffer-rows", buffer_rows),
        buffer_dtype=buffer_dtype,
        column=column,
        eval_contexts=eval_contexts,
        checkpoint_minutes=checkpoint_minutes,
        seed=seed,
    )
    if dry_run:
        _say_estimate(estimate_training(model, text, options, device=device, dtype=dtype), as_json=as_json)
        return
    cards = run(model, text, out, options, device=device, dtype=dtype)
    if as_json:
        print_table(table_rows(cards), COLUMNS, as_json=True)
        return
    _say_cards(cards)
    say(f"{len(cards)} SAEs: {out}. Next: conceptatlas record DATA --model {model} --saes {out} --out rec")


def read_count(option: str, text: str) -> int:
    """Read a number such as ``5M``, ``100k`` or ``65536``."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kmb]?)", text.strip().lower().replace(",", "").replace("_", ""))
    if match is None:
        raise InputError(f"{option} is {text!r}, and must be a number such as 5M, 100k or 65536.")
    return int(float(match[1]) * _UNITS[match[2]])


def _numbers(option: str, text: str | None) -> tuple[float, ...]:
    """Read ``16,32`` as numbers."""
    try:
        return tuple(float(part) for part in (text or "").split(",") if part.strip())
    except ValueError as error:
        raise InputError(f"{option} is {text!r}, and must be numbers with commas, such as 16,32.") from error


def _sites(layers: str | None, sites: str | None) -> tuple[str, ...]:
    """Return the sites of ``--layers`` and ``--sites`` together."""
    found = [f"blocks.{int(layer)}.hook_resid_post" for layer in _numbers("--layers", layers)]
    return (*found, *(site.strip() for site in (sites or "").split(",") if site.strip()))


def _say_cards(cards: Sequence[Card]) -> None:
    """Print a line per SAE: plain and aligned, so that names stay whole in a narrow terminal."""
    longest = max(len(card.sae_id) for card in cards)
    for card in cards:
        found = card.quality
        recovered = "–" if found.loss_recovered is None else f"{found.loss_recovered:.3f}"
        say(
            f"  {card.sae_id:<{longest}}  FVU {found.fvu:.3f}  L0 {found.l0:5.1f}  dead {card.dead:4.0%}  "
            f"loss recovered {recovered}"
        )


def _say_estimate(found: Estimate, *, as_json: bool) -> None:
    if as_json:
        fields = (
            "n_saes",
            "steps",
            "memory_bytes",
            "model_bytes",
            "buffer_bytes",
            "sae_bytes",
            "disk_bytes",
            "seconds",
        )
        print_table([{name: getattr(found, name) for name in fields}], fields, as_json=True)
        return
    say(f"{found.n_saes} SAEs, {found.steps:,} steps each.")
    say(
        f"Memory: about {_gib(found.memory_bytes)} (model {_gib(found.model_bytes)}, buffer {_gib(found.buffer_bytes)}, "
        f"SAEs {_gib(found.sae_bytes)}), beside the program and the forward pass itself."
    )
    say(f"Disk: at most {_gib(found.disk_bytes)}.")
    say(
        f"Time: about {_minutes(found.seconds)} (forward passes {_minutes(found.forward_seconds)}, "
        f"SAEs {_minutes(found.sae_seconds)}), from a short timing on this machine."
    )


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def _minutes(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"
