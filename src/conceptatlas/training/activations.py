"""Rows to train on, buffer by buffer: one forward pass gives those of all sites.

A buffer is a function of the contexts, its number and the seed alone, so that a run that was stopped goes on with the very
same rows. Each site's rows are shuffled within the buffer; contexts come in random order, anew in each pass over the text.
Special tokens and attention sinks are left out: a few rows of a hundred times the norm would rule the loss.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from conceptatlas.base.errors import InputError
from conceptatlas.recording.forward import shard_states
from conceptatlas.recording.plan import BATCH_TOKENS, Plan, cut_shards
from conceptatlas.subjects import Site
from conceptatlas.subjects.norms import SINK_FACTOR, row_norms
from conceptatlas.training.contexts import Contexts

if TYPE_CHECKING:
    from conceptatlas.subjects import LanguageSubject

# The states of so much of a buffer are there twice for a moment.
_PARTS = 8


def plan_of(subject: LanguageSubject, contexts: Contexts, which: npt.NDArray[np.int64], part_rows: int) -> Plan:
    """Return the forward passes over some contexts, in the order of ``which``, in parts of at most ``part_rows`` rows."""
    token_ids = [np.asarray(contexts.of(int(context))) for context in which]
    masks = [~np.isin(ids, subject.token_rules.special_ids) for ids in token_ids]
    counts = [int(mask.sum()) for mask in masks]
    first_rows = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Plan(token_ids, masks, pl.DataFrame(), first_rows, cut_shards(counts, part_rows))


@dataclass(frozen=True)
class Buffers:
    """The buffers of a training.

    Attributes:
        subject: The model.
        contexts: The contexts.
        sites: Where to read.
        rows: Rows of a buffer at most, before sinks are left out.
        least: Rows of a buffer at least, where the text has as many.
        dtype: How rows are kept.
        seed: Of the order.
    """

    subject: LanguageSubject
    contexts: Contexts
    sites: Sequence[Site]
    rows: int
    least: int
    dtype: torch.dtype
    seed: int

    def __post_init__(self) -> None:
        if self.contexts.training_rows < self.least:
            raise InputError(
                f"The text gives {self.contexts.training_rows} rows to train on, fewer than {self.least}, the least for one "
                "buffer; give more text or lower --batch."
            )

    def numbered(self, first: int) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
        """Yield (number, contexts) of every buffer from number ``first`` on, without end."""
        training = np.flatnonzero(~self.contexts.held_out)
        number, epoch = 0, 0
        while True:
            order = np.random.default_rng([self.seed, epoch]).permutation(training)
            counts = np.asarray(self.contexts.n_rows)[order]
            shards = cut_shards(counts.tolist(), self.rows)
            if len(shards) > 1 and counts[slice(*shards[-1])].sum() < self.least:
                shards[-2:] = [(shards[-2][0], shards[-1][1])]
            for begin, end in shards:
                if number >= first:
                    yield number, order[begin:end]
                number += 1
            epoch += 1

    def states(self, number: int, which: npt.NDArray[np.int64], limits: dict[str, float]) -> dict[str, torch.Tensor]:
        """Return the shuffled rows of a buffer: site → [n, D] on the model's device.

        Args:
            number: The buffer's.
            which: Its contexts.
            limits: Site → greatest norm of a row that is no sink; filled from this buffer where it is empty.

        Raises:
            InputError: The model gives NaN or infinity.
        """
        plan = plan_of(self.subject, self.contexts, which, max(1, self.rows // _PARTS))
        batch_tokens = BATCH_TOKENS.get(self.subject.device.type, BATCH_TOKENS["cpu"])
        parts: dict[str, list[torch.Tensor]] = {str(site): [] for site in self.sites}
        for shard in range(len(plan.shards)):
            for site, states in shard_states(plan, self.subject, self.sites, shard, batch_tokens).items():
                parts[site].append(states.to(self.dtype))
        return {site: self._shuffled(site, number, torch.cat(parts.pop(site)), limits) for site in map(str, self.sites)}

    def _shuffled(self, site: str, number: int, rows: torch.Tensor, limits: dict[str, float]) -> torch.Tensor:
        kept = rows_to_train_on(rows, site, self.subject.id, limits)
        order = np.random.default_rng([self.seed, number, 1]).permutation(kept)
        return rows[torch.from_numpy(order).to(rows.device)]


def rows_to_train_on(rows: torch.Tensor, site: str, model: str, limits: dict[str, float]) -> npt.NDArray[np.int64]:
    """Return which rows [n, D] of a site are no attention sinks, int64; sets the site's limit where there is none yet.

    Raises:
        InputError: A row is NaN or infinite.
    """
    norms = row_norms(rows)
    if not np.isfinite(norms).all():
        raise InputError(
            f"{model} gives NaN or infinite values at {site} (row {int(np.argmin(np.isfinite(norms)))} of a buffer); check "
            "the model's files, or run it with --dtype float32."
        )
    if site not in limits:
        limits[site] = SINK_FACTOR * float(np.median(norms))
    return np.flatnonzero(norms <= limits[site])


def norm_scale(rows: torch.Tensor) -> float:
    """Return the factor that brings the mean norm of rows [n, D] to sqrt(D) (Anthropic, April 2024 update)."""
    return float(rows.shape[1] ** 0.5 / row_norms(rows).mean(dtype=np.float64))
