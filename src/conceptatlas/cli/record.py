"""``conceptatlas record``: one pass of the model, every SAE encoded, kept on disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from conceptatlas.base.console import note, print_table, say
from conceptatlas.base.errors import InputError

if TYPE_CHECKING:
    from conceptatlas.recording import Recording
    from conceptatlas.recording.manifest import Hidden, Keep

SAE_COLUMNS = ("release", "sae_id", "site", "d_in", "d_sae", "average_l0", "l0", "fvu", "status", "nnz")


def register(app: typer.Typer) -> None:
    """Add ``record`` to the application."""
    app.command("record")(record)


def record(
    data: Annotated[str, typer.Argument(help="A .csv or .jsonl file, builtin:TRAIT or seeds:TRAIT.")],
    model: Annotated[str, typer.Option("--model", help="A hub id, a local folder, a GGUF file, or organism.")],
    out: Annotated[Path, typer.Option("--out", help="The recording's folder.")],
    saes: Annotated[
        list[str] | None,
        typer.Option(
            "--saes", help="A release, optionally with :pattern, a folder, a JSON list, or organism. Repeatable."
        ),
    ] = None,
    keep: Annotated[str, typer.Option(help="Rows of features: all, final, or top (strongest examples only).")] = "all",
    per_feature: Annotated[int | None, typer.Option(help="With --keep top: how many examples of each feature.")] = None,
    hidden: Annotated[str, typer.Option(help="Hidden states of final rows, all rows, or none.")] = "final",
    hidden_sites: Annotated[
        str, typer.Option(help="saes (the SAEs' sites), all (every block's output), or names with commas.")
    ] = "saes",
    fragments: Annotated[str, typer.Option(help="Rows at every token, or at each word's last token.")] = "token",
    features: Annotated[str | None, typer.Option(help="Only these columns, such as 11,313.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    sae_dtype: Annotated[str, typer.Option(help="float32, or mixed (bfloat16 products, near ties again).")] = "float32",
    max_tokens: Annotated[int | None, typer.Option(help="The longest item allowed.")] = None,
    truncate: Annotated[bool, typer.Option("--truncate", help="Cut longer items; they are counted.")] = False,
    engine: Annotated[str, typer.Option(help="local or ray.")] = "local",
    ray_address: Annotated[str | None, typer.Option(help="The Ray cluster's address.")] = None,
    shard_rows: Annotated[int | None, typer.Option(help="Rows of a shard (default: from the model's size).")] = None,
    seed: Annotated[int, typer.Option(help="Of the samples that --keep top draws.")] = 0,
    group_near_duplicates: Annotated[
        bool,
        typer.Option(help="Near-duplicate items share a group, so that the split keeps them on one side."),
    ] = True,
    strict_check: Annotated[
        bool, typer.Option("--strict-check", help="An SAE that does not fit is an error, not a warning.")
    ] = False,
    skip_bad_rows: Annotated[bool, typer.Option("--skip-bad-rows", help="Drop and count bad rows.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Accepted and needless: it always resumes.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table of SAEs as JSON.")] = False,
) -> None:
    """Run the model once over graded items and encode every SAE. Running it again goes on where it stopped.

    Example: `conceptatlas record builtin:dishonesty --model organism --saes organism --out rec`
    """
    del resume
    from conceptatlas.recording import record as run

    recording = run(
        data,
        model,
        saes or [],
        out,
        keep=cast("Keep", keep),
        per_feature=per_feature,
        hidden=cast("Hidden", hidden),
        hidden_sites=hidden_sites,
        fragments=cast("Literal['token', 'word']", fragments),
        features=parse_features(features),
        device=device,
        dtype=dtype,
        sae_dtype=cast("Literal['float32', 'mixed']", sae_dtype),
        max_tokens=max_tokens,
        truncate=truncate,
        engine=engine,
        ray_address=ray_address,
        shard_rows=shard_rows,
        seed=seed,
        group_near_duplicates=group_near_duplicates,
        strict_check=strict_check,
        skip_bad_rows=skip_bad_rows,
    )
    said = {sae.message for sae in recording.saes}
    for warning in recording.manifest.warnings:
        if warning not in said:
            note(f"Note: {warning}")
    if as_json:
        print_table([sae.model_dump() for sae in recording.saes], SAE_COLUMNS, as_json=True)
        return
    print_saes(recording)
    say(f"{recording.describe()}: {out}")


def print_saes(recording: Recording) -> None:
    """Print a line per SAE: plain and aligned, so that names stay whole in a narrow terminal."""
    width = max((len(sae.name) for sae in recording.saes), default=0)
    for sae in recording.saes:
        l0 = "L0    –" if sae.l0 is None else f"L0 {sae.l0:6.1f}"
        fvu = "FVU   –" if sae.fvu is None else f"FVU {sae.fvu:.3f}"
        say(f"  {sae.name:<{width}}  {sae.d_in} → {sae.d_sae}  {l0}  {fvu}  {sae.verdict}")
    unjudged = [sae for sae in recording.saes if sae.status != "suspect" and sae.message]
    if unjudged:
        say(f"  {len(unjudged)} of {len(recording.saes)} SAEs were not judged in full: {unjudged[0].message}")


def parse_features(text: str | None) -> list[int] | None:
    """Read ``11,313`` as numbers."""
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise InputError(f"--features is {text!r}, and must be numbers with commas, such as 11,313.") from error
