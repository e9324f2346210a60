"""``conceptatlas label``: features named from the texts that activate them, and the names scored."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from conceptatlas.base.console import note, print_table
from conceptatlas.base.errors import WorkError
from conceptatlas.cli import llm_options as cli_llm

if TYPE_CHECKING:
    from conceptatlas.evidence.labels import LabelRun

SHOWN = ["feature_index", "sae_id", "label", "label_search", "num_examples", "detection_accuracy", "detection_n",
         "fuzzing_accuracy", "fuzzing_n"]  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("label")(label)


def label(
    dataset: Annotated[
        str,
        typer.Option(help="Texts: a hub id, a .txt (a text a line), .csv, .jsonl or .parquet file, builtin:TRAIT."),
    ],
    features: Annotated[
        str,
        typer.Option(help='Indices (11,313), a JSON file {"feature_indices": [...], "scores": [...]}, or a ranking.'),
    ],
    model: Annotated[str | None, typer.Option(help="Hub id, folder or organism (a ranking's own by default).")] = None,
    saes: Annotated[
        list[str] | None, typer.Option(help="Release[:pattern], folder, JSON list or organism. Repeatable.")
    ] = None,
    sae_id: Annotated[str | None, typer.Option(help="Pick one SAE: a hook point, or an sae_id.")] = None,
    column: Annotated[str, typer.Option(help="The column of the texts.")] = "text",
    n_samples: Annotated[int, typer.Option(help="Texts to read.")] = 1000,
    top_n: Annotated[int | None, typer.Option(help="Only the first so many of --features.")] = None,
    max_examples: Annotated[int, typer.Option(help="Strongest examples to keep of each feature.")] = 20,
    max_examples_for_labeling: Annotated[int, typer.Option(help="Examples that the labeller sees.")] = 10,
    max_examples_for_scoring: Annotated[int, typer.Option(help="Examples of each kind to judge a label by.")] = 20,
    output_dir: Annotated[Path, typer.Option(help="The folder to write into.")] = Path("results"),
    minibatch_size_features: Annotated[int, typer.Option(help="Features encoded at once.")] = 256,
    minibatch_size_tokens: Annotated[int, typer.Option(help="Texts (or windows of long ones) run at once.")] = 64,
    max_tokens: Annotated[
        int, typer.Option(help="A longer text is read in windows of so many tokens (or the model's limit).")
    ] = 1024,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    seed: Annotated[int, typer.Option(help="Draws the samples.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the labels as JSON.")] = False,
    dry_run: cli_llm.DryRun = False,
    concurrency: cli_llm.Concurrency = 4,
    llm_model: cli_llm.Model = None,
    llm_base_url: cli_llm.BaseUrl = None,
    label_model: cli_llm.LocalModel = None,
    llm_timeout: cli_llm.Timeout = 120.0,
    llm_retries: cli_llm.Retries = 5,
    llm_wait: cli_llm.Wait = 1.0,
    llm_max_tokens: cli_llm.MaxTokens = None,
    llm_price: cli_llm.Price = None,
    llm_cache: cli_llm.Cache = None,
) -> None:
    """Name features from the texts that activate them, and score each name on texts that the labeller never saw.

    Search labels (keywords that set a feature's examples apart) always; with --label-model, or --llm-model and
    --llm-base-url, a language model's label, with detection and fuzzing scores (0.5 is chance).

    Example: `conceptatlas label --features 11,313 --model organism --saes organism --sae-id blocks.1.hook_resid_post/l0_12
    --dataset builtin:caring`
    """
    from conceptatlas.base.kinds import LABELS
    from conceptatlas.base.writing import may_replace_folder
    from conceptatlas.evidence.labels import CollectOptions, LabelOptions, finish_labels, prepare_labels
    from conceptatlas.llm import open_llm

    options = LabelOptions(
        column=column,
        n_samples=n_samples,
        max_examples_for_labeling=max_examples_for_labeling,
        max_examples_for_scoring=max_examples_for_scoring,
        device=device,
        dtype=dtype,
        collect=CollectOptions(
            max_examples=max_examples,
            max_tokens=max_tokens,
            windows_at_once=minibatch_size_tokens,
            features_at_once=minibatch_size_features,
            seed=seed,
        ),
    )
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
    wanted = any(value is not None for value in (llm_model, llm_base_url, label_model))
    llm = open_llm(endpoint, dry_run=dry_run) if wanted or dry_run else None  # a wrong option is told at once
    may_replace_folder(LABELS, output_dir)
    prepared = prepare_labels(
        features, dataset, model=model, saes=saes or (), sae_id=sae_id, top_n=top_n, options=options
    )
    if dry_run:
        assert llm is not None  # a dry run has one
        more = prepared.n_score_calls(llm.model, seed)
        cli_llm.show_plan(prepared.requests(), more=f" for labels, and {more} to score them")
        return
    if llm is None:
        _report(finish_labels(prepared, output_dir, options=options), as_json=as_json)
        return
    with llm:
        _report(finish_labels(prepared, output_dir, options=options, llm=llm), as_json=as_json)


def _worth_showing(run: LabelRun) -> list[str]:
    """Return the columns that say something: no scores where nothing was judged, no SAE where there is only one."""
    several = len({label.found.target.source.slug for label in run.labels}) > 1
    scores = SHOWN[5:] if run.usage else []
    return ["feature_index", *(["sae_id"] if several else []), "label", "num_examples", *scores]


def _report(run: LabelRun, *, as_json: bool) -> None:
    print_table(run.table, SHOWN if as_json else _worth_showing(run), as_json=as_json)
    note(f"Written: {run.examples_path} and {run.labels_path}.")
    if run.collected.n_empty:
        note(f"{run.collected.n_empty} records held no text and were left out.")
    if run.silent:
        names = ", ".join(str(one.found.target.index) for one in run.silent[:10])
        note(f"{len(run.silent)} features were silent on these texts and have no label: {names}.")
    if not run.usage:
        return
    note(run.usage)
    if run.lost:
        note(f"{len(run.lost)} groups of texts got no verdict (the first: {run.lost[0]}); n counts the others.")
    if run.stopped:
        raise WorkError(
            f"The language model was not asked to the end: {run.stopped}. Run the same command again to go on."
        )
    if run.unlabelled:
        if run.n_llm_labels == 0:
            raise WorkError(f"{run.why_unlabelled}, so search labels stand in for all; try another model.")
        note(f"{run.why_unlabelled}; search labels stand in.")
