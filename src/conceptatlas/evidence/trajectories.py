"""When a feature fires: its activation along the tokens of each item, and where that peaks.

Definitions (they are this package's own; the literature has no standard one):

- The *peak* of a feature on an item is its largest activation over the item's rows, at the first row that reaches it.
  An item on which no activation is above 0 has no peak: the feature is *silent* there.
- The *relative position* of a peak at row p of n is p / (n - 1): 0 at the first token, 1 at the last. An item of one
  row has none.
- The *class* of a feature is that of the median relative position m of its peaks over the items of the highest traced
  grade on which it fires (the next lower grade where there are none): **early** when m < 1/3 (it answers to how
  the sentence begins), **late** when m > 2/3 (it waits for the sentence to be nearly complete), **contextual** between
  (it answers in the middle of things); **silent** when it never fires.

The median, because a mean of early and late peaks would call "contextual" what is never in the middle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from conceptatlas.base.files import write_json, write_text
from conceptatlas.base.kinds import TRACE
from conceptatlas.base.ties import comparable
from conceptatlas.evidence.features import FeatureRef, column_of_rows, item_bounds

if TYPE_CHECKING:
    from conceptatlas.recording import Recording

PeakClass = Literal["early", "contextual", "late", "silent"]
CLASSES: tuple[PeakClass, ...] = ("early", "contextual", "late", "silent")

SUMMARY_TEXT = "summary_statistics.txt"
SUMMARY_JSON = TRACE.marker

DEFINITION = (
    "The peak of a feature on an item is its largest activation above 0, at the first token that reaches it; its "
    "relative position is 0 at the first token and 1 at the last. A feature is early, contextual or late when the "
    "median relative position of its peaks, over the items of the highest grade traced on which it fires, lies in the "
    "first, the middle or the last third."
)


class Peaks(NamedTuple):
    """Where one feature peaks on each of N items.

    Attributes:
        position: Row within the item (0 is its first), int64 [N]; -1 where the feature is silent.
        value: Activation there, float64 [N]; 0 where silent.
        relative: position / (rows - 1), float64 [N]; NaN where silent or where the item has a single row.
    """

    position: npt.NDArray[np.int64]
    value: npt.NDArray[np.float64]
    relative: npt.NDArray[np.float64]


def find_peaks(acts_T: npt.NDArray[np.floating], bounds_N2: npt.NDArray[np.int64]) -> Peaks:
    """Find a feature's peak on each item.

    Args:
        acts_T: The feature's activation on every row, [T].
        bounds_N2: Each item's first row and the row after its last, int64 [N, 2]; an item may be empty.
    """
    n_items = len(bounds_N2)
    position = np.full(n_items, -1, dtype=np.int64)
    value = np.zeros(n_items, dtype=np.float64)
    relative = np.full(n_items, np.nan)
    for item, (start, stop) in enumerate(bounds_N2):
        acts = acts_T[start:stop]
        if not len(acts):
            continue
        peak = int(np.argmax(comparable(acts)))  # the first of ties
        if acts[peak] <= 0:
            continue
        position[item], value[item] = peak, acts[peak]
        if len(acts) > 1:
            relative[item] = peak / (len(acts) - 1)
    return Peaks(position, value, relative)


def classify(median_relative: float) -> PeakClass:
    """Return the class of a median relative peak position (NaN: silent)."""
    if np.isnan(median_relative):
        return "silent"
    if median_relative < 1 / 3:
        return "early"
    return "late" if median_relative > 2 / 3 else "contextual"


@dataclass(frozen=True)
class LabelPeaks:
    """The peaks of one feature over the items of one grade.

    Attributes:
        label: The grade.
        n_items: Items of that grade that were traced.
        n_active: Those on which the feature fires.
        mean_peak_value: Mean of the peak over the items on which it fires (None when there are none).
        max_peak_value: The largest peak (None when there are none).
        mean_peak_position: Mean row of the peak, counted from 0 (None when there are none).
        median_relative_position: Median relative position (None when no peak has one).
        peak_class: The class of that median.
    """

    label: int
    n_items: int
    n_active: int
    mean_peak_value: float | None
    max_peak_value: float | None
    mean_peak_position: float | None
    median_relative_position: float | None
    peak_class: PeakClass


@dataclass(frozen=True)
class FeaturePeaks:
    """One feature's peaks by grade, and its class."""

    feature: FeatureRef
    by_label: tuple[LabelPeaks, ...]
    peak_class: PeakClass

    def as_dict(self) -> dict[str, Any]:
        """Return what ``summary_statistics.json`` says of the feature."""
        ref = self.feature
        return {
            "rank": ref.rank,
            "layer": ref.layer,
            "average_l0": ref.average_l0,
            "feature_id": ref.feature_id,
            "sae_id": ref.sae_id,
            "class": self.peak_class,
            "by_label": {
                str(peaks.label): {
                    "n_items": peaks.n_items,
                    "n_active": peaks.n_active,
                    "mean_peak_value": peaks.mean_peak_value,
                    "max_peak_value": peaks.max_peak_value,
                    "mean_peak_position": peaks.mean_peak_position,
                    "median_relative_position": peaks.median_relative_position,
                    "class": peaks.peak_class,
                }
                for peaks in self.by_label
            },
        }


