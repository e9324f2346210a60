"""The plan of a study: its steps in order, and for each a fingerprint of all that it depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from conceptatlas.study.config import Study
from conceptatlas.study.stages import CONCEPT_STAGES, STAGES, Stage


@dataclass(frozen=True)
class Step:
    """A stage of one concept, or of a study of several as a whole.

    Attributes:
        name: The stage's name; in a study of several concepts ``concept/stage`` for what belongs to one.
        stage: What is done.
        study: For which study: that of the one concept, or the whole.
        options: With which options.
        reads: The names of the steps whose artefacts it reads.
        facts: What else it depends on.
    """

    name: str
    stage: Stage
    study: Study
    options: dict[str, Any]
    reads: tuple[str, ...]
    facts: dict[str, Any] = field(default_factory=dict)

    def run(self) -> None:
        """Do it."""
        self.stage.run(self.study, self.options)

    def fingerprint(self, known: Mapping[str, str]) -> str:
        """Return a hash of its options and of the fingerprints of the steps that it reads, or of its data."""
        from conceptatlas import __version__

        facts: dict[str, Any] = {"stage": self.stage.name, "options": self.options, "version": __version__}
        facts["reads"] = [known[name] for name in self.reads]
        facts |= self.facts if self.stage.reads else _data_facts(self.study, self.options)
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def _data_facts(study: Study, options: Mapping[str, Any]) -> dict[str, Any]:
    from conceptatlas.concepts import load_concept

    (source,) = study.concepts
    concept = load_concept(source.data, skip_bad_rows=bool(options.get("skip_bad_rows", False)))
    return {"data": concept.data_hash, "model": study.config.model, "saes": study.config.saes}


def plan(study: Study) -> list[Step]:
    """Return the steps of a study in the order in which they run: concept by concept, then what joins them."""
    if len(study.concepts) == 1:
        steps = _of_concept(study, "")
        return [*steps, _step(study, "report", "report", study.config.report, [step.name for step in steps])]
    steps = []
    for part in study.parts:
        prefix = f"{part.concepts[0].name}/"
        own = _of_concept(part, prefix)
        steps += [*own, _step(part, f"{prefix}report", "report", {}, [step.name for step in own])]
    return [*steps, *_joint(study, steps)]


def _step(study: Study, name: str, stage: str, options: dict[str, Any], before: list[str], **facts: Any) -> Step:
    """Return a step that reads those of the steps ``before`` whose stage it reads."""
    reads = tuple(found for other in STAGES[stage].reads for found in before if found.rpartition("/")[2] == other)
    return Step(name, STAGES[stage], study, options, reads, facts)


def _of_concept(part: Study, prefix: str) -> list[Step]:
    steps: list[Step] = []
    for stage in CONCEPT_STAGES:
        options = part.config.options(stage, part.concepts[0].name)
        if options is not None:
            steps.append(_step(part, prefix + stage, stage, options, [step.name for step in steps]))
    return steps


def _joint(study: Study, before: list[Step]) -> list[Step]:
    """Return the comparison of all concepts, and the report that leads to the concepts' own."""
    names = [concept.name for concept in study.concepts]
    steps = []
    options = study.config.options("compare", None)
    if options is not None:
        steps.append(_step(study, "compare", "compare", options, [step.name for step in before], concepts=names))
    reads = tuple(step.name for step in [*before, *steps] if step.stage.name in ("report", "compare"))
    facts = {"concepts": names, "title": study.config.name}
    return [*steps, Step("report", STAGES["report"], study, study.config.report, reads, facts)]


def fingerprints(study: Study) -> dict[str, str]:
    """Return the fingerprint of each step of a study, by its name."""
    known: dict[str, str] = {}
    for step in plan(study):
        known[step.name] = step.fingerprint(known)
    return known
