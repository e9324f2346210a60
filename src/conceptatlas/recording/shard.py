"""One shard, whatever engine runs it: forward, then SAE by SAE, every piece written as soon as it is known."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from conceptatlas.base.errors import InputError, WorkError
from conceptatlas.recording.check import check_rows, self_check
from conceptatlas.recording.encode import (
    LoadedSAE,
    encode_sequences_of,
    encode_states,
    is_centred,
    load_sae,
    output_site,
    with_decoder,
)
from conceptatlas.recording.forward import pool_items, shard_states, to_numpy
from conceptatlas.recording.job import Job
from conceptatlas.recording.manifest import COLUMN_FILES, EMBED_SITE
from conceptatlas.recording.strongest import summarise
from conceptatlas.recording.work import HIDDEN_PIECE, SAE_PREFIX, pooled_piece_file
from conceptatlas.runtime.streams import Event, stream_for
from conceptatlas.runtime.threads import BackgroundWriter, each_in_a_thread, in_a_thread, thread_pool
from conceptatlas.saes import ReadyRows
from conceptatlas.saes.selfcheck import CheckRows
from conceptatlas.saes.sparse import SparseColumns
from conceptatlas.subjects.norms import row_norms
from conceptatlas.subjects.sites import Site

if TYPE_CHECKING:
    from conceptatlas.saes import SAESource
    from conceptatlas.subjects.language import LanguageSubject

NORMS_FILE = "norms.npy"
Piece = dict[str, npt.NDArray[Any]]


class EncoderCache:
    """Keeps encoders between shards while they fit into ``limit_bytes`` together; what is kept changes no result."""

    def __init__(self, job: Job, device: str, *, limit_bytes: int) -> None:
        self._sae_dtype = job.options.sae_dtype
        self._device = device
        # Beside the SAE at work. Memory that one leaves is not written to before its features have reached the host.
        self._stream = stream_for("loading", torch.device(device))
        self._limit = limit_bytes
        self._used = 0
        self._kept: dict[str, LoadedSAE] = {}

    def get(self, source: SAESource, shard: int) -> LoadedSAE:
        """Return a loaded encoder; for the first shard, in which SAEs are checked, with its decoder beside it."""
        with self._stream.work():
            loaded = self._encoder(source)
            loaded = loaded if shard else with_decoder(loaded, self._device)
            Event(torch.device(self._device)).wait()  # so that it may be used in any stream
        return loaded

    def _encoder(self, source: SAESource) -> LoadedSAE:
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


@dataclass(frozen=True)
class States:
    """The hidden states of a shard.

    Attributes:
        rows: site → [T_shard, D], the rows.
        tokens: site → one [L, D] per item, every token, where an SAE needs whole sequences.
        ready: The rows of the site at work, ready for products.
    """

    rows: dict[str, torch.Tensor]
    tokens: dict[str, list[torch.Tensor]]
    ready: ReadyRows = field(default_factory=ReadyRows)
    _checked: dict[tuple[Site, Site | None, bool], CheckRows] = field(default_factory=dict)

    def check_rows(self, source: SAESource) -> CheckRows:
        """Return the rows that an SAE is checked on, the same for all SAEs of a site."""
        sites = Site.parse(source.site), output_site(source), is_centred(source)
        if sites not in self._checked:
            self._checked[sites] = check_rows(source, self.rows)
        return self._checked[sites]


def run_shard(job: Job, shard: int, loaders: Loaders, tick: Callable[[str], None]) -> None:
    """Do what is left of one shard; ``tick`` is called with an SAE's slug when its piece is on its way to the disk.

    Raises:
        InputError: An SAE does not fit the width of its site.
        WorkError: The disk is full, or an SAE fails the self-check under ``--strict-check``.
    """
    missing = job.missing(shard)
    if not missing and job.work.has_piece(shard, HIDDEN_PIECE):
        return
    writer = BackgroundWriter()
    # On a CPU one SAE's tiles fill the gaps that others leave: where they wait for a last tile, or for their check.
    threads = torch.get_num_threads()
    shared = job.options.device == "cpu" and all(source.is_row_wise for source in missing)
    at_once = 3 if shared and threads > 1 else 1
    with thread_pool(1, "load", threads) as loader, thread_pool(at_once, "encode-sae", threads) as encoders:
        try:
            loading = [loader.submit(loaders.encoders.get, source, shard) for source in missing[:1]]
            states = _forward(job, shard, missing, loaders.subject())
            _submit_hidden(job, shard, states.rows, writer)
            encoding: deque[tuple[str, Future[None]]] = deque()
            for number in range(len(missing)):
                loaded = loading.pop().result()
                loading += [
                    loader.submit(loaders.encoders.get, source, shard) for source in missing[number + 1 : number + 2]
                ]
                encoding.append((loaded.source.slug, encoders.submit(_encode_one, job, shard, loaded, states, writer)))
                if len(encoding) == at_once:
                    _wait(*encoding.popleft(), tick)
            for under_way in encoding:
                _wait(*under_way, tick)
        except BaseException:
            writer.abandon()
            raise
        writer.close()


def _wait(slug: str, encoding: Future[None], tick: Callable[[str], None]) -> None:
    encoding.result()
    tick(slug)


def _forward(job: Job, shard: int, missing: list[SAESource], subject: LanguageSubject) -> States:
    """Run the model over a shard; once more, with every token kept, for SAEs that are not encoded row by row."""
    rows = shard_states(job.plan, subject, job.sites_of(shard), shard, job.batch_tokens)
    sites = {Site.parse(source.site) for source in missing if not source.is_row_wise}
    if not sites:
        return States(rows, {})
    found = shard_states(job.plan, subject, sorted(sites, key=str), shard, job.batch_tokens, every_token=True)
    first, last = job.plan.shards[shard]
    lengths = [len(ids) for ids in job.plan.token_ids[first:last]]
    return States(rows, {site: list(torch.split(states, lengths)) for site, states in found.items()})


def _submit_hidden(job: Job, shard: int, states: dict[str, torch.Tensor], writer: BackgroundWriter) -> None:
    """Queue the hidden states to be kept, and every row's norm at every site [T_shard, S]."""
    if job.work.has_piece(shard, HIDDEN_PIECE):
        return
    final = torch.from_numpy(job.plan.final_rows(shard))
    arrays: Piece = {}
    if job.options.hidden != "none":
        for site in job.kept_sites:
            kept = states[site]
            kept = kept if job.options.hidden == "all" else kept[final.to(kept.device)]
            arrays[f"{site}.npy"] = to_numpy(kept)
    if job.options.keeps_pooled:
        arrays |= _pooled(job, shard, states)
    names = [str(site) for site in job.sites if str(site) != EMBED_SITE]
    first, last = job.plan.row_range(shard)
    norms = np.zeros((last - first, len(names)), dtype=np.float32)
    norms_of = each_in_a_thread if job.options.device == "cpu" else map
    for column, found in enumerate(norms_of(lambda name: row_norms(states[name]), names)):
        norms[:, column] = found
        if not np.isfinite(norms[:, column]).all():
            row = first + int(np.argmin(np.isfinite(norms[:, column])))
            item, token = job.plan.rows.select("item", "token").row(row)
            raise WorkError(
                f"The hidden state of item {item} at {names[column]} (token {token!r}) is not finite in "
                f"{job.options.dtype}; run the model with --dtype float32 or bfloat16."
            )
    arrays[NORMS_FILE] = norms
    writer.submit(lambda: job.work.write_piece(shard, HIDDEN_PIECE, arrays, {"sites": names}))


