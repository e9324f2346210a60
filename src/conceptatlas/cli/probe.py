"""``conceptatlas probe``: classifiers and regressors on states, embeddings and features."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer

HELP = """Probes: can states, embeddings or features predict a feature or the concept?

Example: conceptatlas probe prepare --strategy hidden-to-concept --rec REC --layer 2 --out x.npz, then
conceptatlas probe train x.npz --model logistic --name first --out RUNS
"""

RecOption = Annotated[Path, typer.Option("--rec", help="The recording.")]
TargetLayer = Annotated[int | None, typer.Option(help="Layer of the SAE of the feature to predict.")]
TargetFeature = Annotated[int | None, typer.Option(help="Index of the feature to predict.")]
SaeOption = Annotated[str | None, typer.Option("--sae", help="The SAE (slug or sae_id), where a layer has several.")]
Normalize = Annotated[str, typer.Option(help="standardize, minmax or none; fitted on the training items.")]
PoolOption = Annotated[str, typer.Option("--pool", help="One sample per item: final, max or mean over its rows.")]
RowsOption = Annotated[str, typer.Option("--rows", help="items, or all: every row is a sample (split by item).")]
HookOption = Annotated[str | None, typer.Option(help="Which hook, where a layer was recorded at several.")]
TestSplit = Annotated[float, typer.Option(help="Share of groups that test; above 0.")]
HoldoutBy = Annotated[
    str | None, typer.Option(help="Test on whole values of this column of the data, as rank --holdout-by does.")
]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="A YAML configuration.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def register(app: typer.Typer) -> None:
    """Add ``probe`` and its commands to ``app``."""
    probe = typer.Typer(help=HELP, no_args_is_help=True)
    for name, command in (
        ("prepare", prepare),
        ("train", train),
        ("sweep", sweep),
        ("compare", compare),
        ("predict", predict),
        ("new", new),
    ):
        probe.command(name)(command)
    app.add_typer(probe, name="probe")


def prepare(
    strategy: Annotated[
        str,
        typer.Option(help="embedding-to-feature, hidden-to-feature, hidden-to-concept or feature-to-concept."),
    ],
    rec: RecOption,
    out: Annotated[Path, typer.Option("--out", help="The .npz to write.")],
    layer: Annotated[int | None, typer.Option("--layer", help="One input layer.")] = None,
    layers: Annotated[str | None, typer.Option("--layers", help="Input layers, such as 0-2,10,15-17.")] = None,
    input_layer: Annotated[int | None, typer.Option(help="The input layer, beside --target-layer.")] = None,
    target_layer: TargetLayer = None,
    target_feature: TargetFeature = None,
    sae: SaeOption = None,
    k: Annotated[int, typer.Option("--k", help="Features that feature-to-concept chooses on training items.")] = 10,
    normalize: Normalize = "standardize",
    pool: PoolOption = "final",
    rows: RowsOption = "items",
    hook: HookOption = None,
    test_split: TestSplit = 0.2,
    holdout_by: HoldoutBy = None,
    cv_folds: Annotated[int, typer.Option(help="Folds in which feature-to-concept chooses its features.")] = 5,
    seed: Annotated[int, typer.Option(help="Seed of these folds.")] = 0,
    as_json: Json = False,
) -> None:
    """Prepare a data set: inputs, targets, and a split that keeps groups whole.

    Example: conceptatlas probe prepare --strategy hidden-to-concept --rec REC --layers 0-2 --out x.npz
    """
    from conceptatlas.base.console import note, print_table
    from conceptatlas.base.errors import InputError
    from conceptatlas.probes import prepare_probe

    given: list[Any] = [each for each in (layer, layers, input_layer) if each is not None]
    if len(given) > 1:
        raise InputError("--layer, --layers and --input-layer all say which layers are the input; give one of them.")
    data = prepare_probe(
        rec,
        out,
        strategy=strategy,
        layers=given[0] if given else None,
        target_layer=target_layer,
        target_feature=target_feature,
        sae=sae,
        k=k,
        normalize=normalize,
        pool=pool,
        rows=cast('Literal["items", "all"]', rows),
        hook=hook,
        test_split=test_split,
        holdout_by=holdout_by,
        cv_folds=cv_folds,
        seed=seed,
    )
    row = {
        "strategy": data.strategy.name,
        "samples": len(data.y),
        "train": len(data.train_index),
        "test": len(data.test_index),
        "columns": data.X.shape[1],
        "normalize": data.scaler.method,
        "file": str(out),
    }
    print_table([row], list(row), as_json=as_json)
    note(f"Next: conceptatlas probe train {out} --model logistic --name NAME --out RUNS")


def train(
    data: Annotated[Path, typer.Argument(help="A data set that prepare made.")],
    name: Annotated[str, typer.Option("--name", help="What to call the version.")],
    out: Annotated[Path, typer.Option("--out", help="The folder of versions.")],
    model: Annotated[str | None, typer.Option("--model", help="logistic, random_forest or svm.")] = None,
    config: ConfigOption = None,
    message: Annotated[str, typer.Option("--message", help="Why this version; it goes into its README.")] = "",
    mlflow: Annotated[str | None, typer.Option("--mlflow", help="Log to this MLflow experiment, too.")] = None,
    as_json: Json = False,
) -> None:
    """Train a probe and keep it as the next version.

    Example: conceptatlas probe train x.npz --model logistic --name first --out RUNS
    """
    from conceptatlas.base.console import note, print_table
    from conceptatlas.probes import train_probe

    run = train_probe(data, out, name=name, model=model, config=config, message=message, mlflow=mlflow)
    results = run.results
    rows: list[dict[str, Any]] = [
        {"figure": f"cv_{results['cv_metric']}", "value": results["cv_mean"], "low": None, "high": None}
    ]
    for key, bounds in results["intervals"].items():
        low, high = bounds or (None, None)
        rows.append({"figure": key, "value": results[key], "low": low, "high": high})
    shuffled = results["controls"]["shuffled"]
    if shuffled["scores"]:
        rows.append({"figure": f"test_{shuffled['metric']}_of_shuffled", "value": shuffled["mean"]})
    print_table(rows, ["figure", "value", "low", "high"], title=run.version, as_json=as_json)
    for sentence in results["notes"]:
        note(f"Note: {sentence}")
    note(f"Written to {run.path}.")


def sweep(
    rec: RecOption,
    strategy: Annotated[str, typer.Option(help="hidden-to-concept or hidden-to-feature.")] = "hidden-to-concept",
    out: Annotated[Path | None, typer.Option("--out", help="Folder for table and curve.")] = None,
    layers: Annotated[str | None, typer.Option("--layers", help="Only these, such as 0-2,10; all by default.")] = None,
    target_layer: TargetLayer = None,
    target_feature: TargetFeature = None,
    sae: SaeOption = None,
    model: Annotated[str | None, typer.Option("--model", help="logistic, random_forest or svm.")] = None,
    config: ConfigOption = None,
    normalize: Normalize = "standardize",
    pool: PoolOption = "final",
    rows: RowsOption = "items",
    hook: HookOption = None,
    test_split: TestSplit = 0.2,
    holdout_by: HoldoutBy = None,
    workers: Annotated[int | None, typer.Option(help="Processes; by default one per core where it pays.")] = None,
    as_json: Json = False,
) -> None:
    """Train one probe per layer: where does the answer emerge? With its control on shuffled targets.

    Example: conceptatlas probe sweep --rec REC --strategy hidden-to-concept --out SWEEP
    """
    from conceptatlas.base.console import note, print_table
    from conceptatlas.probes import sweep_probes

    swept = sweep_probes(
        rec,
        out,
        strategy=strategy,
        layers=layers,
        target_layer=target_layer,
        target_feature=target_feature,
        sae=sae,
        model=model,
        config=config,
        normalize=normalize,
        pool=pool,
        rows=cast('Literal["items", "all"]', rows),
        hook=hook,
        test_split=test_split,
        holdout_by=holdout_by,
        workers=workers,
    )
    columns = ["layer", "metric", "cv_mean", "cv_std", "test", "test_low", "test_high", "train", "shuffled_mean"]
    print_table(swept.table.to_dicts(), columns, as_json=as_json)
    for sentence in swept.facts["notes"]:
        note(f"Note: {sentence}")
    note(f"Best by cross-validation: layer {swept.facts['best_layer']}.")
    if swept.path is not None:
        note(f"Written to {swept.path}.")


def compare(
    runs: Annotated[Path, typer.Argument(help="The folder of versions.")],
    detailed: Annotated[bool, typer.Option("--detailed", help="Add changes against the parent or the first.")] = False,
    versions: Annotated[
        list[str] | None, typer.Option("--versions", help="Only these (repeatable, or several after it).")
    ] = None,
    more: Annotated[
        list[str] | None, typer.Argument(help="Further versions for --versions.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare versions; where cross-validation and test differ by more than five points, say so.

    Example: conceptatlas probe compare RUNS --detailed --versions v1_a v2_b
    """
    from conceptatlas.base.console import note, print_table
    from conceptatlas.probes import compare_probes

    named = [*(versions or []), *(more or [])]
    found = compare_probes(runs, versions=named or None, detailed=detailed)
    rows = found.table.to_dicts()
    if as_json:
        print_table(rows, found.table.columns, as_json=True)
    else:
        print_table([{head: row[key] for key, head in _SHORT.items()} for row in rows], list(_SHORT.values()))
        changed = [row for row in rows if row.get("against") is not None]
        if changed:
            print_table(changed, ["version", "against", "delta_cv", "delta_test", "changed"], title="Changes")
    for sentence in found.notes:
        note(f"Note: {sentence}")


