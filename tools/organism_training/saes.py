"""The SAEs: BatchTopK by SAELens's own trainer, saved for inference as JumpReLU with unit decoder rows, in float16."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from sae_lens import SAE, BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
from sae_lens.config import LoggingConfig, SAETrainerConfig
from sae_lens.saes.sae import SAEMetadata
from sae_lens.training.sae_trainer import SAETrainer
from safetensors.torch import load_file, save_file

# Active latents per row, and latents in all.
SETTINGS = {12: 512, 16: 384}
ROWS = 150_000
SAMPLES = 400_000
BATCH = 1024
LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Quality:
    """How well an SAE does on held-out stories: unexplained variance, active latents per row, share that never fire."""

    fvu: float
    l0: float
    dead: float


def shuffled(rows: torch.Tensor, seed: int) -> Iterator[torch.Tensor]:
    """Endless batches [BATCH, D] of the rows, in a new random order each time round."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(rows), generator=generator)
        for start in range(0, len(rows) - BATCH + 1, BATCH):
            yield rows[order[start : start + BATCH]]


def train_sae(rows: torch.Tensor, layer: int, k: int, *, width: int) -> BatchTopKTrainingSAE:
    """Train one SAE on residual rows [T, D] of a layer with k active latents per row on average."""
    steps = SAMPLES // BATCH
    torch.manual_seed(1000 * layer + k)
    sae = BatchTopKTrainingSAE(
        BatchTopKTrainingSAEConfig(
            k=k,
            d_in=rows.shape[1],
            d_sae=width,
            dtype="float32",
            device="cpu",
            normalize_activations="expected_average_only_in",
            metadata=SAEMetadata(
                model_name="organism", hook_name=f"blocks.{layer}.hook_resid_post", context_size=512, prepend_bos=True
            ),
        )
    )
    config = SAETrainerConfig(
        total_training_samples=SAMPLES,
        train_batch_size_samples=BATCH,
        lr=LEARNING_RATE,
        lr_end=LEARNING_RATE / 100,
        lr_warm_up_steps=50,
        lr_decay_steps=steps // 3,
        device="cpu",
        dead_feature_window=200,
        feature_sampling_window=500,
        n_batches_for_norm_estimate=20,
        logger=LoggingConfig(log_to_wandb=False),
    )
    SAETrainer(cfg=config, sae=sae, data_provider=shuffled(rows, seed=k)).fit()
    return sae


@torch.no_grad()
def save_sae(sae: BatchTopKTrainingSAE, folder: Path) -> None:
    """Save for inference: decoder rows of norm 1, weights as float16 (they are read as float32)."""
    with TemporaryDirectory() as raw:
        sae.save_inference_model(raw)
        folded = SAE.load_from_disk(raw, fold_W_dec_norm=True)
    folder.mkdir(parents=True, exist_ok=True)
    folded.save_model(folder)
    weights = folder / "sae_weights.safetensors"
    save_file({name: tensor.half().contiguous() for name, tensor in load_file(weights).items()}, weights)


@torch.no_grad()
def measure_sae(folder: Path, rows: torch.Tensor) -> Quality:
    """Measure the saved SAE on rows [T, D] that it was not trained on."""
    sae = SAE.load_from_disk(folder)
    codes = sae.encode(rows)
    unexplained = (rows - sae.decode(codes)).pow(2).sum() / (rows - rows.mean(0)).pow(2).sum()
    active = codes > 0
    return Quality(unexplained.item(), active.sum(1).float().mean().item(), (~active.any(0)).float().mean().item())


def layer_of(folder: Path) -> int:
    """The layer of ``.../blocks.{layer}.hook_resid_post/l0_{k}``."""
    return int(folder.parent.name.split(".")[1])


def record_quality(folder: Path, quality: Quality) -> None:
    """Write the measured L0 into the SAE's own metadata, where SAELens keeps such things."""
    path = folder / "cfg.json"
    config = json.loads(path.read_text())
    config["device"] = "cpu"
    config["metadata"].update(l0=round(quality.l0, 2), average_l0=round(quality.l0, 2), neuronpedia_id=None)
    config["metadata"].pop("num_dead_features", None)
    path.write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
