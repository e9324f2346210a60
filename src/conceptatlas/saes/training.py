"""Small JumpReLU SAEs trained with SAELens's own trainer, brought to a wanted number of active latents.

1. *Calibrate*: short runs over a coarse geometric grid of sparsity coefficients λ, then over a finer one around the best,
   until the mean number of active latents (L0) is as near to the target as a short run can tell.
2. *Train* with that λ for longer.
3. *Shift*: add one number to all thresholds, found by bisection, so that L0 meets the target exactly.

JumpReLU and its straight-through gradient: Rajamanoharan et al. 2024, "Jumping Ahead" (arXiv 2407.14435), eq. 3 and 9–11.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from conceptatlas.base.errors import InputError, WorkError

COARSE_STEP = 4.0
FINE_STEP = 4.0**0.25
BISECTIONS = 60


@dataclass(frozen=True)
class TrainingPlan:
    """How to train one SAE.

    Attributes:
        d_sae: The number of latents.
        target_l0: The wanted mean number of active latents.
        epochs: Passes over the activations of the final run.
        batch_size: Rows a step.
        seed: Seeds initialisation and batches.
        short_steps: Optimiser steps of each calibration run.
        min_steps: The least number of steps of the final run (small data sets are passed over more often).
        lr: Adam's learning rate.
    """

    d_sae: int
    target_l0: float
    epochs: int = 5
    batch_size: int = 512
    seed: int = 42
    short_steps: int = 150
    min_steps: int = 1000
    lr: float = 2e-3

    def __post_init__(self) -> None:
        """Reject what cannot be."""
        if not 0 < self.target_l0 < self.d_sae:
            raise InputError(
                f"The target of {self.target_l0:g} active latents is not between 0 and the width, {self.d_sae}; "
                "lower --target-l0 or raise --latents."
            )


@dataclass(frozen=True)
class TrainedSAE:
    """A trained SAE and how it came about.

    Attributes:
        sae: The SAELens inference SAE (JumpReLU), thresholds as trained.
        l0_coefficient: The calibrated λ.
        trials: (λ, L0) of every calibration run, in order.
    """

    sae: Any
    l0_coefficient: float
    trials: tuple[tuple[float, float], ...]


def _batches(activations_TD: torch.Tensor, batch_size: int, seed: int) -> Iterator[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(activations_TD), generator=generator).to(activations_TD.device)
        for start in range(0, max(1, len(order) - batch_size + 1), batch_size):
            yield activations_TD[order[start : start + batch_size]]


def mean_l0(sae: Any, activations_TD: torch.Tensor) -> float:
    """Return the mean number of active latents a row."""
    with torch.no_grad():
        return float((sae.encode(activations_TD) != 0).sum(1).float().mean())


def _run(activations_TD: torch.Tensor, plan: TrainingPlan, l0_coefficient: float, steps: int) -> Any:
    """Train one SAELens JumpReLU SAE for ``steps`` steps and return the training SAE."""
    from sae_lens import JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    config = JumpReLUTrainingSAEConfig(
        d_in=activations_TD.shape[1],
        d_sae=plan.d_sae,
        dtype="float32",
        device=str(activations_TD.device),
        apply_b_dec_to_input=False,
        normalize_activations="none",
        jumprelu_sparsity_loss_mode="tanh",
        jumprelu_init_threshold=0.1,
        jumprelu_bandwidth=0.5,
        jumprelu_ste_to_input=True,
        l0_coefficient=l0_coefficient,
        l0_warm_up_steps=steps // 2,
        pre_act_loss_coefficient=3e-6,
    )
    trainer_config = SAETrainerConfig(
        total_training_samples=steps * plan.batch_size,
        train_batch_size_samples=plan.batch_size,
        lr=plan.lr,
        lr_end=plan.lr / 20,
        lr_warm_up_steps=min(50, steps // 10),
        lr_decay_steps=steps // 3,
        device=str(activations_TD.device),
        n_batches_for_norm_estimate=1,
        logger=LoggingConfig(log_to_wandb=False),
    )
    with torch.random.fork_rng(devices=[]), _no_bar(), _one_thread():
        torch.manual_seed(plan.seed)
        sae = JumpReLUTrainingSAE(config)
        batches = _batches(activations_TD, plan.batch_size, plan.seed)
        SAETrainer(cfg=trainer_config, sae=sae, data_provider=batches).fit()
    return sae.eval()


@contextlib.contextmanager
def _no_bar() -> Iterator[None]:
    """Keep the trainer's own progress bar quiet: our callers show one bar for the whole calibration."""
    from sae_lens.training import sae_trainer

    plain = sae_trainer.tqdm

    def quiet(*args: Any, **options: Any) -> Any:
        return plain(*args, **{**options, "disable": True})

    sae_trainer.tqdm = quiet
    try:
        yield
    finally:
        sae_trainer.tqdm = plain


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread: matrices this small lose more to waiting for each other than they gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _nearest(trials: list[tuple[float, float]], target: float) -> float:
    """Return the λ whose L0 is nearest to the target in ratio."""
    return min(trials, key=lambda trial: abs(math.log(max(trial[1], 1e-3) / target)))[0]