def _pooled(job: Job, shard: int, states: dict[str, torch.Tensor]) -> Piece:
    """Return mean and maximum over each item's rows at every kept site, by the name of their file in the piece."""
    lengths = job.plan.row_counts(shard)
    each = each_in_a_thread if job.options.device == "cpu" else map
    found = each(lambda site: pool_items(states[site], lengths), job.kept_sites)
    return {
        pooled_piece_file(how, site): to_numpy(pooled)
        for site, by_pooling in zip(job.kept_sites, found, strict=True)
        for how, pooled in by_pooling.items()
    }


def _encode_one(job: Job, shard: int, loaded: LoadedSAE, states: States, writer: BackgroundWriter) -> None:
    """Encode one SAE over a shard, check it, and queue its piece."""
    source = loaded.source
    first_row = job.plan.row_range(shard)[0]
    columns = _encoded(job, shard, loaded, states, first_row)
    facts: dict[str, object] = {"nnz": columns.nnz}
    if shard == 0:
        everything = job.options.keep != "final" and job.options.features is None
        rows, known = states.check_rows(source), columns if everything else None
        sequences = zip(states.tokens.get(str(Site.parse(source.site)), ()), job.plan.masks, strict=False)
        check = partial(self_check, loaded, rows, known, first_row=first_row, strict=job.strict, sequences=sequences)
        facts["check"] = (in_a_thread(check) if job.options.device == "cpu" else check()).model_dump()

    def write() -> None:
        job.work.write_piece(shard, SAE_PREFIX + source.slug, piece_of(job, columns), facts)

    writer.submit(write)


def _encoded(job: Job, shard: int, loaded: LoadedSAE, states: States, first_row: int) -> SparseColumns:
    source = loaded.source
    site = str(Site.parse(source.site))
    x_TD = states.rows[site]
    if x_TD.shape[1] != source.d_in:
        raise InputError(
            f"The SAE {source.sae_id!r} takes rows of width {source.d_in}, and {source.site} of this model has width "
            f"{x_TD.shape[1]}; it belongs to another model or site."
        )
    only = job.plan.final_rows(shard) if job.options.keep == "final" else None
    if loaded.encoder is None:
        first, last = job.plan.shards[shard]
        return encode_sequences_of(
            states.tokens[site], job.plan.masks[first:last], loaded, first_row=first_row, only=only,
            features=job.options.features,
        )  # fmt: skip
    ready = states.ready if only is None else None
    return encode_states(x_TD, loaded, first_row=first_row, only=only, features=job.options.features, ready_rows=ready)


def piece_of(job: Job, columns: SparseColumns) -> Piece:
    """Return what is written of an SAE's columns over a shard: themselves, or with ``--keep top`` their summary."""
    if job.options.keep != "top":
        return dict(zip(COLUMN_FILES, columns, strict=True))
    return dict(summarise(columns, job.options.per_feature or 1, job.options.seed).arrays())
