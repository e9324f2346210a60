"""What the top of every page says: the summary of the study, sentence by sentence, and what was searched in figures."""

from __future__ import annotations

from dataclasses import dataclass

from conceptatlas.evidence import effect_sentence
from conceptatlas.ranking.sentences import Sentence
from conceptatlas.views.study_folder import Study


@dataclass(frozen=True)
class Tile:
    """A figure and what it counts."""

    figure: str
    words: str


@dataclass(frozen=True)
class Headline:
    """The top of a page.

    Attributes:
        title: The concept.
        subtitle: The model.
        sentences: The summary of the study, most important first, as the terminal prints it.
        cautions: What a reader must know before believing the figures; plain text.
        tiles: Figures of what was searched.
    """

    title: str
    subtitle: str
    sentences: tuple[Sentence, ...]
    cautions: tuple[str, ...]
    tiles: tuple[Tile, ...]


def _suspects(study: Study) -> list[str]:
    """Warn where SAEs do not fit the model."""
    saes = [] if study.recording is None else study.recording.saes
    wrong = sum(sae.status not in ("ok", "not judged") for sae in saes)
    if not wrong:
        return []
    return [
        f"{wrong} of {len(saes)} SAEs fit this model badly (see the checks under What was run): believe their features less."
    ]


def _tiles(study: Study) -> tuple[Tile, ...]:
    tiles = []
    if study.recording is not None:
        held = int(study.holdout.sum())
        words = f"sentences: {study.recording.n_items - held:,} for discovery, {held:,} held out"
        tiles.append(Tile(f"{study.recording.n_items:,}", words))
        saes = [sae for sae in study.recording.saes if sae.control_of is None]
        layers = len({sae.layer for sae in saes})
        tiles.append(Tile(f"{len(saes):,}", f"SAEs on {layers} layer{'s' if layers != 1 else ''}"))
    if study.ranking is not None:
        tiles += [Tile(f"{count:,}", words) for count, words in study.ranking.counted()]
    return tuple(tiles)


def summary_of(study: Study) -> list[Sentence]:
    """Return what a study says: the summary of its ranking, and behind the baselines what its first feature causes."""
    said = [] if study.ranking is None else study.ranking.summary()
    if study.effects is None or not study.effects["features"]:
        return said
    first = sum(sentence.kind in ("chance", "holds", "best", "baselines") for sentence in said)
    return [*said[:first], Sentence("effect", effect_sentence(study.effects)), *said[first:]]


def headline_of(study: Study) -> Headline:
    """Return the top of the page of a study."""
    recording = study.recording
    if recording is None:
        subtitle = study.path.name
    else:
        info = recording.manifest
        subtitle = f"in {info.subject.id}, {info.subject.n_layers} layers"
    said = summary_of(study)
    return Headline(
        title=study.title,
        subtitle=subtitle,
        sentences=tuple(sentence for sentence in said if sentence.kind != "caution"),
        cautions=(*(sentence.text for sentence in said if sentence.kind == "caution"), *_suspects(study)),
        tiles=_tiles(study),
    )