def summarise_label(label: int, peaks: Peaks) -> LabelPeaks:
    """Summarise the peaks of the items of one grade."""
    active = peaks.position >= 0
    placed = peaks.relative[~np.isnan(peaks.relative)]
    median = float(np.median(placed)) if len(placed) else None
    some = bool(active.any())
    return LabelPeaks(
        label=label,
        n_items=len(active),
        n_active=int(active.sum()),
        mean_peak_value=float(peaks.value[active].mean()) if some else None,
        max_peak_value=float(peaks.value[active].max()) if some else None,
        mean_peak_position=float(peaks.position[active].mean()) if some else None,
        median_relative_position=median,
        peak_class=classify(float("nan") if median is None else median),
    )


def trace_feature(
    feature: FeatureRef,
    acts_T: npt.NDArray[np.floating],
    bounds_N2: npt.NDArray[np.int64],
    labels_N: npt.NDArray[np.integer],
    labels: Sequence[int],
) -> FeaturePeaks:
    """Summarise one feature's peaks over the items of the given grades.

    Args:
        feature: The feature.
        acts_T: Its activation on every row, [T].
        bounds_N2: Item bounds, int64 [N, 2].
        labels_N: The items' grades, [N].
        labels: The grades to trace.
    """
    wanted = np.asarray(labels_N)
    by_label = tuple(
        summarise_label(label, find_peaks(acts_T, bounds_N2[wanted == label])) for label in sorted(set(labels))
    )
    highest: PeakClass = next(
        (peaks.peak_class for peaks in reversed(by_label) if peaks.peak_class != "silent"), "silent"
    )
    return FeaturePeaks(feature=feature, by_label=by_label, peak_class=highest)


def trace_features(recording: Recording, features: Sequence[FeatureRef], labels: Sequence[int]) -> list[FeaturePeaks]:
    """Summarise the peaks of several features of a recording that kept every row."""
    bounds = item_bounds(recording)
    labels_N = recording.items["label"].to_numpy()
    return [
        trace_feature(feature, column_of_rows(recording, feature), bounds, labels_N, labels) for feature in features
    ]


def _figure(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def summary_text(traced: Sequence[FeaturePeaks]) -> str:
    """Return ``summary_statistics.txt``: a paragraph of definitions, then a block per feature."""
    lines = ["Where the top features peak", "", DEFINITION, ""]
    counts = {name: sum(feature.peak_class == name for feature in traced) for name in CLASSES}
    lines += [f"{len(traced)} features: " + ", ".join(f"{count} {name}" for name, count in counts.items()) + ".", ""]
    for feature in traced:
        rank = "" if feature.feature.rank is None else f"{feature.feature.rank}. "
        lines.append(f"{rank}{feature.feature.label} ({feature.feature.sae_id}): {feature.peak_class}")
        lines.append("   label  items  active  mean peak  max peak  mean token  median place  class")
        lines += [
            f"   {peaks.label:>5}  {peaks.n_items:>5}  {peaks.n_active:>6}  {_figure(peaks.mean_peak_value):>9}"
            f"  {_figure(peaks.max_peak_value):>8}  {_figure(peaks.mean_peak_position, 1):>10}"
            f"  {_figure(peaks.median_relative_position, 2):>12}  {peaks.peak_class}"
            for peaks in feature.by_label
        ]
        lines.append("")
    return "\n".join(lines)


def write_summary(folder: Path, traced: Sequence[FeaturePeaks]) -> None:
    """Write ``summary_statistics.txt`` and ``.json`` into ``folder``."""
    write_text(folder / SUMMARY_TEXT, summary_text(traced))
    write_json(folder / SUMMARY_JSON, {"definition": DEFINITION, "features": [feature.as_dict() for feature in traced]})