# Columns of the comparison that fit a terminal of 80 characters, and their heads.
_SHORT = {
    "version": "version",
    "model": "model",
    "metric": "metric",
    "cv_mean": "cv",
    "test": "test",
    "gap_cv_test": "cv-test",
    "gap_train_test": "train-test",
    "flag": "flag",
}


def predict(
    run: Annotated[Path, typer.Argument(help="The version's folder, such as RUNS/v1_first.")],
    sentences: Annotated[
        Path | None, typer.Argument(help="A .txt with one sentence per line, a .csv or a .jsonl.")
    ] = None,
    text: Annotated[list[str] | None, typer.Option("--text", help="A sentence itself. Repeatable.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="The subject, where it is no longer where it was.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    as_json: Json = False,
) -> None:
    """Run new sentences through the subject and a probe, with the calibration of the probe beside.

    Example: conceptatlas probe predict RUNS/v1_first sentences.txt
    """
    from conceptatlas.base.console import note, print_table
    from conceptatlas.base.errors import InputError
    from conceptatlas.probes import predict_probe

    if (sentences is None) == (text is None):
        raise InputError("Give the sentences in a file, or with --text: one of the two.")
    given = sentences if sentences is not None else text or []
    said = predict_probe(run, given, model=model, device=device)
    print_table(said.table.to_dicts(), said.table.columns, as_json=as_json)
    for sentence in said.notes:
        note(f"Note: {sentence}")
    calibration = said.calibration
    if calibration is None:
        return
    if not as_json:
        title = f"Calibration on the probe's test part: probability of {calibration['curve_of']}"
        print_table(calibration["reliability"], ["low", "high", "n", "mean_probability", "observed"], title=title)
    note(
        f"Brier score on the test part {calibration['brier']:.3f} "
        f"(always saying the class shares: {calibration['brier_of_class_shares']:.3f})."
    )


def new(
    runs: Annotated[Path, typer.Argument(help="The folder of versions.")],
    source: Annotated[str, typer.Option("--from", help="The version whose configuration to copy, such as v2_x.")],
    out: Annotated[Path, typer.Option("--out", help="The configuration to write.")],
) -> None:
    """Copy the configuration of a version forward, to be edited and trained with --config.

    Example: conceptatlas probe new RUNS --from v2_x --out next.yaml
    """
    from conceptatlas.base.console import note, say
    from conceptatlas.probes import new_config

    new_config(runs, source, out)
    say(str(out))
    note(f"Edit it, then: conceptatlas probe train DATA.npz --config {out} --name NAME --out {runs}")
