"""One shard, whatever engine runs it: forward, then SAE by SAE, every piece written as soon as it is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from conceptatlas.base.errors import InputError
from conceptatlas.recording.check import check_rows, output_site, self_check
from conceptatlas.recording.encode import LoadedSAE, encode_states, load_sae
from conceptatlas.recording.forward import row_norms, shard_states, to_numpy
from conceptatlas.recording.manifest import COLUMN_FILES, EMBED_SITE, RecordOptions
from conceptatlas.recording.plan import Plan
from conceptatlas.recording.work import HIDDEN_PIECE, SAE_PREFIX, WorkFolder
from conceptatlas.subjects.sites import Site

if TYPE_CHECKING:
    from conceptatlas.saes import SAESource
    from conceptatlas.subjects.language import LanguageSubject

NORMS_FILE = "norms.npy"
# Pieces that wait to be written while the next SAE is encoded.
WAITING_PIECES = 2


@dataclass(frozen=True)
class Job:
    """Everything that a shard needs to know.

    Attributes:
        plan: How the work is cut.
        sources: The SAEs, in order.
        sites: The sites at which states are taken, in the order of the forward pass.
        kept_sites: Those whose states go into the recording.
        options: The options.
        batch_tokens: Tokens of a forward batch.
        work: Where pieces go.
        strict: An SAE that fails the self-check is an error.
    """

    plan: Plan
    sources: Sequence[SAESource]
    sites: Sequence[Site]
    kept_sites: Sequence[str]
    options: RecordOptions
    batch_tokens: int
    work: WorkFolder
    strict: bool = False

    def sites_of(self, shard: int) -> list[Site]:
        """Return the sites to read in a shard: the first one also needs those that transcoders write to, to check them."""
        if shard:
            return list(self.sites)
        outputs = [site for source in self.sources if (site := output_site(source)) is not None]
        return sorted({*self.sites, *outputs}, key=lambda site: (site.order, site.hook))

    def missing(self, shard: int) -> list[SAESource]:
        """Return the SAEs whose piece of a shard is neither there nor joined already."""
        return [
            source
            for source in self.sources
            if not self.work.merged_path(source.slug).exists()
            and not self.work.has_piece(shard, SAE_PREFIX + source.slug)
        ]

    def is_done(self, shard: int) -> bool:
        """Whether nothing of a shard is left to do."""
        return self.work.has_piece(shard, HIDDEN_PIECE) and not self.missing(shard)


class BackgroundWriter:
    """Writes pieces in a thread of its own; at most ``WAITING_PIECES`` wait. An error shows at the next call."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="write")
        self._room = BoundedSemaphore(WAITING_PIECES)
        self._futures: list[Future[None]] = []

    def submit(self, task: Callable[[], None]) -> None:
        """Queue a task, waiting for room; raise what an earlier one raised."""
        self._room.acquire()
        self._raise_failed()
        self._futures.append(self._pool.submit(self._run, task))

    def _run(self, task: Callable[[], None]) -> None:
        try:
            task()
        finally:
            self._room.release()

    def _raise_failed(self) -> None:
        done = [future for future in self._futures if future.done()]
        self._futures = [future for future in self._futures if not future.done()]
        for future in done:
            future.result()

    def close(self) -> None:
        """Wait for everything, and raise what failed."""
        self._pool.shutdown(wait=True)
        self._raise_failed()

    def abandon(self) -> None:
        """Drop what waits; what is being written is finished."""
        self._pool.shutdown(wait=True, cancel_futures=True)


class EncoderCache:
    """Keeps encoders between shards while they fit into ``limit_bytes`` together; what is kept changes no result."""

    def __init__(self, job: Job, device: str, *, limit_bytes: int) -> None:
        self._sae_dtype = job.options.sae_dtype
        self._device = device
        self._limit = limit_bytes
        self._used = 0
        self._kept: dict[str, LoadedSAE] = {}

    def get(self, source: SAESource) -> LoadedSAE:
        """Return a loaded encoder."""
        if source.slug in self._kept:
            return self._kept[source.slug]
        loaded = load_sae(source, self._device, self._sae_dtype)
        if self._used + loaded.nbytes <= self._limit:
            self._kept[source.slug] = loaded
            self._used += loaded.nbytes
        return loaded


