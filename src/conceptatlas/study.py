"""The study: one YAML file and one folder, the whole pipeline for a concept and a subject.

A stage reads artefacts and writes artefacts. Its *fingerprint* is a hash of its options and of the fingerprints of the
stages it reads; it stands in ``stages.json`` once the stage has finished, and a stage whose fingerprint stands there
already is not run again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from conceptatlas.base.errors import InputError, unknown_name
from conceptatlas.base.files import ensure_folder, read_json, write_json

STAGES_FILE = "stages.json"


class StudyConfig(BaseModel):
    """What a study file may say. Each stage's mapping holds the options of the command of the same name.

    Attributes:
        name: What the study is called (the file's stem unless said).
        data: Sentences: a path (relative to the study file), ``builtin:<trait>`` or ``seeds:<trait>``.
        model: A hub id, a local folder, or ``organism``.
        saes: One or several SAE specifications.
        out: The study's folder (relative to the study file; its name unless said).
        record: Options of ``conceptatlas record``.
        rank: Options of ``conceptatlas rank``.
        trace: Options of ``conceptatlas trace``; ``false`` leaves the stage out.
        effect: Options of ``conceptatlas effect``; left out unless given (``{}`` or ``true`` takes the defaults).
        prompts: Options of the chat-prompt analysis (see `conceptatlas.prompts.prompts`); left out unless given.
        label: Options of ``conceptatlas label``, with ``dataset`` the study's own sentences unless given; left out unless
            given (``true`` makes search labels).
        report: Options of ``conceptatlas report``.
    """

    model_config = ConfigDict(extra="forbid")

    name: str = ""
    data: str
    model: str
    saes: list[str]
    out: str = ""
    record: dict[str, Any] = {}
    rank: dict[str, Any] = {}
    trace: dict[str, Any] | bool = {}
    effect: dict[str, Any] | bool = False
    prompts: dict[str, Any] | bool = False
    label: dict[str, Any] | bool = False
    report: dict[str, Any] = {}

    @field_validator("saes", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


@dataclass(frozen=True)
class Study:
    """A study that has been read: its configuration and its folder."""

    config: StudyConfig
    folder: Path
    data: str

    def stage_folder(self, name: str) -> Path:
        """Return the folder in which a stage keeps its artefacts."""
        return self.folder / STAGES[name].folder


@dataclass(frozen=True)
class Stage:
    """One step of a study.

    Attributes:
        folder: Where it writes, inside the study's folder.
        reads: The stages whose artefacts it reads.
        function: Returns the room's function (looked up late, for imports are heavy).
        run: Calls that function for a study with the stage's options.
        more: Options that ``run`` takes beside those of the function.
    """

    folder: str
    reads: tuple[str, ...]
    function: Callable[[], Callable[..., Any]]
    run: Callable[[Study, Mapping[str, Any]], None]
    more: tuple[str, ...] = ()


@dataclass
class StudyResult:
    """What ``run_study`` did: the study's folder, and for each stage ``"ran"`` or ``"up to date"``."""

    folder: Path
    stages: dict[str, str] = field(default_factory=dict)


def _record_function() -> Callable[..., Any]:
    from conceptatlas.recording import record

    return record


def _run_record(study: Study, options: Mapping[str, Any]) -> None:
    _record_function()(study.data, study.config.model, study.config.saes, study.stage_folder("record"), **options)


def _rank_function() -> Callable[..., Any]:
    from conceptatlas.ranking import rank

    return rank


def _run_rank(study: Study, options: Mapping[str, Any]) -> None:
    from conceptatlas.recording import Recording

    _rank_function()(Recording.open(study.stage_folder("record")), study.stage_folder("rank"), **options)


def _trace_function() -> Callable[..., Any]:
    from conceptatlas.views import trace

    return trace


def _run_trace(study: Study, options: Mapping[str, Any]) -> None:
    from conceptatlas.ranking import Ranking
    from conceptatlas.recording import Recording

    ranking, recording = Ranking.open(study.stage_folder("rank")), Recording.open(study.stage_folder("record"))
    _trace_function()(ranking, recording, study.stage_folder("trace"), **options)


def _effect_function() -> Callable[..., Any]:
    from conceptatlas.views import effect

    return effect


def _run_effect(study: Study, options: Mapping[str, Any]) -> None:
    folder = study.stage_folder
    _effect_function()(folder("rank"), folder("record"), folder("effect"), **options)


def _prompts_function() -> Callable[..., Any]:
    from conceptatlas.prompts import prompts

    return prompts


def _run_prompts(study: Study, options: Mapping[str, Any]) -> None:
    _prompts_function()(study.stage_folder("prompts"), **options)


def _label_function() -> Callable[..., Any]:
    from conceptatlas.evidence import label_ranking

    return label_ranking


def _run_label(study: Study, options: Mapping[str, Any]) -> None:
    from conceptatlas.recording import Recording

    rest = dict(options)
    dataset = rest.pop("dataset", None) or Recording.open(study.stage_folder("record")).items["text"].to_list()
    rest = {"model": study.config.model, "saes": study.config.saes} | rest
    _label_function()(study.stage_folder("rank"), dataset, study.stage_folder("label"), **rest)


def _report_function() -> Callable[..., Any]:
    from conceptatlas.views import report

    return report


def _run_report(study: Study, options: Mapping[str, Any]) -> None:
    _report_function()(study.folder, **options)


STAGES: dict[str, Stage] = {
    "record": Stage("rec", (), _record_function, _run_record),
    "rank": Stage("rank", ("record",), _rank_function, _run_rank),
    "trace": Stage("trace", ("record", "rank"), _trace_function, _run_trace),
    "effect": Stage("effect", ("record", "rank"), _effect_function, _run_effect),
    "prompts": Stage("prompts", ("record",), _prompts_function, _run_prompts),
    "label": Stage("label", ("record", "rank"), _label_function, _run_label, ("dataset",)),
    "report": Stage(".", ("record", "rank", "trace", "effect", "label", "prompts"), _report_function, _run_report),
}


def load_study(path: Path | str) -> Study:
    """Read and check a study file.

    Raises:
        InputError: The file is missing, is not YAML, or says something that a study file cannot say.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"There is no study file {path}; check the path.") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}; mend it.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no mapping; a study file says at least data, model and saes.")
    try:
        config = StudyConfig(**content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        allowed = ", ".join(StudyConfig.model_fields)
        raise InputError(f"{path}: {place}: {first['msg']}; a study file may say: {allowed}.") from error
    config = config.model_copy(update={"name": config.name or path.stem})
    return make_study(config, base=path.resolve().parent)


def make_study(config: StudyConfig, *, base: Path) -> Study:
    """Return the study of ``config``, its relative paths counted from the folder ``base``."""
    local = base / config.data
    data = config.data if config.data.startswith(("builtin:", "seeds:")) else str(local)
    for name, stage in STAGES.items():
        _check_options(name, stage, _options(config, name) or {})
    return Study(config=config, folder=base / (config.out or config.name), data=data)


def _options(config: StudyConfig, stage: str) -> dict[str, Any] | None:
    """Return a stage's options, or None where the study leaves the stage out."""
    value = getattr(config, stage)
    if isinstance(value, bool):
        return {} if value else None
    return dict(value)


def _check_options(name: str, stage: Stage, options: Mapping[str, Any]) -> None:
    if not options:
        return
    import inspect

    parameters = inspect.signature(stage.function()).parameters.values()
    valid = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY] + [*stage.more]
    for option in options:
        if option not in valid:
            raise unknown_name(f"option of the stage {name}", option, valid)


