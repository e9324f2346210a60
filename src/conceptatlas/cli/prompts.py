"""``conceptatlas prompts``: features at the tokens where the assistant is about to speak."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from conceptatlas.base.errors import InputError

if TYPE_CHECKING:
    from conceptatlas.prompts.run import Analysis

PromptsPath = Annotated[Path, typer.Option(help="A .jsonl file of content and label, or a folder of them.")]
Sources = Annotated[
    list[str] | None,
    typer.Option("--source", help="llama_trainer1_layer15, …, organism, or NAME=MODEL,SAES. Repeatable."),
]
Tokens = Annotated[str, typer.Option(help="Token types such as asst,newline or last (default: the template's).")]
ExtraTokens = Annotated[
    list[str] | None, typer.Option("--token", help="A type of your own: NAME=INDEX from the end, such as before=-2.")
]
System = Annotated[str | None, typer.Option(help="A system prompt.")]
EscapeControl = Annotated[bool, typer.Option("--escape-control", help="Read control strings in a prompt as text.")]
MaxTokens = Annotated[int | None, typer.Option(help="The longest prompt allowed, template included.")]
Threshold = Annotated[float, typer.Option(help="Share of the prompts on which a universal feature is active.")]
ActivationThreshold = Annotated[float, typer.Option(help="Above this activation a feature is active.")]
UniversalOutput = Annotated[Path | None, typer.Option(help="CSV of the universal features.")]
FeaturesCsv = Annotated[Path | None, typer.Option(help="CSV with feature_id and source: the features to follow.")]
SpecificOutput = Annotated[Path | None, typer.Option(help="CSV of the followed features.")]
RecordPrompts = Annotated[
    bool, typer.Option("--record-prompts", help="Also write {stem}_activeprompts.jsonl beside the specific output.")
]
By = Annotated[str | None, typer.Option(help="label: activity by label, with a test of difference.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the table as JSON.")]

SHOWN = 20


def register(app: typer.Typer) -> None:
    """Add ``prompts`` to the application."""
    prompts = typer.Typer(no_args_is_help=True, help="Features at the tokens where the assistant is about to speak.")
    for analysis in (universal, specific, both):
        prompts.command(analysis.__name__)(analysis)
    app.add_typer(prompts, name="prompts")


def universal(
    prompts_path: PromptsPath = Path("prompts"),
    source: Sources = None,
    tokens: Tokens = "",
    token: ExtraTokens = None,
    system: System = None,
    escape_control: EscapeControl = False,
    max_tokens: MaxTokens = None,
    threshold: Threshold = 0.3,
    activation_threshold: ActivationThreshold = 0.01,
    universal_output: UniversalOutput = Path("universal_features.csv"),
    by: By = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    as_json: AsJson = False,
) -> None:
    """Find the features that are active on most prompts.

    Example: `conceptatlas prompts universal --source organism --prompts-path prompts.jsonl --universal-output u.csv`
    """
    _run("universal", **locals())


def specific(
    prompts_path: PromptsPath = Path("prompts"),
    source: Sources = None,
    tokens: Tokens = "",
    token: ExtraTokens = None,
    system: System = None,
    escape_control: EscapeControl = False,
    max_tokens: MaxTokens = None,
    activation_threshold: ActivationThreshold = 0.01,
    features_csv: FeaturesCsv = None,
    specific_output: SpecificOutput = Path("specific_features.csv"),
    record_prompts: RecordPrompts = False,
    by: By = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    as_json: AsJson = False,
) -> None:
    """Follow a given list of features over all prompts.

    Example: `conceptatlas prompts specific --source organism --features-csv u.csv --specific-output s.csv`
    """
    _run("specific", **locals())


def both(
    prompts_path: PromptsPath = Path("prompts"),
    source: Sources = None,
    tokens: Tokens = "",
    token: ExtraTokens = None,
    system: System = None,
    escape_control: EscapeControl = False,
    max_tokens: MaxTokens = None,
    threshold: Threshold = 0.3,
    activation_threshold: ActivationThreshold = 0.01,
    universal_output: UniversalOutput = Path("universal_features.csv"),
    features_csv: FeaturesCsv = None,
    specific_output: SpecificOutput = Path("specific_features.csv"),
    record_prompts: RecordPrompts = False,
    by: By = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    as_json: AsJson = False,
) -> None:
    """Find the universal features, and follow a list (those just found, unless --features-csv is given).

    Example: `conceptatlas prompts both --source organism --prompts-path prompts.jsonl --record-prompts --by label`
    """
    _run("both", **locals())


def _run(
    analysis: Analysis,
    *,
    prompts_path: Path,
    source: list[str] | None,
    tokens: str,
    token: list[str] | None,
    system: str | None,
    escape_control: bool,
    max_tokens: int | None,
    activation_threshold: float,
    by: str | None,
    device: str,
    dtype: str,
    as_json: bool,
    threshold: float = 0.3,
    universal_output: Path | None = None,
    features_csv: Path | None = None,
    specific_output: Path | None = None,
    record_prompts: bool = False,
) -> None:
    from conceptatlas.base.console import note, print_table
    from conceptatlas.base.ties import strongest_first
    from conceptatlas.prompts import ChatOptions, PromptsConfig, analyse_prompts

    result = analyse_prompts(
        PromptsConfig(
            analysis=analysis,
            prompts_path=prompts_path,
            sources=tuple(source or ()),
            chat=ChatOptions(
                tokens=tuple(part.strip() for part in tokens.split(",") if part.strip()),
                extra=_extra(token or []),
                system=system,
                escape_control=escape_control,
                max_tokens=max_tokens,
                device=device,
                dtype=dtype,
            ),
            threshold=threshold,
            activation_threshold=activation_threshold,
            universal_output=universal_output,
            features_csv=features_csv,
            specific_output=specific_output,
            record_prompts=record_prompts,
            by=by,
        )
    )
    for warning in result.warnings:
        note(warning)
    if analysis == "specific":
        table = result.specific[strongest_first(result.specific["activation"].to_numpy())]
        columns = ["prompt_idx", "label", "feature_id", "activation", "source", "token"]
    else:
        table = result.universal
        columns = ["feature_id", "activation_mean", "num_prompts", "source", "token", "link"]
    print_table(table.head(table.height if as_json else SHOWN).to_dicts(), columns, as_json=as_json)
    if table.height > SHOWN and not as_json:
        note(f"{table.height - SHOWN} more rows stand in the file.")
    for path in result.written:
        note(f"Written: {path}")


def _extra(tokens: list[str]) -> tuple[tuple[str, int], ...]:
    found = []
    for one in tokens:
        name, _, index = one.partition("=")
        try:
            found.append((name, int(index)))
        except ValueError as error:
            raise InputError(f"--token {one!r} is not NAME=INDEX, such as before=-2.") from error
    return tuple(found)
