"""``probe predict``: new sentences through the subject and a probe, read exactly as the training items were."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import numpy.typing as npt
import polars as pl

from conceptatlas.concepts import build_concept
from conceptatlas.concepts.sentences import read_sentences
from conceptatlas.probes.sources import InputSite, Pool, Rows, item_scores, sample_chunks
from conceptatlas.probes.versions import ProbeRun
from conceptatlas.recording import EMBED_SITE, Recording, record

if TYPE_CHECKING:
    from conceptatlas.subjects import LanguageSubject


@dataclass(frozen=True)
class Prediction:
    """What a probe says of new sentences.

    Attributes:
        table: One row per sentence (``sentence``; ``predicted``; for classes ``p_{class}``, and for grades
            ``expected_grade``), or per token where the probe reads every row (then also ``token``, ``position``).
        calibration: How far the probabilities were right on the test part of the probe's own data (Brier score,
            reliability curve); None for a regression.
        notes: What a reader must know, one sentence each.
    """

    table: pl.DataFrame
    calibration: Mapping[str, Any] | None
    notes: list[str]

    def _repr_html_(self) -> str:
        return self.table._repr_html_()


def predict_probe(
    run: ProbeRun | str | os.PathLike[str],
    sentences: Sequence[str] | str | os.PathLike[str],
    *,
    model: str | LanguageSubject | None = None,
    device: str = "auto",
) -> Prediction:
    """Run new sentences through the subject and a probe.

    Args:
        run: A version, or its folder.
        sentences: The sentences, or a file of them (``.txt``: one per line; ``.csv`` with a column ``sentence``;
            ``.jsonl`` with a key ``content``).
        model: The subject; by default the one that the probe's data were recorded from.
        device: Where to run it.

    Raises:
        InputError: The file or the model is not there, a sentence is empty, or the probe's SAEs cannot be found.
    """
    probe = run if isinstance(run, ProbeRun) else ProbeRun.open(run)
    texts = read_sentences(os.fspath(sentences) if isinstance(sentences, os.PathLike) else sentences).texts
    fitted = probe.model  # a file that is not trusted stops here, before any model is loaded
    with tempfile.TemporaryDirectory(prefix="conceptatlas-") as folder:
        rec = _record(probe, texts, Path(folder) / "rec", model, device)
        X = _inputs(probe, rec)
        table = _frame(rec, texts, every_row=probe.metadata["rows"] == "all")
        notes = _notes(probe, rec)
    del fitted
    return Prediction(table.hstack(_said(probe, X)), probe.results["calibration"], notes)


def _record(
    probe: ProbeRun, texts: list[str], folder: Path, model: str | LanguageSubject | None, device: str
) -> Recording:
    """Record the sentences as the probe's data were, only what the probe reads."""
    meta = probe.metadata
    pooled = meta["rows"] == "all" or meta["pool"] != "final"
    saes, features = _wanted_saes(probe, model)
    sites = [site for site in meta.get("input_sites", []) if site != EMBED_SITE]
    return record(
        build_concept("new sentences", texts, [0] * len(texts)),
        model or str(meta["model_location"]),
        saes,
        folder,
        keep="all" if pooled else "final",
        hidden="none" if saes else ("all" if pooled else "final"),
        hidden_sites=sites or EMBED_SITE,
        features=features,
        fragments=cast('Literal["token", "word"]', meta.get("fragments", "token")),
        device=device,
    )


def _wanted_saes(probe: ProbeRun, model: str | LanguageSubject | None) -> tuple[list[Any], list[int] | None]:
    """Return the SAEs that a probe on features reads, and the columns of them; nothing for a probe on states."""
    meta = probe.metadata
    if "input_features" not in meta:
        return [], None
    from conceptatlas.saes.identity import find_by_specs, find_referenced
    from conceptatlas.saes.reference import SAEReference

    subject = model if isinstance(model, str) else str(meta["model"])
    known = [SAEReference.model_validate_json(text) for text in meta.get("sae_references", ())]
    references = {reference.slug: reference for reference in known}
    sources = [
        find_referenced(references[slug])
        if slug in references
        else find_by_specs(slug, slug, meta["sae_specs"], subject)
        for slug in dict.fromkeys(meta["input_saes"])
    ]
    features = sorted({int(feature) for feature in meta["input_features"]})
    # Columns of several SAEs are named together; a number that one of them has not would be refused.
    fits = all(source.d_sae is None or features[-1] < source.d_sae for source in sources)
    return sources, features if fits else None


def _inputs(probe: ProbeRun, rec: Recording) -> npt.NDArray[np.float64]:
    """Return what the probe reads of each sample, raw, [n, D]."""
    meta = probe.metadata
    pool = cast(Pool, meta["pool"])
    if "input_features" not in meta:
        sites = [InputSite(site, layer) for site, layer in zip(meta["input_sites"], meta["input_layers"], strict=True)]
        chunks = sample_chunks(rec, sites, pool=pool, rows=cast(Rows, meta["rows"]))()
        return np.concatenate(list(chunks)).astype(np.float64)
    X = np.zeros((rec.n_items, len(meta["input_features"])))
    for slug in dict.fromkeys(meta["input_saes"]):
        scores = item_scores(rec, rec.columns(slug), pool)
        for column, (of, feature) in enumerate(zip(meta["input_saes"], meta["input_features"], strict=True)):
            if of == slug:
                span = slice(*np.searchsorted(scores.feature, [feature, feature + 1]))
                X[scores.item[span], column] = scores.value[span]
    return X


def _frame(rec: Recording, texts: list[str], *, every_row: bool) -> pl.DataFrame:
    if not every_row:
        return pl.DataFrame({"sentence": texts})
    rows = rec.rows
    return pl.DataFrame(
        {
            "sentence": [texts[item] for item in rows["item"]],
            "position": rows["position"],
            "token": rows["token"],
        }
    )


def _said(probe: ProbeRun, X: npt.NDArray[np.float64]) -> pl.DataFrame:
    columns: dict[str, npt.NDArray[Any]] = {"predicted": probe.predict(X)}
    if probe.task == "classification":
        classes = probe.metadata["classes"]
        probabilities = probe.probabilities(X)
        columns |= {f"p_{label}": probabilities[:, c] for c, label in enumerate(classes)}
        if probe.results["strategy"].endswith("concept"):
            columns["expected_grade"] = probabilities @ np.array(classes, dtype=np.float64)
    return pl.DataFrame(columns)


def _notes(probe: ProbeRun, rec: Recording) -> list[str]:
    notes = []
    info, meta = rec.manifest.subject, probe.metadata
    if meta.get("model_revision") and info.revision and info.revision != meta["model_revision"]:
        notes.append(
            f"The probe was trained on {meta['model']} at {meta['model_revision']}, and these are states of {info.id} at "
            f"{info.revision}: do not trust them unless the weights are the same."
        )
    if meta.get("model_dtype") and info.dtype != meta["model_dtype"]:
        notes.append(f"The probe was trained on {meta['model_dtype']} states, and these are {info.dtype}.")
    return notes
