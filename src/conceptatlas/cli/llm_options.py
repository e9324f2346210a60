"""The options by which every command reaches a language model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from conceptatlas.base.console import note, say

if TYPE_CHECKING:
    from conceptatlas.llm import ChatRequest, LLMOptions

_PANEL = "Language model"

Model = Annotated[str | None, typer.Option("--llm-model", help="The model's name.", rich_help_panel=_PANEL)]
BaseUrl = Annotated[
    str | None,
    typer.Option(
        "--llm-base-url", help="Any OpenAI-compatible endpoint; else OPENAI_BASE_URL.", rich_help_panel=_PANEL
    ),
]
LocalModel = Annotated[
    str | None,
    typer.Option(
        "--label-model", help="Run this model here instead; takes what --model takes.", rich_help_panel=_PANEL
    ),
]
Device = Annotated[
    str, typer.Option("--device", help="For --label-model: auto, cpu, cuda, mps.", rich_help_panel=_PANEL)
]
Timeout = Annotated[float, typer.Option("--llm-timeout", help="Seconds for one answer.", rich_help_panel=_PANEL)]
Retries = Annotated[
    int, typer.Option("--llm-retries", help="Further attempts after 429, 5xx or a time-out.", rich_help_panel=_PANEL)
]
Wait = Annotated[
    float, typer.Option("--llm-wait", help="Seconds before the first retry; then doubled.", rich_help_panel=_PANEL)
]
Price = Annotated[
    str | None,
    typer.Option("--llm-price", help="US$ per million prompt,answer tokens: 0.15,0.60.", rich_help_panel=_PANEL),
]
MaxTokens = Annotated[
    int | None, typer.Option("--llm-max-tokens", help="The longest answer in tokens.", rich_help_panel=_PANEL)
]
Cache = Annotated[Path | None, typer.Option("--llm-cache", help="Where answers are kept.", rich_help_panel=_PANEL)]
Concurrency = Annotated[int, typer.Option("--concurrency", help="Requests under way at once.", rich_help_panel=_PANEL)]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Print the first prompts and the number of calls; ask nothing.", rich_help_panel=_PANEL
    ),
]


def llm_options(
    *,
    model: str | None,
    base_url: str | None,
    local_model: str | None,
    device: str,
    timeout: float,
    retries: int,
    wait: float,
    price: str | None,
    cache: Path | None,
    concurrency: int,
    max_tokens: int | None,
) -> LLMOptions:
    """Gather the options of a command."""
    from conceptatlas.evidence.labels import local_model as open_local
    from conceptatlas.llm import LLMOptions

    return LLMOptions(
        model=model,
        base_url=base_url,
        local_model=None if local_model is None else open_local(local_model, device=device),
        timeout=timeout,
        retries=retries,
        first_wait=wait,
        price=price,
        cache_folder=cache,
        concurrency=concurrency,
        max_tokens=max_tokens,
    )


def show_plan(requests: Sequence[ChatRequest], *, more: str = "") -> None:
    """Print the first prompts and the number of calls."""
    for number, request in enumerate(requests[:2], start=1):
        say(f"--- prompt {number}, system\n{request.system}\n--- prompt {number}, user\n{request.user}\n")
    say(f"{len(requests)} calls would be made{more}. Nothing was asked.")


def show_usage(summary: str) -> None:
    """Print what was asked and what it cost, on stderr."""
    note(summary)
