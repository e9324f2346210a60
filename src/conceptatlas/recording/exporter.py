"""``export``: a recording as dense ``.npz`` files, one per SAE, or as AnnData."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import scipy.sparse as sp

from conceptatlas.base.errors import InputError, unknown_name
from conceptatlas.base.files import atomic_file
from conceptatlas.base.kinds import ANNDATA, NPZ, Kind
from conceptatlas.base.writing import writing
from conceptatlas.recording.manifest import EMBED_SITE, RecordedSAE
from conceptatlas.recording.store import Recording

# Bytes of a dense block that is in memory at a time.
_BLOCK_BYTES = 32 << 20
# Zip files carry a time; a fixed one keeps exports of the same recording identical.
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)

Tick = Callable[[str], None]


def export(recording: Recording, out: str | Path, *, format: str = "npz", tick: Tick = lambda _: None) -> list[Path]:  # noqa: A002
    """Write a recording in another format, one file per SAE, and return the files.

    Args:
        recording: The recording.
        out: The folder to write into.
        format: ``npz`` or ``anndata``.
        tick: Called with each file's name when it is about to be written.

    Raises:
        InputError: An unknown format, a folder that cannot be written, or a package that is missing.
    """
    if format not in EXPORTERS:
        raise unknown_name("format", format, EXPORTERS)
    if recording.manifest.options.keep == "top":
        raise InputError(f"{recording.path} kept only top examples (--keep top), which have no dense form.")
    write, suffix, kind = EXPORTERS[format]
    rows = exported_rows(recording)
    names = [f"{recording.short_names[sae.slug]}{suffix}" for sae in recording.saes]
    with writing(kind, out, {"recording": recording.path}) as folder:
        for sae, name in zip(recording.saes, names, strict=True):
            tick(name)
            write(folder / name, recording, sae, rows)
    return [Path(out) / name for name in names]


def exported_rows(recording: Recording) -> npt.NDArray[np.int64]:
    """Return the rows that an export holds: all, or the final ones where only these were encoded."""
    return np.arange(recording.n_rows) if recording.keeps_all_rows else recording.final_rows


def sparse_rows(recording: Recording, slug: str, rows: npt.NDArray[np.int64]) -> sp.csr_array:
    """Return an SAE's activations on ``rows`` as a CSR matrix, float32 [len(rows), F]."""
    columns = recording.columns(slug)
    shape = (recording.n_rows, columns.n_features)
    matrix = sp.csc_array((columns.values, columns.rows, columns.indptr), shape=shape).tocsr()
    return matrix if len(rows) == recording.n_rows else matrix[rows]


# npz ------------------------------------------------------------------------------------------------------------------