def fingerprints(study: Study) -> dict[str, str]:
    """Return the fingerprint of each stage that the study has."""
    from conceptatlas import __version__
    from conceptatlas.concepts import load_concept

    known: dict[str, str] = {}
    for name, stage in STAGES.items():
        options = _options(study.config, name)
        if options is None:
            continue
        facts: dict[str, Any] = {"stage": name, "options": options, "version": __version__}
        facts["reads"] = [known[other] for other in stage.reads if other in known]
        if not stage.reads:
            concept = load_concept(study.data, skip_bad_rows=bool(options.get("skip_bad_rows", False)))
            facts |= {"data": concept.data_hash, "model": study.config.model, "saes": study.config.saes}
        known[name] = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
    return known


def run_study(study: Study | Path | str, *, report_stage: Callable[[str, str], None] | None = None) -> StudyResult:
    """Run the stages of a study whose inputs changed since they last finished.

    Args:
        study: A study, or the path of its YAML file.
        report_stage: Called with a stage's name and ``"running"``, then ``"ran"`` or ``"up to date"``.

    Raises:
        InputError: The study file is wrong, or a stage refuses its input.
    """
    if not isinstance(study, Study):
        study = load_study(study)
    say = report_stage or (lambda _name, _state: None)
    ensure_folder(study.folder)
    register = study.folder / STAGES_FILE
    done: dict[str, str] = read_json(register) if register.exists() else {}
    result = StudyResult(folder=study.folder)
    for name, fingerprint in fingerprints(study).items():
        if done.get(name) == fingerprint:
            result.stages[name] = "up to date"
        else:
            say(name, "running")
            STAGES[name].run(study, _options(study.config, name) or {})
            done[name] = fingerprint
            write_json(register, done)
            result.stages[name] = "ran"
        say(name, result.stages[name])
    return result


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
