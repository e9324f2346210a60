"""What ``manifest.json`` of a recording holds: format and version, where everything came from, checksums.

Nothing in it depends on the time or the host, so an interrupted run that was continued has the same bytes as one that
was not.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from conceptatlas.base.artefact import (
    SEAL_FILE,
    Artefact,
    FileSeal,
    identity,
    make_seal,
    read_seal,
    remember_sealed,
)
from conceptatlas.base.errors import InputError
from conceptatlas.base.files import json_text, read_json, write_text
from conceptatlas.base.kinds import RECORDING
from conceptatlas.saes.reference import SAEReference

FORMAT = "conceptatlas.recording"
VERSION = 1
MANIFEST_FILE = RECORDING.marker
ITEMS_FILE = "items.parquet"
ROWS_FILE = "rows.parquet"
HIDDEN_FOLDER = "hidden"
POOLED_FOLDER = "pooled"
FEATURES_FOLDER = "features"
COLUMN_FILES = ("indptr.npy", "rows.npy", "values.npy")
TOP_FILE = "top.parquet"
EMBED_SITE = "embed"
NEURONPEDIA = "https://www.neuronpedia.org"

Keep = Literal["all", "final", "top"]
Hidden = Literal["final", "all", "none"]
Pooling = Literal["mean", "max"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)


class _Model(BaseModel):
    # Keys that a later minor version adds are read over, never an error.
    model_config = ConfigDict(extra="ignore", frozen=True)


class FileCheck(_Model):
    """The size and the checksum of one file."""

    bytes: int
    sha256: str


class SubjectInfo(_Model):
    """The model under study."""

    id: str
    location: str = ""
    """The folder or hub id that it was loaded from."""
    revision: str | None = None
    model_class: str = ""
    dtype: str = "float32"
    attention: str = ""
    d_model: int
    n_layers: int
    prefix: str = ""
    """Why one pass gives every fragment, or that fragments had passes of their own."""
    bos: str = ""
    """Who put the BOS first: the tokenizer, we, or nobody."""


class ConceptInfo(_Model):
    """The labelled items."""

    name: str
    data_hash: str
    n_items: int
    skipped: int = 0


class RecordOptions(_Model):
    """The options that decide what a recording holds (nothing about how fast or where)."""

    keep: Keep = "all"
    per_feature: int | None = None
    hidden: Hidden = "final"
    hidden_sites: list[str] = Field(default_factory=list)
    fragments: Literal["token", "word"] = "token"
    features: list[int] | None = None
    device: str = "cpu"
    dtype: str = "float32"
    sae_dtype: Literal["float32", "mixed"] = "float32"
    max_tokens: int | None = None
    truncate: bool = False
    seed: int = 0
    group_near_duplicates: bool = False

    @property
    def keeps_pooled(self) -> bool:
        """Whether the mean and the maximum over each item's rows are kept beside its final hidden state.

        With ``--hidden all`` they follow from what is kept, and where features are kept at final rows only nothing is
        pooled.
        """
        return self.hidden == "final" and self.keep == "all"


class PlanInfo(_Model):
    """How the work was cut: a function of data and options only."""

    n_rows: int
    n_tokens: int
    shards: list[tuple[int, int]] = Field(default_factory=list)
    """Half-open ranges of items."""
    batch_tokens: int = 0
    """Tokens of a forward batch, padding included, at most."""
    tile_features: list[int] = Field(default_factory=list)
    """Features that are encoded at a time in each shard (by SAEs that are encoded feature by feature)."""
    truncated: int = 0


class SiteInfo(_Model):
    """Figures of one site over all rows (Euclidean norms of the hidden states)."""

    median_norm: float
    mean_norm: float
    sinks: int
    """Rows whose norm is above ten times the median: attention sinks."""


def pooled_file(how: str, site: str) -> str:
    """Return where the hidden states of a site, pooled over each item's rows, stand in a recording."""
    return f"{POOLED_FOLDER}/{how}/{site}.npy"


def l0_text(average_l0: float) -> str:
    """Return an L0 as file names and keys write it: without a fraction where it has none."""
    return f"{round(average_l0, 3):g}" if average_l0 < 1e6 else str(round(average_l0))


