"""What the top of every page says: the study in one plain verdict and a few figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from conceptatlas.views.html import figure, interval, probability
from conceptatlas.views.rivals import best_of_each, compare_words, rivals_of
from conceptatlas.views.study_folder import Study


@dataclass(frozen=True)
class Tile:
    """A figure and what it counts."""

    figure: str
    words: str


@dataclass(frozen=True)
class Headline:
    """The top of a page."""

    title: str
    subtitle: str
    verdict: Markup
    tiles: tuple[Tile, ...]


def rising(row: dict[str, Any]) -> dict[str, Any]:
    """Return a feature's row with its AUROCs counted in the direction in which it was judged.

    A feature that falls with the concept has an AUROC below ½; turned round it is comparable with the others.
    """
    if row.get("direction") != "down":
        return row
    low, high = row.get("auroc_holdout_low"), row.get("auroc_holdout_high")
    turned = {name: None if row.get(name) is None else 1 - row[name] for name in ("auroc", "auroc_holdout")}
    return (
        row
        | turned
        | {
            "auroc_holdout_low": None if high is None else 1 - high,
            "auroc_holdout_high": None if low is None else 1 - low,
        }
    )


def _verdict(study: Study) -> Markup:
    if study.ranking is None:
        return Markup("")
    if not study.rows_by_rank:
        return Markup(
            "<b>No feature passed the filters.</b> The nearest misses, and what each lacked, stand below; the baselines "
            "say whether the concept can be read from this model at all."
        )
    row = rising(study.rows_by_rank[min(study.rows_by_rank)])
    held = row.get("auroc_holdout")
    side = "sentences that it was not chosen on" if held is not None else "the sentences that it was chosen on"
    auroc = held if held is not None else row["auroc"]
    range_ = interval(row.get("auroc_holdout_low"), row.get("auroc_holdout_high"))
    words = Markup("<b>Feature {} of layer {}</b>{} tells label 3 from label 0 with AUROC <b>{}</b>{} on {}.").format(
        row["feature_id"],
        row["layer"],
        ", which falls with the concept," if row.get("direction") == "down" else "",
        figure(auroc),
        f" (95% interval {range_})" if range_ else "",
        side,
    )
    return words + _against(study, held) + _suspects(study)


def _against(study: Study, held: float | None) -> Markup:
    """Say plainly how the best feature stands to difference of means and to bag of words."""
    best = {rival.kind: rival for rival in best_of_each(rivals_of(study))}
    rivals = [best[kind] for kind in ("difference_of_means", "bag_of_words") if kind in best]
    if held is None or not rivals:
        return Markup("")
    said: dict[str, list[Markup]] = {}
    for rival in rivals:
        named = Markup("{} ({})").format(rival.name.lower(), figure(rival.auroc_holdout))
        said.setdefault(compare_words(held, rival.auroc_holdout), []).append(named)
    parts = [Markup("{} {}").format(relation, Markup(" and ").join(names)) for relation, names in said.items()]
    return Markup(" It {}.").format(Markup(", and ").join(parts))


def _suspects(study: Study) -> Markup:
    """Warn where SAEs do not fit the model."""
    saes = [] if study.recording is None else study.recording.saes
    wrong = sum(sae.status not in ("ok", "not judged") for sae in saes)
    if not wrong:
        return Markup("")
    return Markup(
        ' <span class="alarm">{} of {} SAEs fit this model badly (see <a href="#provenance">what was run</a>): '
        "believe their features less.</span>"
    ).format(wrong, len(saes))


def _tiles(study: Study) -> tuple[Tile, ...]:
    tiles = []
    if study.recording is not None:
        held = int(study.holdout.sum())
        tiles.append(Tile(f"{study.recording.n_items:,}", f"sentences, {held:,} of them held out"))
        saes = study.recording.saes
        layers = len({sae.layer for sae in saes})
        tiles.append(Tile(f"{len(saes):,}", f"SAEs on {layers} layer{'s' if layers != 1 else ''}"))
        tiles.append(Tile(f"{sum(sae.d_sae for sae in saes):,}", "features searched"))
    if study.ranking is not None:
        tiles.append(Tile(f"{len(study.rows_by_rank):,}", "features kept"))
        row = study.rows_by_rank.get(1)
        if row is not None and row.get("p_max") is not None:
            tiles.append(Tile(probability(row["p_max"]), "p of the best feature, for the whole search"))
    return tuple(tiles)


def headline_of(study: Study) -> Headline:
    """Return the top of the page of a study."""
    recording = study.recording
    if recording is None:
        subtitle = study.path.name
    else:
        info = recording.manifest
        subtitle = f"in {info.subject.id}, {info.subject.n_layers} layers"
    return Headline(title=study.title, subtitle=subtitle, verdict=_verdict(study), tiles=_tiles(study))
