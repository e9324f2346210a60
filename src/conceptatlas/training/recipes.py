"""SAELens's trainers, one for each SAE that is wanted, and the frozen-decoder control.

The training itself is SAELens's: its training classes (with the auxiliary loss by which TopK kinds bring dead latents
back), its optimiser and its schedules. Rows are scaled to a mean norm of sqrt(D); the scale is folded into the weights at
the end (``expected_average_only_in``).

The control (Korznikov et al. 2026, "Sanity Checks for Sparse Autoencoders: Do SAEs Beat Random Baselines?", arXiv
2602.14111): the same architecture, with random unit vectors for a decoder that stays as it was drawn; encoder, biases and
thresholds are trained.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import torch

from conceptatlas.training.options import TrainOptions, Wanted

# The law 1/√width is that of Gao et al. 2024 (arXiv 2406.04093); the constant is that of EleutherAI's sparsify.
_LR_AT, _LR_WIDTH, _LR_MOST = 2e-4, 1 << 14, 1e-3
_WARM_UP, _DECAY, _DEAD = 20, 5, 20
_DEAD_STEPS_MOST = 1000
_CONTROL_NORM = 1.0
_THRESHOLD_TURNS = 20
# Weight of the loss that brings dead latents of a JumpReLU SAE back: SAELens's figure for Anthropic's setup.
_PRE_ACT = 3e-6


def learning_rate(wanted: Wanted, options: TrainOptions) -> float:
    """Return Adam's learning rate for an SAE."""
    return options.lr or min(_LR_MOST, _LR_AT * (_LR_WIDTH / wanted.width) ** 0.5)


def seed_of(wanted: Wanted, options: TrainOptions) -> int:
    """Return the seed of an SAE's initial weights: of itself and the options' seed, whatever is trained beside it.

    A control has that of its SAE, so that its decoder is what the other's was before training, up to the length.
    """
    named = f"{options.seed}\0{options.architecture}\0{wanted.trained_id}"
    return int.from_bytes(hashlib.blake2b(named.encode(), digest_size=4).digest(), "big")


def _settings(wanted: Wanted, options: TrainOptions) -> dict[str, Any]:
    """Return what the architecture's configuration takes beside the common fields."""
    warm_up = options.steps // _DECAY
    if options.architecture == "jumprelu":
        return {
            "jumprelu_sparsity_loss_mode": "quadratic",
            "target_l0": wanted.sparsity,
            "l0_warm_up_steps": warm_up,
            "jumprelu_ste_to_input": True,
            "pre_act_loss_coefficient": _PRE_ACT,
        }
    if wanted.kind == "l1":
        return {"l1_coefficient": wanted.sparsity, "l1_warm_up_steps": warm_up}
    found: dict[str, Any] = {"k": int(wanted.sparsity) if options.architecture == "topk" else wanted.sparsity}
    if "batchtopk" in options.architecture:
        # The threshold is a running mean over steps; in a short training SAELens's 0.01 would never get there.
        found["topk_threshold_lr"] = min(0.2, max(0.01, _THRESHOLD_TURNS / options.steps))
    if options.architecture == "matryoshka_batchtopk":
        inner = [wanted.width >> shift for shift in (4, 3, 2, 1) if wanted.width >> shift > 1]
        found["matryoshka_widths"] = [*dict.fromkeys(inner), wanted.width]
    return found


def make_trainer(
    wanted: Wanted, options: TrainOptions, *, d_in: int, device: torch.device, metadata: dict[str, Any]
) -> Any:
    """Return the ``SAETrainer`` of an SAE, before its first step.

    Args:
        wanted: The SAE.
        options: The training.
        d_in: Width of its site.
        device: Where it is trained.
        metadata: What SAELens keeps beside the weights: model, hook, context size, BOS.
    """
    import sae_lens  # noqa: F401  (registers the architectures)
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.registry import get_sae_training_class
    from sae_lens.saes.sae import SAEMetadata
    from sae_lens.training.sae_trainer import SAETrainer

    sae_class, config_class = get_sae_training_class(options.architecture)
    config = config_class(
        d_in=d_in,
        d_sae=wanted.width,
        dtype="float32",
        device=str(device),
        normalize_activations="expected_average_only_in",
        metadata=SAEMetadata(**metadata),
        **({"decoder_init_norm": _CONTROL_NORM} if wanted.control else {}),
        **_settings(wanted, options),
    )
    # Drawn on the CPU, so that every device begins with the same weights.
    config.device = "cpu"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(wanted, options))
        sae = sae_class(config).to(device)
    if wanted.control:
        sae.W_dec.requires_grad_(requires_grad=False)
    lr = learning_rate(wanted, options)
    return SAETrainer(
        cfg=SAETrainerConfig(
            total_training_samples=options.steps * options.batch,
            train_batch_size_samples=options.batch,
            lr=lr,
            lr_end=lr / 10,
            lr_warm_up_steps=max(2, min(1000, options.steps // _WARM_UP)),
            lr_decay_steps=options.steps // _DECAY,
            device=str(device),
            dead_feature_window=dead_window(options),
            logger=LoggingConfig(log_to_wandb=False),
        ),
        sae=sae,
        data_provider=iter(()),
    )


def dead_window(options: TrainOptions) -> int:
    """Return the number of steps after which a latent that was never active counts as dead."""
    return max(_DEAD, min(_DEAD_STEPS_MOST, options.steps // _DEAD))


def steps_on(trainer: Any, rows: torch.Tensor, options: TrainOptions) -> Iterator[Any]:
    """Take a step for each whole batch of ``rows`` [n, D] until the trainer has all its steps.

    Yields:
        SAELens's ``TrainStepOutput`` of each step.
    """
    for start in range(0, len(rows) - options.batch + 1, options.batch):
        if trainer.n_training_steps >= options.steps:
            return
        output = trainer.step(rows[start : start + options.batch].float())
        trainer.n_training_steps += 1
        yield output


def fold_scale(trainer: Any) -> None:
    """Fold the scale of the rows into the weights: the SAE then takes rows as the model gives them."""
    scale = trainer.activation_scaler.scaling_factor
    if scale is not None:
        trainer.sae.fold_activation_norm_scaling_factor(scale)
        trainer.activation_scaler.scaling_factor = None
