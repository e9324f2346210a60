"""The laboratory, end to end: classifier → pre-activations → SAE at a wanted L0 → fidelity → every feature's evidence."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from conceptatlas.base.errors import InputError
from conceptatlas.base.files import ensure_folder, write_json
from conceptatlas.base.kinds import IMAGES
from conceptatlas.base.progress import Bar, progress_bar
from conceptatlas.base.provenance import write_run
from conceptatlas.base.writing import writing
from conceptatlas.evidence.edits import reconstruct, reconstruct_boolean
from conceptatlas.images.analysis import analyse_features
from conceptatlas.images.saved import MODELS_FILE, save_pair
from conceptatlas.saes.training import TrainingPlan, mean_l0, shift_thresholds, train_jumprelu
from conceptatlas.subjects.images import SITE, ImageData, ImageSubject, Kind, load_images, train_classifier
from conceptatlas.subjects.protocol import Edit

# Of the images to train on, the share on which thresholds are shifted and L0 is judged.
VALIDATION_SHARE = 0.15


@dataclass(frozen=True)
class LaboratoryConfig:
    """One run of the laboratory; see ``conceptatlas images run --help``.

    Attributes:
        dataset: ``digits``, ``mnist``, a folder of IDX files, or an ``.npz``.
        ffn: The hidden layer: ``relu`` or ``geglu``.
        hidden_dim: Its width.
        latents: The SAE's width.
        target_l0: The wanted mean numbers of active latents; one SAE is trained for each.
        normalize: Standardise the pre-activations for the SAE.
        epochs_ffn: Passes of the classifier's training.
        epochs_sae: Passes of each SAE's final training.
        topk: Strongest examples kept for each feature.
        n_eval: Images over which logit effects are measured.
        batch_size: Images a step.
        features: Which features are drawn: ``all``, or a list of indices.
        device: Where it runs.
        seed: Of the split, the initialisations and the batches.
    """

    dataset: str = "digits"
    ffn: Kind = "relu"
    hidden_dim: int = 128
    latents: int = 512
    target_l0: tuple[float, ...] = (20.0, 40.0)
    normalize: bool = True
    epochs_ffn: int = 3
    epochs_sae: int = 5
    topk: int = 20
    n_eval: int = 1000
    batch_size: int = 512
    features: str = "all"
    device: str = "cpu"
    seed: int = 42

    def __post_init__(self) -> None:
        """Reject what cannot be, before any training."""
        if self.ffn not in ("relu", "geglu"):
            raise InputError(f"There is no hidden layer {self.ffn!r}; --ffn is relu or geglu.")
        for target in self.target_l0:
            TrainingPlan(d_sae=self.latents, target_l0=target)
        self.drawn_features()

    def drawn_features(self) -> list[int]:
        """Return the indices of the features to draw.

        Raises:
            InputError: Not ``all`` and not a list of indices within the SAE.
        """
        if self.features == "all":
            return list(range(self.latents))
        try:
            chosen = [int(part) for part in self.features.split(",")]
        except ValueError as error:
            raise InputError(f"--features {self.features!r} is neither all nor a list such as 3,17,40.") from error
        for index in chosen:
            if not 0 <= index < self.latents:
                raise InputError(f"There is no feature {index}; the SAE has the features 0 to {self.latents - 1}.")
        return chosen


@dataclass(frozen=True)
class TargetSummary:
    """The figures of one SAE: one entry of ``summary.json``."""

    target_actives: float
    achieved_actives_val: float
    lambda_: float
    baseline_acc: float
    recon_acc_jumprelu: float
    recon_acc_boolean: float
    delta_acc_jumprelu: float
    delta_acc_boolean: float
    threshold_shift: float
    recon_acc_after_shift: float
    recon_acc_boolean_after_shift: float
    actives_before_shift: float
    sae_latents: int
    normalize_z: bool

    def as_json(self) -> dict[str, Any]:
        """Return the entry as JSON says it (``lambda`` is no name in Python)."""
        return {("lambda" if key == "lambda_" else key): value for key, value in asdict(self).items()}


@dataclass(frozen=True)
class Laboratory:
    """A finished run: the subject, the SAE of each target, and the figures.

    Attributes:
        subject: The classifier with its standardisation.
        data: The images.
        saes: The SAE of each target, thresholds shifted.
        summaries: Likewise its figures.
        folder: Where the artefacts lie.
    """

    subject: ImageSubject
    data: ImageData
    saes: tuple[Any, ...]
    summaries: tuple[TargetSummary, ...]
    folder: Path


@torch.no_grad()
def accuracy(subject: ImageSubject, data: ImageData, edit: Edit | None = None) -> float:
    """Return the accuracy on the test images, with the pre-activations passed through ``edit``."""
    device = subject.mean.device
    images = torch.from_numpy(data.test_images).to(device)
    labels = torch.from_numpy(data.test_labels).to(device)
    return float((subject.outputs(images, site=SITE, edit=edit).argmax(1) == labels).float().mean())


def _subject(config: LaboratoryConfig, data: ImageData) -> ImageSubject:
    model = train_classifier(
        data,
        kind=config.ffn,
        hidden_dim=config.hidden_dim,
        epochs=config.epochs_ffn,
        batch_size=config.batch_size,
        seed=config.seed,
        device=torch.device(config.device),
    )
    z = model.preactivations(torch.from_numpy(data.train_images).to(config.device))
    if not config.normalize:
        return ImageSubject(model, torch.zeros_like(z[0]), torch.ones_like(z[0]))
    return ImageSubject(model, z.mean(0), z.std(0).clamp(min=1e-6))


def _train_target(
    config: LaboratoryConfig, subject: ImageSubject, data: ImageData, target: float, baseline: float
) -> tuple[Any, TargetSummary]:
    acts = subject.activations(torch.from_numpy(data.train_images).to(config.device))
    order = torch.randperm(len(acts), generator=torch.Generator().manual_seed(config.seed))
    n_validation = max(1, round(VALIDATION_SHARE * len(acts)))
    validation, training = acts[order[:n_validation]], acts[order[n_validation:]]
    plan = TrainingPlan(
        d_sae=config.latents,
        target_l0=target,
        epochs=config.epochs_sae,
        batch_size=config.batch_size,
        seed=config.seed,
    )
    trained = train_jumprelu(training, plan)
    sae = trained.sae
    before = mean_l0(sae, validation)
    jumprelu = accuracy(subject, data, reconstruct(sae))
    boolean = accuracy(subject, data, reconstruct_boolean(sae))
    shift = shift_thresholds(sae, validation, target)
    summary = TargetSummary(
        target_actives=target,
        achieved_actives_val=mean_l0(sae, validation),
        lambda_=trained.l0_coefficient,
        baseline_acc=baseline,
        recon_acc_jumprelu=jumprelu,
        recon_acc_boolean=boolean,
        delta_acc_jumprelu=jumprelu - baseline,
        delta_acc_boolean=boolean - baseline,
        threshold_shift=shift,
        recon_acc_after_shift=accuracy(subject, data, reconstruct(sae)),
        recon_acc_boolean_after_shift=accuracy(subject, data, reconstruct_boolean(sae)),
        actives_before_shift=before,
        sae_latents=config.latents,
        normalize_z=config.normalize,
    )
    return sae, summary


def run_laboratory(config: LaboratoryConfig, out: Path | str) -> Laboratory:
    """Run the whole laboratory and write its artefacts.

    ``out`` gets ``summary.json``, ``run.json``, and for the first target ``feature_report.json``, ``hypotheses.md``, the
    classifier, the SAE and a gallery and a pattern for each feature; every further target gets the same in a folder
    ``l0_{target}``.

    Raises:
        InputError: The data or the options are wrong.
    """
    source = Path(config.dataset)
    with (
        writing(IMAGES, out, {"images": source} if source.is_file() else {}) as folder,
        progress_bar("classifier", total=1 + 2 * len(config.target_l0)) as bar,
    ):
        data = load_images(config.dataset, seed=config.seed)
        subject = _subject(config, data)
        baseline = accuracy(subject, data)
        bar.advance()
        saes, summaries = _all_targets(config, subject, data, baseline, folder, bar)
        write_json(folder / "summary.json", [summary.as_json() for summary in summaries])
        write_run(folder, command="images run", options=asdict(config), images=len(data.train_labels))
    return Laboratory(subject, data, tuple(saes), tuple(summaries), Path(out))


def _all_targets(
    config: LaboratoryConfig, subject: ImageSubject, data: ImageData, baseline: float, folder: Path, bar: Bar
) -> tuple[list[Any], list[TargetSummary]]:
    saes, summaries = [], []
    for index, target in enumerate(config.target_l0):
        bar.describe(f"SAE with {target:g} active")
        sae, summary = _train_target(config, subject, data, target, baseline)
        saes.append(sae)
        summaries.append(summary)
        bar.advance()
        bar.describe(f"features of the SAE with {target:g} active")
        place = folder if index == 0 else ensure_folder(folder / f"l0_{target:g}")
        analyse_features(
            subject, sae, data, place, top_k=config.topk, n_eval=config.n_eval, drawn=config.drawn_features()
        )
        save_pair(subject, sae, data, place / MODELS_FILE)
        bar.advance()
    return saes, summaries
