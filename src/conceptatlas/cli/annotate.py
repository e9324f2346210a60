"""``conceptatlas annotate``: sentences graded 0–3 by a language model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from conceptatlas.base.console import note, print_table, say
from conceptatlas.base.errors import WorkError
from conceptatlas.cli import llm_options as cli_llm

if TYPE_CHECKING:
    from conceptatlas.concepts.annotating import Annotation


def register(app: typer.Typer) -> None:
    """Add ``annotate`` to the application."""
    app.command("annotate")(annotate)


def annotate(
    sentences: Annotated[
        str, typer.Argument(help="A .txt file (one sentence a line), .csv, .jsonl or a built-in set.")
    ],
    concept: Annotated[str, typer.Option(help="The concept's name; built-in traits bring their rubric.")],
    out: Annotated[Path, typer.Option(help="The CSV to write.")],
    describe: Annotated[str | None, typer.Option(help="What the concept is.")] = None,
    rubric: Annotated[Path | None, typer.Option(help="A file with the rubric for grades 0 to 3.")] = None,
    batch_size: Annotated[int, typer.Option(help="Sentences in one question.")] = 20,
    votes: Annotated[int, typer.Option(help="Independent grades each; the median counts. Odd.")] = 1,
    skip_bad_rows: Annotated[bool, typer.Option("--skip-bad-rows", help="Drop and count bad rows.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
    dry_run: cli_llm.DryRun = False,
    concurrency: cli_llm.Concurrency = 4,
    llm_model: cli_llm.Model = None,
    llm_base_url: cli_llm.BaseUrl = None,
    label_model: cli_llm.LocalModel = None,
    device: cli_llm.Device = "auto",
    llm_timeout: cli_llm.Timeout = 120.0,
    llm_retries: cli_llm.Retries = 5,
    llm_wait: cli_llm.Wait = 1.0,
    llm_max_tokens: cli_llm.MaxTokens = None,
    llm_price: cli_llm.Price = None,
    llm_cache: cli_llm.Cache = None,
) -> None:
    """Grade sentences 0–3 by a rubric with a language model; where there are human labels, tell how far it agrees.

    A sentence without a valid grade goes to OUT.unlabelled.csv with the reason, never a default grade.
    Run again, only what is missing is asked.

    Example: `conceptatlas annotate sentences.txt --concept bravery --out bravery.csv --llm-model gpt-4o-mini`
    """
    from conceptatlas.concepts.annotating import AnnotateOptions, plan_annotation
    from conceptatlas.concepts.annotating import annotate as run
    from conceptatlas.llm import open_llm

    endpoint = cli_llm.llm_options(
        model=llm_model,
        base_url=llm_base_url,
        local_model=label_model,
        device=device,
        timeout=llm_timeout,
        retries=llm_retries,
        wait=llm_wait,
        price=llm_price,
        cache=llm_cache,
        concurrency=concurrency,
        max_tokens=llm_max_tokens,
    )
    options = AnnotateOptions(
        concept=concept,
        describe=describe,
        rubric=rubric,
        batch_size=batch_size,
        votes=votes,
        skip_bad_rows=skip_bad_rows,
        cache_folder=llm_cache,
    )
    with open_llm(endpoint, dry_run=dry_run) as llm:
        if dry_run:
            cli_llm.show_plan(plan_annotation(sentences, options=options, llm=llm))
            return
        done = run(sentences, out, options=options, llm=llm)
    _report(done, as_json=as_json)


def _report(done: Annotation, *, as_json: bool) -> None:
    outcome = {
        "labelled": done.table.height,
        "unlabelled": done.unlabelled.height,
        "skipped": done.n_skipped,
        "kappa": done.agreement.kappa,
        "agreement_n": done.agreement.n,
        "out": str(done.out),
    }
    print_table([outcome], list(outcome), as_json=as_json)
    if done.agreement.n and not as_json:
        say(done.agreement.sentence())
    cli_llm.show_usage(done.usage)
    if done.unlabelled_out is not None:
        note(
            f"{done.unlabelled.height} sentences got no valid grade; they are in {done.unlabelled_out}, with the reasons."
        )
    fail_if_unfinished(done.stopped, done.table.height, done.unlabelled)


def fail_if_unfinished(stopped: str, labelled: int, unlabelled: object) -> None:
    """End with exit code 1 where the model could not be asked to the end, or graded nothing at all.

    Raises:
        WorkError: So it is.
    """
    if stopped:
        raise WorkError(f"The language model was not asked to the end: {stopped}. Run the same command again to go on.")
    if not labelled:
        reason = unlabelled["reason"][0]  # type: ignore[index]
        raise WorkError(
            f"No sentence got a valid grade (the first: {reason}); try another model, or a smaller --batch-size."
        )
