"""``conceptatlas info``: what a recording holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from conceptatlas.base.console import say
from conceptatlas.cli.record import print_saes

if TYPE_CHECKING:
    from conceptatlas.recording import Recording


def register(app: typer.Typer) -> None:
    """Add ``info`` to the application."""
    app.command("info")(info)


def info(
    rec: Annotated[Path, typer.Argument(help="A recording's folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")] = False,
) -> None:
    """Say what a recording holds: data, model, options, and every SAE with its self-check.

    Example: `conceptatlas info rec`
    """
    from conceptatlas.recording import Recording

    recording = Recording.open(rec)
    if as_json:
        say(recording.manifest.model_dump_json(indent=2))
        return
    _print(recording)


def _print(recording: Recording) -> None:
    found = recording.manifest
    subject, plan, options = found.subject, found.plan, found.options
    size = sum(check.bytes for check in found.all_files().values())
    say(recording.describe())
    facts = f"{subject.model_class}, {subject.dtype}, {subject.attention} attention, {subject.prefix}"
    say(f"  model     {subject.id} ({facts})")
    say(
        f"  data      {found.concept.name}, hash {found.concept.data_hash[:12]}, {found.concept.skipped} bad rows left out"
    )
    say(f"  rows      {plan.n_rows} of {plan.n_tokens} tokens, {plan.truncated} items cut, {len(plan.shards)} shards")
    say(f"  options   keep {options.keep}, hidden {options.hidden}, fragments {options.fragments}, {options.sae_dtype}")
    say(f"  hidden    {', '.join(recording.hidden_sites) or 'none'}")
    say(f"  on disk   {size / 1e6:.1f} MB")
    for warning in found.warnings:
        say(f"  warning   {warning}")
    print_saes(recording)
