"""What a training will take: memory, disk and time, from the sizes and from a short timing on this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch

from conceptatlas.recording.forward import shard_states
from conceptatlas.recording.plan import BATCH_TOKENS
from conceptatlas.subjects import load_subject, parse_sites
from conceptatlas.subjects.texts import TextStream
from conceptatlas.subjects.windows import WindowCutter
from conceptatlas.training.activations import plan_of
from conceptatlas.training.contexts import Contexts
from conceptatlas.training.options import TrainOptions, Wanted
from conceptatlas.training.recipes import make_trainer, steps_on

if TYPE_CHECKING:
    from conceptatlas.subjects import LanguageSubject

# Contexts that the forward pass is timed on, steps of which the last is timed.
_CONTEXTS, _STEPS = 32, 3
_FLOAT = 4
# Arrays of [batch, width] that a step holds at once: pre-activations, activations, their gradients, the sort.
_STEP_ARRAYS = 6
# A checkpoint keeps weights and the two moments of Adam; memory holds the gradients as well.
_KEPT, _HELD = 3, 4


@dataclass(frozen=True)
class Estimate:
    """What a training will take."""

    n_saes: int
    steps: int
    """Of each SAE's optimiser."""
    model_bytes: int
    """Memory of the model's weights."""
    buffer_bytes: int
    """Memory of the rows of one buffer, at all sites."""
    sae_bytes: int
    """Memory of all SAEs with gradients and optimiser, and of one step."""
    disk_bytes: int
    """Disk at most: checkpoints (two for a moment), texts as token ids, and the SAEs."""
    forward_seconds: float
    """Time of the forward passes, from a short timing."""
    sae_seconds: float
    """Time of the SAEs' steps, from a short timing."""

    @property
    def memory_bytes(self) -> int:
        """All memory together."""
        return self.model_bytes + self.buffer_bytes + self.sae_bytes

    @property
    def seconds(self) -> float:
        """All time together."""
        return self.forward_seconds + self.sae_seconds


def estimate_training(
    model: str | os.PathLike[str] | LanguageSubject,
    text: str | os.PathLike[str] | Sequence[str],
    options: TrainOptions,
    *,
    device: str = "auto",
    dtype: str = "auto",
) -> Estimate:
    """Return what `train` would take with the same arguments; nothing is written.

    Raises:
        InputError: As `train`.
    """
    source = text if isinstance(text, (str, list, tuple)) else os.fspath(text)  # type: ignore[arg-type]
    subject = (
        load_subject(os.fspath(model), device=device, dtype=dtype) if isinstance(model, (str, os.PathLike)) else model
    )
    sites = parse_sites(options.sites)
    widths = subject.widths(sites)
    wanted = options.wanted()
    weights = [_weights(one, widths[one.site]) for one in wanted]
    size = 2 if options.buffer_dtype == "bfloat16" else _FLOAT
    step = _STEP_ARRAYS * options.batch * max(options.widths) * _FLOAT
    return Estimate(
        n_saes=len(wanted),
        steps=options.steps,
        model_bytes=sum(one.numel() * one.element_size() for one in subject.hf_model.parameters()),
        buffer_bytes=options.buffer_rows * size * (sum(widths.values()) + max(widths.values())),
        sae_bytes=_HELD * sum(weights) + step,
        disk_bytes=(2 * _KEPT + 1) * sum(weights) + options.tokens * _FLOAT,
        forward_seconds=_seconds_a_row(subject, TextStream(source, column=options.column), options)
        * options.steps
        * options.batch,
        sae_seconds=options.steps * _seconds_a_step(subject, wanted, widths, options),
    )


def _weights(wanted: Wanted, d_in: int) -> int:
    """Return the bytes of an SAE's weights."""
    return _FLOAT * (2 * wanted.width * d_in + 2 * wanted.width + d_in)


def _seconds_a_row(subject: LanguageSubject, texts: TextStream, options: TrainOptions) -> float:
    """Return the time of the forward pass of one row, from the first contexts of the text."""
    cutter = WindowCutter(subject, max_tokens=options.context)
    windows = list(islice((window for numbered in texts for window in cutter.cut([numbered])), _CONTEXTS))
    starts = np.concatenate([[0], np.cumsum([len(window.token_ids) for window in windows])]).astype(np.int64)
    contexts = Contexts(
        np.concatenate([window.token_ids for window in windows]),
        starts,
        np.zeros(len(windows), dtype=bool),
        np.array([window.n_rows for window in windows], dtype=np.int32),
    )
    plan = plan_of(subject, contexts, np.arange(len(windows)), options.buffer_rows)
    batch_tokens = BATCH_TOKENS.get(subject.device.type, BATCH_TOKENS["cpu"])
    sites = parse_sites(options.sites)
    seconds = 0.0
    for _ in range(2):  # the first time is slower
        begun = time.perf_counter()
        shard_states(plan, subject, sites, 0, batch_tokens)
        _wait(subject.device)
        seconds = time.perf_counter() - begun
    return seconds / plan.n_rows


def _seconds_a_step(
    subject: LanguageSubject, wanted: Sequence[Wanted], widths: dict[str, int], options: TrainOptions
) -> float:
    """Return the time of one step of every SAE, each size timed once on random rows."""
    generator = torch.Generator().manual_seed(0)
    timed: dict[tuple[int, int, bool], float] = {}
    for one in wanted:
        d_in = widths[one.site]
        key = (one.width, d_in, one.control)
        if key in timed:
            continue
        trainer = make_trainer(one, options, d_in=d_in, device=subject.device, metadata={})
        rows = torch.randn(options.batch, d_in, generator=generator).to(subject.device)
        for _ in range(min(_STEPS, options.steps)):
            begun = time.perf_counter()
            for _ in steps_on(trainer, rows, options):
                _wait(subject.device)
            timed[key] = time.perf_counter() - begun
    return sum(timed[one.width, widths[one.site], one.control] for one in wanted)


def _wait(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
