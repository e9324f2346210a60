"""The stages of a study: what each reads, where it writes, and the function that does it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conceptatlas.study.config import Study

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Stage:
    """One kind of step.

    Attributes:
        name: What a study file calls it.
        folder: Where it writes, inside the folder of its concept (or of the study).
        reads: The stages whose artefacts it reads.
        run: Does it for the study of one concept (or for a whole study) with the stage's options.
        more: Options that ``run`` takes beside those of the function.
    """

    name: str
    folder: str
    reads: tuple[str, ...]
    run: Callable[[Study, Options], None]
    more: tuple[str, ...] = ()

    def function(self) -> Callable[..., Any]:
        """Return the room's function that does the work (looked up late, for imports are heavy)."""
        return _room_function(self.name)


def _room_function(stage: str) -> Callable[..., Any]:
    from conceptatlas import evidence, prompts, ranking, recording, views

    functions: dict[str, Callable[..., Any]] = {
        "record": recording.record,
        "rank": ranking.rank,
        "trace": views.trace,
        "effect": views.effect,
        "prompts": prompts.prompts,
        "label": evidence.label_ranking,
        "compare": views.compare_concepts,
        "report": views.report,
    }
    return functions[stage]


def stage_folder(study: Study, name: str) -> Path:
    """Return the folder in which a stage keeps its artefacts."""
    return study.folder / STAGES[name].folder


def _folders(study: Study, *names: str) -> list[Path]:
    return [stage_folder(study, name) for name in names]


def _record(study: Study, options: Options) -> None:
    from conceptatlas.concepts import load_concept

    (source,) = study.concepts
    skip = bool(options.get("skip_bad_rows", False))
    concept = load_concept(source.data, skip_bad_rows=skip, name=source.name)
    STAGES["record"].function()(
        concept, study.config.model, study.config.saes, stage_folder(study, "record"), **options
    )


def _rank(study: Study, options: Options) -> None:
    from conceptatlas.recording import Recording

    rec, out = _folders(study, "record", "rank")
    STAGES["rank"].function()(Recording.open(rec), out, **options)


def _trace(study: Study, options: Options) -> None:
    from conceptatlas.ranking import Ranking
    from conceptatlas.recording import Recording

    ranking, rec, out = _folders(study, "rank", "record", "trace")
    STAGES["trace"].function()(Ranking.open(ranking), Recording.open(rec), out, **options)


def _effect(study: Study, options: Options) -> None:
    STAGES["effect"].function()(*_folders(study, "rank", "record", "effect"), **options)


def _prompts(study: Study, options: Options) -> None:
    STAGES["prompts"].function()(stage_folder(study, "prompts"), **options)


def _label(study: Study, options: Options) -> None:
    from conceptatlas.recording import Recording

    rest = dict(options)
    ranking, rec, out = _folders(study, "rank", "record", "label")
    dataset = rest.pop("dataset", None) or Recording.open(rec).items["text"].to_list()
    rest = {"model": study.config.model, "saes": study.config.saes} | rest
    STAGES["label"].function()(ranking, dataset, out, **rest)


def _compare(study: Study, options: Options) -> None:
    ranks, recs = ([stage_folder(part, name) for part in study.parts] for name in ("rank", "record"))
    STAGES["compare"].function()(ranks, recs, stage_folder(study, "compare"), **options)


def _report(study: Study, options: Options) -> None:
    STAGES["report"].function()(study.folder, **options)


_REPORTED = ("record", "rank", "trace", "effect", "label", "prompts")
STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage("record", "rec", (), _record),
        Stage("rank", "rank", ("record",), _rank),
        Stage("trace", "trace", ("record", "rank"), _trace),
        Stage("effect", "effect", ("record", "rank"), _effect),
        Stage("prompts", "prompts", ("record",), _prompts),
        Stage("label", "label", ("record", "rank"), _label, ("dataset",)),
        Stage("compare", "compare", ("rank",), _compare),
        Stage("report", ".", _REPORTED, _report),
    )
}
# What is done for each concept (its report with no options: those are the study's), and what for several together.
CONCEPT_STAGES = ("record", "rank", "trace", "effect", "prompts", "label")