@dataclass(frozen=True)
class Loaders:
    """Where a shard gets its model and SAEs from."""

    subject: Callable[[], LanguageSubject]
    encoders: EncoderCache


def run_shard(job: Job, shard: int, loaders: Loaders, tick: Callable[[str], None]) -> None:
    """Do what is left of one shard; ``tick`` is called with an SAE's slug when its piece is on its way to the disk.

    Raises:
        InputError: An SAE does not fit the width of its site, or fails the self-check under ``--strict-check``.
        WorkError: The disk is full.
    """
    missing = job.missing(shard)
    if not missing and job.work.has_piece(shard, HIDDEN_PIECE):
        return
    writer = BackgroundWriter()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="load") as pool:
        try:
            upcoming = pool.submit(loaders.encoders.get, missing[0]) if missing else None
            states = shard_states(job.plan, loaders.subject(), job.sites_of(shard), shard, job.batch_tokens)
            _submit_hidden(job, shard, states, writer)
            for number, source in enumerate(missing):
                assert upcoming is not None
                loaded = upcoming.result()
                following = missing[number + 1 : number + 2]
                upcoming = pool.submit(loaders.encoders.get, following[0]) if following else None
                _encode_one(job, shard, source, loaded, states, writer)
                tick(source.slug)
        except BaseException:
            writer.abandon()
            raise
        writer.close()


def _submit_hidden(job: Job, shard: int, states: dict[str, torch.Tensor], writer: BackgroundWriter) -> None:
    """Queue the hidden states to be kept, and every row's norm at every site [S, T_shard]."""
    if job.work.has_piece(shard, HIDDEN_PIECE):
        return
    final = torch.from_numpy(job.plan.final_rows(shard))
    arrays: dict[str, npt.NDArray[np.float32]] = {}
    if job.options.hidden != "none":
        for site in job.kept_sites:
            kept = states[site]
            kept = kept if job.options.hidden == "all" else kept[final.to(kept.device)]
            arrays[f"{site}.npy"] = to_numpy(kept)
    names = [str(site) for site in job.sites if str(site) != EMBED_SITE]
    first, last = job.plan.row_range(shard)
    norms = np.zeros((last - first, len(names)), dtype=np.float32)
    for column, name in enumerate(names):
        norms[:, column] = row_norms(states[name])
    arrays[NORMS_FILE] = norms
    writer.submit(lambda: job.work.write_piece(shard, HIDDEN_PIECE, arrays, {"sites": names}))


def _encode_one(
    job: Job,
    shard: int,
    source: SAESource,
    loaded: LoadedSAE,
    states: dict[str, torch.Tensor],
    writer: BackgroundWriter,
) -> None:
    """Encode one SAE over a shard and queue its piece."""
    x_TD = states[str(Site.parse(source.site))]
    if x_TD.shape[1] != source.d_in:
        raise InputError(
            f"The SAE {source.sae_id!r} takes rows of width {source.d_in}, and {source.site} of this model has width "
            f"{x_TD.shape[1]}; it belongs to another model or site."
        )
    columns = encode_states(
        x_TD,
        loaded,
        first_row=job.plan.row_range(shard)[0],
        only=job.plan.final_rows(shard) if job.options.keep == "final" else None,
        features=job.options.features,
    )
    facts: dict[str, object] = {"nnz": columns.nnz}
    if shard == 0:
        everything = job.options.keep != "final" and job.options.features is None
        facts["check"] = self_check(
            loaded,
            check_rows(source, states),
            columns if everything else None,
            first_row=job.plan.row_range(shard)[0],
            strict=job.strict,
        ).model_dump()
    arrays: dict[str, npt.NDArray[Any]] = dict(zip(COLUMN_FILES, columns, strict=True))
    writer.submit(lambda: job.work.write_piece(shard, SAE_PREFIX + source.slug, arrays, facts))
