"""Checkpoints: everything that the next step needs, as safetensors and JSON (no pickle), whole or not at all.

A checkpoint is a folder; it is written under another name, renamed, and only then is the one before it removed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from conceptatlas.base.errors import WorkError
from conceptatlas.base.files import read_json, write_json

_PREFIX = "checkpoint-"
_PARTIAL = ".partial-checkpoint"
_STATE = "state.json"


def save_checkpoint(
    work: Path, number: int, trainers: Mapping[str, Any], limits: Mapping[str, float], seconds: float
) -> None:
    """Write a checkpoint into ``work`` and remove those before it.

    Args:
        work: The folder of the training's work.
        number: The number of the buffer that comes next.
        trainers: SAE id → ``SAETrainer``.
        limits: Site → greatest norm of a row that is no sink.
        seconds: Spent on training so far.

    Raises:
        WorkError: The disk is full, or cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    partial = work / _PARTIAL
    shutil.rmtree(partial, ignore_errors=True)
    state: dict[str, Any] = {"number": number, "limits": dict(limits), "seconds": seconds, "saes": {}}
    try:
        partial.mkdir()
        for place, (sae_id, trainer) in enumerate(trainers.items()):
            tensors, facts = _taken(trainer)
            save_file(tensors, partial / f"{place}.safetensors")
            state["saes"][sae_id] = facts
        write_json(partial / _STATE, state)
        final = work / f"{_PREFIX}{number:06d}"
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        reason = getattr(error, "strerror", None) or error
        raise WorkError(
            f"Cannot write a checkpoint in {work}: {reason}; free some space and run the same command again to go on."
        ) from error
    _sync(work)
    for old in work.glob(f"{_PREFIX}*"):
        if old != final:
            shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(work: Path, trainers: Mapping[str, Any]) -> tuple[int, dict[str, float], float] | None:
    """Bring trainers to the newest checkpoint in ``work``; return (next buffer, limits, seconds), or None without one."""
    from safetensors.torch import load_file

    found = sorted(work.glob(f"{_PREFIX}*"))
    if not found:
        return None
    state = read_json(found[-1] / _STATE)
    for place, (sae_id, trainer) in enumerate(trainers.items()):
        device = str(trainer.cfg.device)
        _given(trainer, load_file(found[-1] / f"{place}.safetensors", device=device), state["saes"][sae_id])
    return int(state["number"]), dict(state["limits"]), float(state["seconds"])


def _taken(trainer: Any) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return the tensors of a trainer and the rest of its state."""
    optimizer = trainer.optimizer.state_dict()
    tensors = {f"sae.{name}": tensor.contiguous() for name, tensor in trainer.sae.state_dict().items()}
    tensors |= {
        f"adam.{parameter}.{name}": value.contiguous()
        for parameter, values in optimizer["state"].items()
        for name, value in values.items()
    }
    tensors["act_freq_scores"] = trainer.act_freq_scores
    tensors["n_forward_passes_since_fired"] = trainer.n_forward_passes_since_fired
    facts = {
        "param_groups": optimizer["param_groups"],
        "lr_scheduler": trainer.lr_scheduler.state_dict(),
        "coefficients": {name: one.state_dict() for name, one in trainer.coefficient_schedulers.items()},
        "scale": trainer.activation_scaler.scaling_factor,
        "n_training_samples": trainer.n_training_samples,
        "n_training_steps": trainer.n_training_steps,
        "n_frac_active_samples": trainer.n_frac_active_samples,
    }
    return tensors, json.loads(json.dumps(facts, default=_plain))


def _plain(value: Any) -> Any:
    """Return what JSON can hold for what it cannot: a scheduler's counter of milestones."""
    if hasattr(value, "items"):
        return dict(value)
    if hasattr(value, "elements"):
        return list(value)
    raise TypeError(f"{type(value).__name__} in a trainer's state")


def _given(trainer: Any, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
    """Bring a trainer to a state."""
    own = {name: tensors[f"sae.{name}"] for name in trainer.sae.state_dict()}
    trainer.sae.load_state_dict(own)
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("adam."):
            _, parameter, name = key.split(".")
            # Adam keeps its count of steps on the CPU.
            state.setdefault(int(parameter), {})[name] = value.cpu() if name == "step" else value
    trainer.optimizer.load_state_dict({"state": state, "param_groups": facts["param_groups"]})
    trainer.lr_scheduler.load_state_dict(facts["lr_scheduler"])
    for name, one in facts["coefficients"].items():
        trainer.coefficient_schedulers[name].load_state_dict(one)
    trainer.act_freq_scores = tensors["act_freq_scores"]
    trainer.n_forward_passes_since_fired = tensors["n_forward_passes_since_fired"]
    trainer.activation_scaler.scaling_factor = facts["scale"]
    for name in ("n_training_samples", "n_training_steps", "n_frac_active_samples"):
        setattr(trainer, name, facts[name])


def _sync(folder: Path) -> None:
    """Make a rename in ``folder`` durable."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