def calibrate(activations_TD: torch.Tensor, plan: TrainingPlan) -> tuple[float, list[tuple[float, float]]]:
    """Find the sparsity coefficient λ whose short run comes nearest to the target L0.

    A coarse geometric walk (factor 4) from λ = 1 goes in the direction that L0 asks for until the target is bracketed; a
    finer grid (factor 4^¼) then refines within the bracket.

    Returns:
        λ, and every trial (λ, L0) in order.
    """
    trials: list[tuple[float, float]] = []

    def l0_at(coefficient: float) -> float:
        l0 = mean_l0(_run(activations_TD, plan, coefficient, plan.short_steps), activations_TD[:4096])
        trials.append((coefficient, l0))
        return l0

    coefficient = 1.0
    too_dense = l0_at(coefficient) > plan.target_l0
    for _ in range(8):
        coefficient *= COARSE_STEP if too_dense else 1 / COARSE_STEP
        if (l0_at(coefficient) > plan.target_l0) != too_dense:
            break
    low = min(coefficient, coefficient * (1 / COARSE_STEP if too_dense else COARSE_STEP))
    for power in (1, 2, 3):
        l0_at(low * FINE_STEP**power)
    return _nearest(trials, plan.target_l0), trials


def train_jumprelu(activations_TD: torch.Tensor, plan: TrainingPlan) -> TrainedSAE:
    """Calibrate λ, then train for longer.

    Args:
        activations_TD: Activations to train on, [T, D], float32.
        plan: What to train.

    Raises:
        InputError: The activations hold NaN, or there are fewer rows than latents wanted active.
    """
    if not bool(torch.isfinite(activations_TD).all()):
        raise InputError("The activations to train on hold NaN or infinite values; check the model and its input.")
    coefficient, trials = calibrate(activations_TD, plan)
    steps = max(plan.min_steps, plan.epochs * len(activations_TD) // plan.batch_size)
    return TrainedSAE(
        sae=_as_inference(_run(activations_TD, plan, coefficient, steps)),
        l0_coefficient=coefficient,
        trials=tuple(trials),
    )


def _as_inference(sae: Any) -> Any:
    """Return the SAELens inference SAE with the trained weights."""
    from sae_lens import JumpReLUSAE, JumpReLUSAEConfig

    config = JumpReLUSAEConfig(
        d_in=sae.cfg.d_in,
        d_sae=sae.cfg.d_sae,
        dtype="float32",
        device=str(sae.W_enc.device),
        apply_b_dec_to_input=False,
        normalize_activations="none",
    )
    plain = JumpReLUSAE(config)
    state = {name: tensor.detach().clone() for name, tensor in sae.state_dict().items() if name in plain.state_dict()}
    state["threshold"] = sae.threshold.detach().clone()
    plain.load_state_dict(state)
    return plain.eval().requires_grad_(requires_grad=False)


def shift_thresholds(sae: Any, activations_TD: torch.Tensor, target_l0: float) -> float:
    """Add one number to all thresholds of a JumpReLU SAE, in place, so that its mean L0 on the rows is the target.

    Returns:
        The number added.

    Raises:
        WorkError: No shift reaches the target (too many latents are never positive).
    """
    with torch.no_grad():
        pre = sae.process_sae_in(activations_TD) @ sae.W_enc + sae.b_enc
        threshold = sae.threshold

        def l0_after(shift: float) -> float:
            return float((pre > (threshold + shift).clamp(min=0)).sum(1).float().mean())

        low, high = -float(threshold.max()), float((pre - threshold).max())
        if l0_after(low) < target_l0:
            raise WorkError(
                f"Only {l0_after(low):.1f} latents are ever positive a row, fewer than the target of {target_l0:g}; "
                "train longer (--epochs-sae) or lower --target-l0."
            )
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            low, high = (middle, high) if l0_after(middle) > target_l0 else (low, middle)
        best = min((low, high), key=lambda shift: abs(l0_after(shift) - target_l0))
        sae.threshold.copy_((threshold + best).clamp(min=0))
    return best