class RecordedSAE(_Model):
    """One SAE of a recording."""

    slug: str
    sae_id: str
    release: str = ""
    site: str
    layer: int
    d_in: int
    d_sae: int
    architecture: str = ""
    average_l0: float
    """The registry's figure, else the config's, else the measured one (``l0_measured``)."""
    l0_measured: bool = False
    neuronpedia_id: str | None = None
    model_name: str | None = None
    source: str = ""
    """What it was asked for by (release and pattern, folder, ``organism``)."""
    reference: SAEReference | None = None
    """By which the very SAE is found again (see ``Recording.source``); older recordings have none."""
    control_of: str | None = None
    """The SAE whose frozen-decoder control this is: its features are a baseline and are not ranked."""
    l0: float | None = None
    """Mean number of active features on the rows checked."""
    fvu: float | None = None
    """Fraction of variance unexplained on the rows checked."""
    status: str = "not judged"
    """``ok``, ``suspect``, or ``not judged``: too few rows, or nothing to compare with."""
    message: str = ""
    """What does not fit, or what could not be compared; empty where all was compared and is well."""
    rows_checked: int = 0
    nnz: int = 0
    checksum: dict[str, FileCheck] = Field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """The self-check's ``status``, as people read it: ``ok, in part`` where something could not be compared."""
        return "ok, in part" if self.status == "ok" and self.message else self.status

    @property
    def name(self) -> str:
        """``release/sae_id``, or the sae_id alone for a local one."""
        return f"{self.release}/{self.sae_id}" if self.release else self.sae_id

    @property
    def short_name(self) -> str:
        """``layer_12_l0_71``: how files name an SAE. Two SAEs can share it; see ``Recording.short_names``."""
        return f"layer_{self.layer}_l0_{l0_text(self.average_l0)}"

    def neuronpedia_url(self, feature: int) -> str:
        """Return the feature's page, or an empty string where this very SAE has none."""
        return f"{NEURONPEDIA}/{self.neuronpedia_id}/{feature}" if self.neuronpedia_id else ""


class Manifest(_Model):
    """``manifest.json``: it exists if and only if the recording is whole."""

    format: str = FORMAT
    version: int = VERSION
    subject: SubjectInfo
    tokenizer: str = ""
    template: str | None = None
    concept: ConceptInfo
    options: RecordOptions = Field(default_factory=RecordOptions)
    request: dict[str, Any] = Field(default_factory=dict)
    """The options as they were given, to be compared when the same folder is asked for again."""
    plan: PlanInfo
    sites: dict[str, SiteInfo] = Field(default_factory=dict)
    warnings: list[str] = Field(default_factory=list)
    histogram_edges: list[float] | None = None
    """Edges of the histograms of ``top.parquet`` (magnitudes; the outer bins hold what lies beyond)."""
    saes: list[RecordedSAE] = Field(default_factory=list)
    files: dict[str, FileCheck] = Field(default_factory=dict)
    """The files that belong to no SAE, by their path in the recording."""

    def all_files(self) -> dict[str, FileCheck]:
        """Return every file of the recording with its check, by its path in the recording."""
        found = dict(self.files)
        for sae in self.saes:
            for name, check in sae.checksum.items():
                found[f"{FEATURES_FOLDER}/{sae.slug}/{name}"] = check
        return found


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of the recording in ``folder``.

    Raises:
        InputError: There is none, it is not ours, it is of a later version, or it is damaged.
    """
    path = folder / MANIFEST_FILE
    if not path.exists():
        started = (folder / ".work").exists()
        hint = "it was not finished: run `conceptatlas record` again to go on" if started else "check the path"
        raise InputError(f"There is no recording in {folder} (no {MANIFEST_FILE}); {hint}.")
    raw = read_json(path)
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise InputError(f"{path} is not the manifest of a recording (its format is not {FORMAT!r}); check the path.")
    version = raw.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise InputError(
            f"{path} has format version {version}, and this conceptatlas reads up to {VERSION}; update conceptatlas."
        )
    try:
        return Manifest.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path} is damaged at {place!r}: {first['msg']}; record again.") from error


def seal_recording(folder: Path, manifest: Manifest, *, since_ns: int = 0) -> None:
    """Write seal and manifest of a recording whose files are in place; the manifest comes last, for it says "whole".

    Args:
        folder: The recording's folder.
        manifest: Its manifest, with the checks of every file.
        since_ns: When the writing began (ns since 1970): what is older is read again when it is opened.
    """
    text = json_text(manifest.model_dump(mode="json"))
    files = {name: FileSeal(check.bytes, check.sha256) for name, check in manifest.all_files().items()}
    files[MANIFEST_FILE] = FileSeal(len(text.encode()), hashlib.sha256(text.encode()).hexdigest())
    sealed = make_seal(RECORDING, folder, {"data": manifest.concept.data_hash}, files)
    write_text(folder / MANIFEST_FILE, text)
    remember_sealed(sealed, since_ns)


def open_recording(folder: Path) -> tuple[Manifest, Artefact]:
    """Return the manifest of a recording, and what verifies its files: its seal, or what an older manifest says of them.

    Raises:
        InputError: See ``read_manifest``.
        WorkError: The seal is damaged, or the manifest is not what it says.
    """
    path = folder / MANIFEST_FILE
    if path.exists() and (folder / SEAL_FILE).exists():
        sealed = read_seal(RECORDING, folder)
        sealed.verify([MANIFEST_FILE])
        return read_manifest(folder), sealed
    manifest = read_manifest(folder)
    files = {name: FileSeal(check.bytes, check.sha256) for name, check in manifest.all_files().items()}
    return manifest, Artefact(RECORDING, folder, identity(folder), {"data": manifest.concept.data_hash}, files)
