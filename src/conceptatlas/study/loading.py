"""A study file to a study: everything that can be wrong with it is said before anything runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from conceptatlas.base.errors import InputError, unknown_name
from conceptatlas.study.config import ConceptSource, Study, StudyConfig
from conceptatlas.study.stages import CONCEPT_STAGES, STAGES, Stage

# A concept's name is a folder's name on every system.
_FOLDER_NAME = re.compile(r"\w([\w .+-]{0,98}[\w+-])?")
_BUILT_IN = ("builtin:", "seeds:")


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
        words = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{path}: {place}: {words}; a study file may say: {allowed}.") from error
    config = config.model_copy(update={"name": config.name or path.stem})
    return make_study(config, base=path.resolve().parent)


def make_study(config: StudyConfig, *, base: Path) -> Study:
    """Return the study of ``config``, its relative paths counted from the folder ``base``.

    Raises:
        InputError: Two concepts are the same or would share a folder, or an option does not exist.
    """
    concepts = _concepts(config.data, base)
    names = [concept.name for concept in concepts]
    for name in config.concepts:
        if name not in names:
            raise unknown_name("concept under concepts", name, names)
    _check_compare(config, names)
    for stage in STAGES.values():
        for concept in names if stage.name in CONCEPT_STAGES else [None]:
            _check_options(stage, config.options(stage.name, concept) or {})
    return Study(config=config, folder=base / (config.out or config.name), concepts=tuple(concepts))


def _concepts(data: str | list[str] | dict[str, str], base: Path) -> list[ConceptSource]:
    """Return the concepts that ``data`` names.

    Raises:
        InputError: The same data twice, or names that cannot be the names of folders side by side.
    """
    if isinstance(data, str):
        data = [data]
    named = list(data.items()) if isinstance(data, dict) else [(_default_name(source), source) for source in data]
    seen: dict[str, str] = {}
    folders: dict[str, str] = {}
    for name, source in named:
        place = source if source.startswith(_BUILT_IN) else str((base / source).resolve())
        if place in seen:
            raise InputError(f"data: {source} is given twice; name each concept's sentences once.")
        seen[place] = name
        if len(named) > 1:
            _check_folder(name, source, folders)
            folders[name.casefold()] = source
    return [ConceptSource(name, place) for place, name in seen.items()]


def _default_name(source: str) -> str:
    return source.partition(":")[2] if source.startswith(_BUILT_IN) else Path(source).stem


def _check_folder(name: str, source: str, others: Mapping[str, str]) -> None:
    """Check that a concept's name can be a folder beside those of ``others``."""
    advice = "give names with a mapping, `data: {name: file}`"
    if name.casefold() in others:
        raise InputError(f"data: {others[name.casefold()]} and {source} would both have the folder {name!r}; {advice}.")
    if not _FOLDER_NAME.fullmatch(name):
        raise InputError(
            f"data: {name!r} (of {source}) cannot be a folder's name, for it is empty, too long or holds other characters "
            f"than letters, digits, space and . _ + -; {advice}."
        )
    if name.casefold() in {stage.folder for stage in STAGES.values()}:
        raise InputError(f"data: {name!r} (of {source}) is the name of a stage's folder; {advice}.")


def _check_compare(config: StudyConfig, names: list[str]) -> None:
    if config.compare is False:
        return
    if len(names) == 1:
        if "compare" in config.model_fields_set:
            raise InputError("compare: a comparison needs two concepts or more, and data names one; leave compare out.")
        return
    for name in names:
        if (config.options("rank", name) or {}).get("holdout") == 0:
            raise InputError(
                f"rank: {name} has holdout 0, and compare judges on held-out items; give a hold-out, or say compare: false."
            )


def _check_options(stage: Stage, options: Mapping[str, Any]) -> None:
    if not options:
        return
    import inspect

    parameters = inspect.signature(stage.function()).parameters.values()
    valid = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY] + [*stage.more]
    for option in options:
        if option not in valid:
            raise unknown_name(f"option of the stage {stage.name}", option, valid)
