"""Run a study: its steps in order, those left out whose inputs did not change since they last finished."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from conceptatlas.base.errors import InputError, unknown_name
from conceptatlas.base.files import ensure_folder, read_json, write_json
from conceptatlas.study.config import Study, StudyConfig
from conceptatlas.study.loading import load_study, make_study
from conceptatlas.study.plan import fingerprints, plan

STAGES_FILE = "stages.json"


@dataclass
class StudyResult:
    """What ``run_study`` did: the study's folder, and for each step ``"ran"`` or ``"up to date"``."""

    folder: Path
    stages: dict[str, str] = field(default_factory=dict)


def run_study(study: Study | Path | str, *, report_stage: Callable[[str, str], None] | None = None) -> StudyResult:
    """Run the steps of a study whose inputs changed since they last finished.

    Args:
        study: A study, or the path of its YAML file.
        report_stage: Called with a step's name (``rank``; of several concepts ``dishonesty/rank``) and ``"running"``, then
            ``"ran"`` or ``"up to date"``.

    Raises:
        InputError: The study file is wrong, its folder holds another kind of study, or a stage refuses its input.
    """
    if not isinstance(study, Study):
        study = load_study(study)
    say = report_stage or (lambda _name, _state: None)
    # All data is read here, so that a missing file of the last concept is said before the first is recorded.
    current = fingerprints(study)
    _prepare_folder(study)
    register = study.folder / STAGES_FILE
    done: dict[str, str] = read_json(register) if register.exists() else {}
    result = StudyResult(folder=study.folder)
    for step in plan(study):
        name = step.name
        if done.get(name) == current[name]:
            result.stages[name] = "up to date"
        else:
            say(name, "running")
            step.run()
            done[name] = current[name]
            write_json(register, done)
            result.stages[name] = "ran"
        say(name, result.stages[name])
    return result


def _prepare_folder(study: Study) -> None:
    """Make the study's folder, and name its concepts there where they are several.

    Raises:
        InputError: It holds a study of one concept, and this one has several, or the other way round.
    """
    from conceptatlas.views import CONCEPTS_FILE, write_concepts

    held_several = (study.folder / CONCEPTS_FILE).exists()
    several = len(study.concepts) > 1
    if held_several != several and (held_several or (study.folder / STAGES_FILE).exists()):
        holds = (
            "several concepts, and this file names one" if held_several else "one concept, and this file names several"
        )
        raise InputError(f"{study.folder} holds a study of {holds}; choose another out.")
    ensure_folder(study.folder)
    if several:
        write_concepts(study.folder, study.config.name, [concept.name for concept in study.concepts])


def demo_study(out: Path, trait: str) -> Study:
    """Return the study that ``conceptatlas demo`` runs: a trait's graded set on the built-in model and its SAEs.

    Raises:
        InputError: The built-in model has no such trait.
    """
    from conceptatlas.concepts import TRAITS

    if trait not in TRAITS:
        raise unknown_name("trait", trait, TRAITS)
    config = StudyConfig(
        name=trait,
        data=f"builtin:{trait}",
        model="organism",
        saes=["organism"],
        out=str(out.resolve()),
        record={"keep": "all", "hidden": "final"},
        trace={"top_n": 5, "max_sentences": 3},
        effect={"top_n": 2, "n_items": 12},
        prompts={},
    )
    return make_study(config, base=Path.cwd())
