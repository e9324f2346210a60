"""``prompts universal | specific | both``: read every source once, and write the tables."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import polars as pl

from conceptatlas.base.errors import InputError
from conceptatlas.base.files import write_csv, write_text
from conceptatlas.base.progress import progress_bar
from conceptatlas.base.provenance import RUN_FILE, write_run
from conceptatlas.base.writing import may_replace
from conceptatlas.prompts.analysis import (
    SPECIFIC_COLUMNS,
    UNIVERSAL_COLUMNS,
    active_prompts,
    check_thresholds,
    contrast_rows,
    specific_rows,
    universal_rows,
    with_q_values,
)
from conceptatlas.prompts.data import FeatureList, load_features, load_prompts
from conceptatlas.prompts.reading import ChatOptions, read_sources
from conceptatlas.prompts.sources import Source, resolve_sources

# Paths that run.json gives as seen from its own folder.
_IN_FOLDER = ("universal_output", "features_csv", "specific_output")

Analysis = Literal["universal", "specific", "both"]


@dataclass(frozen=True)
class PromptsConfig:
    """One run.

    Attributes:
        analysis: What to find.
        prompts_path: A JSONL file, or a folder of them.
        sources: Built-in names, ``organism``, or ``NAME=MODEL,SAES``; the default set where empty.
        chat: How prompts are put to the models.
        threshold: Share of the prompts on which a universal feature is active.
        activation_threshold: Above this a feature is active.
        universal_output: The CSV of universal features.
        features_csv: The list of features to follow; with ``both`` the universal ones where None.
        specific_output: The CSV of the followed features.
        record_prompts: Also write ``{stem}_activeprompts.jsonl`` beside ``specific_output``.
        by: ``label`` for the contrast between labels (``{stem}_by_label.csv`` beside ``universal_output``).
    """

    analysis: Analysis
    prompts_path: Path = Path("prompts")
    sources: tuple[str, ...] = ()
    chat: ChatOptions = field(default_factory=ChatOptions)
    threshold: float = 0.3
    activation_threshold: float = 0.01
    universal_output: Path | None = None
    features_csv: Path | None = None
    specific_output: Path | None = None
    record_prompts: bool = False
    by: str | None = None

    def __post_init__(self) -> None:
        """Reject contradictions."""
        check_thresholds(self.threshold, self.activation_threshold)
        if self.by not in (None, "label"):
            raise InputError(f"--by is {self.by!r}; label is the one column that prompts are compared by.")
        if self.analysis in ("universal", "both") and self.universal_output is None:
            raise InputError("The universal features need a file: give --universal-output U.csv.")
        if self.analysis in ("specific", "both") and self.specific_output is None:
            raise InputError("The followed features need a file: give --specific-output P.csv.")
        if self.analysis == "specific" and self.features_csv is None:
            raise InputError("Nothing says which features to follow: give --features-csv F.csv (feature_id, source).")

    @property
    def beside(self) -> Path:
        """The table beside which everything else is written."""
        path = self.universal_output or self.specific_output
        assert path is not None
        return path

    @property
    def active_output(self) -> Path | None:
        """The file of prompts that activate the followed features, where it is asked for."""
        path = self.specific_output
        if path is None or self.analysis == "universal" or not self.record_prompts:
            return None
        return path.with_name(f"{path.stem}_activeprompts.jsonl")

    @property
    def contrast_output(self) -> Path | None:
        """The table of the contrast between labels, where it is asked for."""
        return self.beside.with_name(f"{self.beside.stem}_by_{self.by}.csv") if self.by else None

    @property
    def outputs(self) -> list[Path]:
        """Every file that is written."""
        tables = [self.universal_output if self.analysis != "specific" else None]
        tables += [self.specific_output if self.analysis != "universal" else None]
        found = [*tables, self.active_output, self.contrast_output, self.beside.parent / RUN_FILE]
        return [path for path in found if path is not None]


@dataclass(frozen=True)
class PromptsResult:
    """What a run found.

    Attributes:
        universal: The universal features (empty table where not asked for).
        specific: The followed features.
        contrast: Activity by label, where asked for.
        warnings: What the user should know: duplicates, control strings, default system prompts, rows left out.
        written: The files.
    """

    universal: pl.DataFrame
    specific: pl.DataFrame
    contrast: pl.DataFrame
    warnings: list[str]
    written: list[Path]


def analyse_prompts(config: PromptsConfig) -> PromptsResult:
    """Run the analysis and write its tables.

    Raises:
        InputError: The prompts, the features, a source or an option is wrong.
    """
    for path in config.outputs:
        may_replace(path, (".csv", ".jsonl", ".json"), [config.prompts_path, config.features_csv])
    prompt_set = load_prompts(config.prompts_path)
    prompts = prompt_set.prompts
    sources = resolve_sources(config.sources)
    widths = {source.name: int(source.sae.d_sae or 0) for source in sources}
    features = load_features(config.features_csv, widths) if config.features_csv else FeatureList({}, {})
    warnings = _data_warnings(prompt_set.duplicates, len(prompt_set), features)
    universal: list[dict[str, Any]] = []
    specific: list[dict[str, Any]] = []
    contrast: list[dict[str, Any]] = []
    with progress_bar("prompts", total=len(sources) + len({source.model for source in sources})) as bar:

        def tick(what: str) -> None:
            bar.describe(what)
            bar.advance()

        for reading in read_sources(sources, prompts, config.chat, tick=tick):
            mine: list[dict[str, Any]] = []
            if config.analysis != "specific":
                mine = universal_rows(
                    reading, threshold=config.threshold, activation_threshold=config.activation_threshold
                )
                universal += mine
            if config.analysis != "universal":
                followed = features if config.features_csv else _listed(reading.source, mine)
                specific += specific_rows(reading, followed, prompts)
            if config.by:
                contrast += contrast_rows(reading, prompts, activation_threshold=config.activation_threshold)
            warnings += reading.notes
            warnings += _reading_warnings(reading.source, reading.control, reading.default_system, config.chat)
    tables = (
        pl.DataFrame(universal, schema=UNIVERSAL_COLUMNS),
        pl.DataFrame(specific, schema=SPECIFIC_COLUMNS),
        pl.DataFrame(with_q_values(contrast), infer_schema_length=None),
    )
    written = _write(config, sources, tables, specific)
    return PromptsResult(*tables, warnings=list(dict.fromkeys(warnings)), written=written)


def _listed(source: Source, universal: Sequence[dict[str, Any]]) -> FeatureList:
    """Return the universal features of one source as the list to follow."""
    return FeatureList({source.name: list(dict.fromkeys(row["feature_id"] for row in universal))}, {})


def _data_warnings(duplicates: int, n_prompts: int, features: FeatureList) -> list[str]:
    found = []
    if duplicates:
        found.append(f"{duplicates} of {n_prompts} prompts repeat an earlier one; each counts.")
    if features.outside:
        named = ", ".join(f"{source} ({count})" for source, count in sorted(features.outside.items()))
        total = sum(features.outside.values())
        found.append(f"{total} rows of the features CSV belong to sources outside this run and are left out: {named}.")
    return found


def _reading_warnings(source: Source, control: list[int], default_system: str, options: ChatOptions) -> list[str]:
    found = []
    if default_system:
        found.append(f"The template of {source.model} adds a system prompt of its own: {default_system!r}.")
    if control:
        how = "as plain text" if options.escape_control else "as control tokens (--escape-control reads them as text)"
        first = ", ".join(map(str, control[:5]))
        found.append(f"{len(control)} prompts contain control strings of {source.model} (first: {first}); read {how}.")
    return found


def _write(
    config: PromptsConfig,
    sources: Sequence[Source],
    tables: tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame],
    specific: list[dict[str, Any]],
) -> list[Path]:
    universal, followed, contrast = tables
    written = []
    if config.universal_output is not None and config.analysis != "specific":
        written.append(_write_csv(universal, config.universal_output))
    if config.specific_output is not None and config.analysis != "universal":
        written.append(_write_csv(followed, config.specific_output))
    if config.active_output is not None:
        by_name = {source.name: source for source in sources}
        entries = active_prompts(specific, by_name, activation_threshold=config.activation_threshold)
        write_text(config.active_output, "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries))
        written.append(config.active_output)
    if config.contrast_output is not None:
        written.append(_write_csv(contrast, config.contrast_output))
    beside = config.beside
    options = {
        key: [str(one) for one in value]
        if isinstance(value, tuple)
        else (str(value) if isinstance(value, Path) else value)
        for key, value in asdict(config).items()
    }
    options |= {key: os.path.relpath(str(options[key]), beside.parent) for key in _IN_FOLDER if options[key]}
    write_run(
        beside.parent, command=f"prompts {config.analysis}", options=options, files=[path.name for path in written]
    )
    return written


def _write_csv(table: pl.DataFrame, path: Path) -> Path:
    write_csv(path, table)
    return path