class _Npz:
    """A compressed ``.npz`` that is written array by array, block by block."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive

    def add(self, name: str, array: npt.ArrayLike) -> None:
        """Write a small array."""
        found = np.asarray(array)
        self.add_blocks(name, found.dtype, found.shape, [found])

    def add_blocks(
        self, name: str, dtype: npt.DTypeLike, shape: tuple[int, ...], blocks: Iterable[npt.NDArray[Any]]
    ) -> None:
        """Write an array of which the blocks (of first dimension) come one by one."""
        info = zipfile.ZipInfo(f"{name}.npy", date_time=_ZIP_TIME)
        info.compress_type = zipfile.ZIP_DEFLATED
        header = {
            "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
            "fortran_order": False,
            "shape": shape,
        }
        with self._archive.open(info, "w", force_zip64=True) as member:
            np.lib.format.write_array_header_1_0(member, header)
            for block in blocks:
                member.write(np.ascontiguousarray(block, dtype=dtype).tobytes())


def write_npz(path: Path, recording: Recording, sae: RecordedSAE, rows: npt.NDArray[np.int64]) -> None:
    """Write one SAE as ``.npz``; every array but ``hidden_states`` and ``embeddings`` has one entry per fragment.

    ``hidden_states`` and ``embeddings`` are [n_sentences, D] where the hidden states of final rows were kept, and
    [n_fragments, D] where all were.
    """
    items = recording.items
    table = recording.rows[rows]
    item = table["item"].to_numpy()
    texts = items["text"].to_list()
    ends = table["fragment_end"].to_list()
    fragments = [texts[i][:end] for i, end in zip(item.tolist(), ends, strict=True)]
    with (
        atomic_file(path) as handle,
        zipfile.ZipFile(handle, "w", compression=zipfile.ZIP_DEFLATED, compresslevel=4) as archive,
    ):
        npz = _Npz(archive)
        matrix = sparse_rows(recording, sae.slug, rows)
        npz.add_blocks("activations", np.float32, matrix.shape, _dense_blocks(matrix))
        _add_texts(npz, "fragments", fragments)
        _add_texts(npz, "original_sentences", [texts[i] for i in item.tolist()])
        npz.add("concept_strength_labels", items["label"].to_numpy()[item].astype(np.int64))
        npz.add("sentence_indices", item.astype(np.int64))
        npz.add("token_positions", table["position"].to_numpy().astype(np.int64))
        npz.add("is_final_token", table["is_final"].to_numpy())
        npz.add("fragment_lengths", np.array([len(text.split()) for text in fragments], dtype=np.int64))
        _add_texts(npz, "group", [items["group"][i] for i in item.tolist()])
        npz.add("split_hash", items["split_hash"].to_numpy()[item])
        npz.add("layer", np.int64(sae.layer))
        npz.add("average_l0", np.float64(sae.average_l0))
        npz.add("num_features", np.int64(sae.d_sae))
        for name, site in (("hidden_states", sae.site), ("embeddings", EMBED_SITE)):
            if site in recording.hidden_sites:
                npz.add(name, recording.hidden(site))


def _dense_blocks(matrix: sp.csr_array) -> Iterator[npt.NDArray[np.float32]]:
    step = max(1, _BLOCK_BYTES // (4 * matrix.shape[1]))
    for first in range(0, matrix.shape[0], step):
        yield matrix[first : first + step].toarray()


def _add_texts(npz: _Npz, name: str, texts: list[str]) -> None:
    """Write texts as NumPy's fixed-width characters, in blocks: no pickle, so anyone may load them."""
    width = max((len(text) for text in texts), default=1) or 1
    kind = np.dtype(f"<U{width}")
    step = max(1, _BLOCK_BYTES // kind.itemsize)
    blocks = (np.array(texts[first : first + step], dtype=kind) for first in range(0, len(texts), step))
    npz.add_blocks(name, kind, (len(texts),), blocks)


# AnnData --------------------------------------------------------------------------------------------------------------


def write_anndata(path: Path, recording: Recording, sae: RecordedSAE, rows: npt.NDArray[np.int64]) -> None:
    """Write one SAE as AnnData (``.h5ad``): rows are observations, features are variables, all of it sparse.

    Raises:
        InputError: The package anndata is missing.
    """
    try:
        import anndata
        import pandas as pd
    except ImportError as error:
        raise InputError(
            "The format anndata needs the package anndata; install it with: pip install 'conceptatlas[anndata]'."
        ) from error
    table = recording.rows[rows].join(
        recording.items.select("item", "text", "label", "group", "split_hash"), on="item", how="left"
    )
    # AnnData's file format holds no unsigned 64-bit index in its tables; the hash is an identity, not a number.
    table = table.with_columns(pl.col("split_hash").cast(pl.String))
    obs = pd.DataFrame({name: table[name].to_list() for name in table.columns if name != "row"})
    obs.index = table["row"].cast(pl.String).to_list()
    var = pd.DataFrame(index=[str(feature) for feature in range(sae.d_sae)])
    found = anndata.AnnData(X=sparse_rows(recording, sae.slug, rows), obs=obs, var=var)
    found.uns["sae"] = {"sae_id": sae.sae_id, "release": sae.release, "site": sae.site, "average_l0": sae.average_l0}
    found.write_h5ad(path)


Write = Callable[[Path, Recording, RecordedSAE, npt.NDArray[np.int64]], None]
EXPORTERS: dict[str, tuple[Write, str, Kind]] = {
    "npz": (write_npz, "_activations.npz", NPZ),
    "anndata": (write_anndata, "_activations.h5ad", ANNDATA),
}
