"""``conceptatlas images``: the laboratory of an SAE on a digit classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from conceptatlas.base.console import note, print_table
from conceptatlas.base.errors import InputError

COLUMNS = [
    "target_actives",
    "achieved_actives_val",
    "lambda",
    "baseline_acc",
    "recon_acc_jumprelu",
    "recon_acc_boolean",
    "threshold_shift",
    "recon_acc_after_shift",
]


def register(app: typer.Typer) -> None:
    """Add ``images`` to the application."""
    images = typer.Typer(
        no_args_is_help=True, help="An SAE on a digit classifier, where input patterns can be looked at."
    )
    images.command("run")(run)
    images.command("demo")(demo)
    app.add_typer(images, name="images")


def run(
    dataset: Annotated[str, typer.Option(help="digits, mnist, a folder of IDX files, or an .npz file.")] = "digits",
    ffn: Annotated[str, typer.Option(help="The hidden layer: relu or geglu.")] = "relu",
    hidden_dim: Annotated[int, typer.Option(help="Its width.")] = 128,
    latents: Annotated[int, typer.Option(help="The SAE's width.")] = 512,
    target_l0: Annotated[str, typer.Option(help="Wanted active latents; one SAE for each.")] = "20,40",
    normalize: Annotated[bool, typer.Option(help="Standardise the pre-activations for the SAE.")] = True,
    epochs_ffn: Annotated[int, typer.Option(help="Passes of the classifier (120 batches at least).")] = 3,
    epochs_sae: Annotated[int, typer.Option(help="Passes of each SAE (1,000 batches at least).")] = 5,
    topk: Annotated[int, typer.Option(help="Strongest examples kept for each feature.")] = 20,
    n_eval: Annotated[int, typer.Option(help="Images over which logit effects are measured.")] = 1000,
    batch_size: Annotated[int, typer.Option(help="Images a step.")] = 512,
    features: Annotated[str, typer.Option(help="Which features to draw: all, or a list such as 3,17.")] = "all",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of the split, the initialisations and the batches.")] = 42,
    out: Annotated[Path, typer.Option(help="Folder for the artefacts.")] = Path("artifacts_mnist_sae"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Train a classifier and an SAE on its hidden layer; report fidelity and every feature's evidence.

    Example: `conceptatlas images run --dataset digits --target-l0 20 --out digits_lab`
    """
    from conceptatlas.images import LaboratoryConfig, run_laboratory
    from conceptatlas.subjects import choose_device

    try:
        targets = tuple(float(part) for part in target_l0.split(","))
    except ValueError as error:
        raise InputError(f"--target-l0 {target_l0!r} is not a list of numbers such as 20,40.") from error
    config = LaboratoryConfig(
        dataset=dataset,
        ffn=ffn,  # type: ignore[arg-type]
        hidden_dim=hidden_dim,
        latents=latents,
        target_l0=targets,
        normalize=normalize,
        epochs_ffn=epochs_ffn,
        epochs_sae=epochs_sae,
        topk=topk,
        n_eval=n_eval,
        batch_size=batch_size,
        features=features,
        device=str(choose_device(device)),
        seed=seed,
    )
    laboratory = run_laboratory(config, out)
    print_table([summary.as_json() for summary in laboratory.summaries], COLUMNS, as_json=as_json)
    note(
        f"Every feature's evidence: {laboratory.folder / 'hypotheses.md'}, {laboratory.folder / 'feature_report.json'}"
    )


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the artefacts.")] = Path("artifacts_digits_demo"),
    topk: Annotated[int, typer.Option(help="Strongest examples kept for each feature.")] = 20,
    n_eval: Annotated[int, typer.Option(help="Images over which logit effects are measured.")] = 1000,
) -> None:
    """Run only the analysis, on the digit classifier and SAE that ship with the package.

    Example: `conceptatlas images demo --out digits_demo`
    """
    from conceptatlas.images import run_demo

    found = run_demo(out, top_k=topk, n_eval=n_eval)
    firing = sum(entry.mean_active > 0 for entry in found)
    note(f"{firing} of {len(found)} features fire on the test images: {out / 'hypotheses.md'}")
