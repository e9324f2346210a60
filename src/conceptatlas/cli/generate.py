"""``conceptatlas generate``: a data set written by a language model from a few seeds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from conceptatlas.base.console import note, print_table, say
from conceptatlas.cli import llm_options as cli_llm
from conceptatlas.cli.annotate import fail_if_unfinished

if TYPE_CHECKING:
    from conceptatlas.concepts.generating import Generated


def register(app: typer.Typer) -> None:
    """Add ``generate`` to the application."""
    app.command("generate")(generate)


def generate(
    concept: Annotated[str, typer.Option(help="The concept's name; built-in traits bring rubric and seeds.")],
    out: Annotated[Path, typer.Option(help="The CSV to write.")],
    seed_file: Annotated[str | None, typer.Option(help="Graded examples; a trait's own where not given.")] = None,
    label3_count: Annotated[int, typer.Option(help="Texts wanted of grade 3, seeds not counted.")] = 300,
    label2_count: Annotated[int, typer.Option(help="Texts wanted of grade 2.")] = 250,
    label1_count: Annotated[int, typer.Option(help="Texts wanted of grade 1.")] = 150,
    label0_count: Annotated[int, typer.Option(help="Texts wanted of grade 0.")] = 100,
    describe: Annotated[str | None, typer.Option(help="What the concept is.")] = None,
    rubric: Annotated[Path | None, typer.Option(help="A file with the rubric for grades 0 to 3.")] = None,
    batch_size: Annotated[int, typer.Option(help="Texts in one question.")] = 20,
    votes: Annotated[int, typer.Option(help="Independent grades of each text; the median counts. Odd.")] = 1,
    seed: Annotated[int, typer.Option(help="Draws the examples and settings of each question.")] = 0,
    plot: Annotated[Path | None, typer.Option(help="The PNG of the grades; beside OUT where not given.")] = None,
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
    """Write a graded data set with a language model: written per grade, then graded without regard to the aim.

    Near-duplicates are dropped and topped up. The labeller's grade wins over the one aimed at. Run again, it goes on.

    Example: `conceptatlas generate --concept bravery --label3-count 30 --label2-count 30 --label1-count 30
    --label0-count 30 --out bravery.csv --llm-base-url http://localhost:11434/v1 --llm-model qwen3`
    """
    from conceptatlas.concepts.generating import GenerateOptions, plan_generation
    from conceptatlas.concepts.generating import generate as run
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
    options = GenerateOptions(
        concept=concept,
        counts={3: label3_count, 2: label2_count, 1: label1_count, 0: label0_count},
        seeds=seed_file,
        describe=describe,
        rubric=rubric,
        batch_size=batch_size,
        votes=votes,
        seed=seed,
        cache_folder=llm_cache,
    )
    with open_llm(endpoint, dry_run=dry_run) as llm:
        if dry_run:
            requests, grading = plan_generation(options=options, llm=llm)
            cli_llm.show_plan(requests, more=f" to write, and about {grading} to grade")
            return
        done = run(out, options=options, llm=llm)
    _plot(done, concept, plot)
    _report(done, as_json=as_json)


def _plot(done: Generated, concept: str, plot: Path | None) -> None:
    from conceptatlas.concepts import load_concept
    from conceptatlas.concepts.plots import plot_distribution
    from conceptatlas.concepts.writing import beside

    path = plot or beside(done.out, "distribution.png")
    seeds = (done.table["origin"] == "seed").to_list()
    parts = {"seeds": seeds, "generated": [not seed for seed in seeds]}
    plot_distribution(load_concept(done.out, name=concept), path, parts=parts)
    note(f"Plot: {path}")


def _report(done: Generated, *, as_json: bool) -> None:
    seeds = done.table.filter(done.table["origin"] == "seed")["concept_strength_label"].to_list()
    aimed = done.table.filter(done.table["origin"] == "generated")["intended_label"].to_list()
    rows = [
        {
            "grade": grade,
            "wanted": done.wanted.get(grade, 0),
            "got": done.got[grade],
            "aimed at and graded": aimed.count(grade),
            "seeds": seeds.count(grade),
        }
        for grade in sorted(done.got, reverse=True)
    ]
    print_table(rows, list(rows[0]), as_json=as_json)
    if not as_json:
        say(f"The labeller and the seeds' own labels: {done.agreement.sentence()}")
    note(f"{done.duplicates} near-duplicates were dropped.")
    cli_llm.show_usage(done.usage)
    for grade in done.gave_up:
        note(
            f"Grade {grade}: {done.got[grade]} of {done.wanted[grade]}; the model gave no more that are new and graded so. "
            "Try another model, other seeds, or --describe."
        )
    if done.unlabelled_out is not None:
        note(f"{done.unlabelled.height} texts got no valid grade; they are in {done.unlabelled_out}, with the reasons.")
    if sum(done.wanted.values()):
        _fail_if_nothing(done)


def _fail_if_nothing(done: Generated) -> None:
    from conceptatlas.base.errors import WorkError

    if not done.stopped and not done.table.height - len(done.table.filter(done.table["origin"] == "seed")):
        if done.unlabelled.height:
            fail_if_unfinished("", 0, done.unlabelled)
        raise WorkError("The language model wrote no usable sentence; try another model or a smaller --batch-size.")
    fail_if_unfinished(done.stopped, 1, done.unlabelled)
