"""``trace``: the top features along the sentences, as plots and as figures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from conceptatlas.base.errors import InputError
from conceptatlas.base.files import ensure_folder
from conceptatlas.base.kinds import TRACE
from conceptatlas.base.progress import progress_bar
from conceptatlas.base.provenance import write_run
from conceptatlas.base.writing import writing
from conceptatlas.concepts import GRADES
from conceptatlas.evidence import FeaturePeaks, FeatureRef, trace_features, write_summary
from conceptatlas.recording import Recording
from conceptatlas.views.study_folder import MANIFEST, Study

if TYPE_CHECKING:
    from conceptatlas.ranking import Ranking

EMERGENCE_FILE = "emergence.png"
SCORES_FILE = "score_by_rank.png"
MAX_SENTENCES = 20


@dataclass(frozen=True)
class TraceOptions:
    """What to trace and how to draw it; contradictions are refused when it is made.

    Attributes:
        top_n: How many of the best features.
        labels: The grades whose sentences are drawn and summarised.
        max_sentences: Sentences drawn per grade, in the order of the data; 0 draws all. The summary counts all.
        dpi: Dots per inch.
        figsize: Inches, width and height.
        max_token_len: Characters of a token shown on the axis.
    """

    top_n: int = 10
    labels: tuple[int, ...] = (2, 3)
    max_sentences: int = MAX_SENTENCES
    dpi: int = 150
    figsize: tuple[float, float] = (14.0, 7.0)
    max_token_len: int = 15

    def __post_init__(self) -> None:
        if self.top_n < 1:
            raise InputError(f"--top-n is {self.top_n}; give 1 or more.")
        if self.max_sentences < 0:
            raise InputError(f"--max-sentences is {self.max_sentences}; give 0 (all) or more.")
        if not self.labels or any(label not in GRADES for label in self.labels):
            raise InputError(f"--labels is {self.labels}; give grades of 0 to 3 with commas between, such as 2,3.")
        if not 20 <= self.dpi <= 1200:
            raise InputError(f"--dpi is {self.dpi}; give 20 to 1200.")
        if not all(2 <= side <= 60 for side in self.figsize):
            raise InputError(f"--figsize is {self.figsize}; give width,height in inches, each 2 to 60.")
        if self.max_token_len < 1:
            raise InputError(f"--max-token-len is {self.max_token_len}; give 1 or more.")


@dataclass(frozen=True)
class Traced:
    """What ``trace`` found and wrote."""

    path: Path
    features: tuple[FeaturePeaks, ...]
    plots: tuple[Path, ...] = field(default=())


def require_rows(recording: Recording, features: Sequence[FeatureRef]) -> None:
    """Refuse a recording that kept final rows only, and say which command records the asked columns again.

    Raises:
        InputError: It kept final rows only.
    """
    if recording.keeps_all_rows:
        return
    info = recording.manifest
    indices = ",".join(str(index) for index in sorted({feature.feature_id for feature in features})) or "11,313"
    asked = info.request.get("saes") or sorted({recording.sae(feature.slug).name for feature in features})
    saes = " ".join(f"--saes {spec}" for spec in ([asked] if isinstance(asked, str) else asked)) or "--saes S"
    raise InputError(
        f"{recording.path} kept the activations of final tokens only (--keep {info.options.keep}), and a trace needs "
        f"every token; record the asked columns again, which is quick: conceptatlas record DATA --model "
        f"{info.request.get('model') or info.subject.id} {saes} --keep all --features {indices} --out "
        f"{recording.path}-columns (DATA: where {info.concept.name!r} was read from), then trace with --rec "
        f"{recording.path}-columns."
    )


def trace(
    ranking: Ranking | str | os.PathLike[str],
    rec: Recording | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    top_n: int = 10,
    labels: Sequence[int] = (2, 3),
    max_sentences: int = MAX_SENTENCES,
    dpi: int = 150,
    figsize: tuple[float, float] = (14.0, 7.0),
    max_token_len: int = 15,
) -> Traced:
    """Draw the best features along the sentences and summarise where they peak.

    Writes ``label_{k}/sentence_{i:06d}.png`` (i is the item's number), ``summary_statistics.txt`` and ``.json``,
    ``feature_{rank:02d}_distribution.png``, ``emergence.png``, ``score_by_rank.png`` and ``run.json``.

    Args:
        ranking: A saved ranking, or its folder.
        rec: The recording that was ranked (or one of the same data with these columns), or its folder.
        out: The folder to write.
        top_n: How many of the best features.
        labels: The grades to draw and summarise.
        max_sentences: Sentences drawn per grade, in the order of the data; 0 draws all.
        dpi: Dots per inch.
        figsize: Inches.
        max_token_len: Characters of a token shown on the axis.

    Returns:
        The features' peaks (none where the ranking kept none) and the plots' paths.

    Raises:
        InputError: A bad option, a ranking in memory only, or a recording that kept final rows only.
    """
    options = TraceOptions(top_n, tuple(sorted(set(labels))), max_sentences, dpi, figsize, max_token_len)
    study = _study_of(ranking, rec)
    recording = study.recording
    assert recording is not None
    features = study.varied[: options.top_n]
    require_rows(recording, features)
    with writing(TRACE, out, {"ranking": study.path, "recording": recording.path}) as folder:
        traced = trace_features(recording, features, options.labels)
        write_summary(folder, traced)
        plots = [*_draw_curves(_searched(study), folder, options)]
        plots += _draw_distributions(study, features, folder, options)
        plots += _draw_sentences(study, features, folder, options)
        write_run(folder, command="trace", options=_options(study, recording, options))
    return Traced(Path(out), tuple(traced), tuple(Path(out) / path.relative_to(folder) for path in plots))


def _study_of(ranking: Ranking | str | os.PathLike[str], rec: Recording | str | os.PathLike[str]) -> Study:
    path = Path(ranking) if isinstance(ranking, (str, os.PathLike)) else ranking.path
    if path is None:
        raise InputError("This ranking is in memory only; save it first: ranking.save('rank').")
    recording = rec if isinstance(rec, Recording) else Recording.open(rec)
    study = Study(path, {"rank": path, "rec": recording.path})
    if study.ranking is None:
        from conceptatlas.ranking import Ranking

        Ranking.open(path)  # says what is missing
    return study


def _options(study: Study, recording: Recording, options: TraceOptions) -> dict[str, Any]:
    return {
        "rank": str(study.path),
        "rec": str(recording.path),
        "top_n": options.top_n,
        "labels": list(options.labels),
        "max_sentences": options.max_sentences,
        "dpi": options.dpi,
        "figsize": list(options.figsize),
        "max_token_len": options.max_token_len,
    }


def _searched(study: Study) -> Study:
    """Return the study over the recording that was ranked: the curves need features that a second one may lack."""
    named = study.run("rank").get("recording")
    if named and (Path(str(named)) / MANIFEST).is_file():
        return Study(study.path, study.stages | {"rec": Path(str(named))})
    return study


def _draw_curves(study: Study, folder: Path, options: TraceOptions) -> list[Path]:
    """Draw what is one picture per ranking."""
    from conceptatlas.views.emergence import emergence_of
    from conceptatlas.views.plots.curves import emergence_figure, score_by_rank_figure
    from conceptatlas.views.plots.style import save_png
    from conceptatlas.views.scores import score_curve

    assert study.recording is not None
    title = f"{study.title} in {study.recording.manifest.subject.id}"
    paths = [folder / EMERGENCE_FILE, folder / SCORES_FILE]
    save_png(emergence_figure(emergence_of(study), title=title, dpi=options.dpi), paths[0])
    save_png(score_by_rank_figure(score_curve(study), title=title, dpi=options.dpi), paths[1])
    return paths


def _draw_distributions(
    study: Study, features: Sequence[FeatureRef], folder: Path, options: TraceOptions
) -> list[Path]:
    """Draw one picture per feature."""
    from conceptatlas.views.plots.curves import distribution_figure
    from conceptatlas.views.plots.style import save_png

    paths = []
    for feature in features:
        path = folder / f"feature_{feature.rank or 0:02d}_distribution.png"
        figure = distribution_figure(
            study.scores(feature),
            study.labels,
            study.holdout,
            threshold=study.rows_by_rank.get(feature.rank or 0, {}).get("threshold"),
            title=f"{feature.rank}. {feature.label}",
            subtitle="a dot per sentence: filled for discovery, hollow for hold-out; dashed: the threshold",
            dpi=options.dpi,
        )
        save_png(figure, path)
        paths.append(path)
    return paths


def _draw_sentences(study: Study, features: Sequence[FeatureRef], folder: Path, options: TraceOptions) -> list[Path]:
    """Draw one picture per sentence of the asked grades."""
    from conceptatlas.views.plots.style import save_png
    from conceptatlas.views.plots.trajectories import TrajectoryOptions, trajectory_figure

    if not features:
        return []
    look = TrajectoryOptions(*options.figsize, options.dpi, options.max_token_len)
    limit = options.max_sentences or len(study.labels)
    chosen = [(label, int(i)) for label in options.labels for i in np.flatnonzero(study.labels == label)[:limit]]
    paths = []
    with progress_bar("Drawing sentences", len(chosen)) as bar:
        for label, item in chosen:
            start, stop = study.texts.bounds[item]
            figure = trajectory_figure(
                study.texts.pieces(item)[: stop - start],
                np.stack([study.column(feature)[start:stop] for feature in features]),
                features,
                title=study.texts.texts[item],
                subtitle=f"{study.title} · grade {label} · {'hold-out' if study.holdout[item] else 'discovery'} · "
                f"sentence {item}",
                options=look,
            )
            path = ensure_folder(folder / f"label_{label}") / f"sentence_{item:06d}.png"
            save_png(figure, path)
            paths.append(path)
            bar.advance()
    return paths
