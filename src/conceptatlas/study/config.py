"""What a study file may say, and the study that it makes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator

StageOptions = dict[str, Any] | bool


class ConceptOptions(BaseModel):
    """Options for one concept, on top of those for all: an option given here wins, ``false`` leaves the stage out."""

    model_config = ConfigDict(extra="forbid")

    record: dict[str, Any] = {}
    rank: dict[str, Any] = {}
    trace: StageOptions | None = None
    effect: StageOptions | None = None
    prompts: StageOptions | None = None
    label: StageOptions | None = None


class StudyConfig(BaseModel):
    """What a study file may say. Each stage's mapping holds the options of the command of the same name.

    Attributes:
        name: What the study is called (the file's stem unless said).
        data: Sentences: a path (relative to the study file), ``builtin:<trait>`` or ``seeds:<trait>``. Of several concepts a
            list of these, or a mapping from each concept's name to one of these.
        model: A hub id, a local folder, or ``organism``.
        saes: One or several SAE specifications.
        out: The study's folder (relative to the study file; its name unless said).
        record: Options of ``conceptatlas record``.
        rank: Options of ``conceptatlas rank``.
        trace: Options of ``conceptatlas trace``; ``false`` leaves the stage out.
        effect: Options of ``conceptatlas effect``; left out unless given (``{}`` or ``true`` takes the defaults).
        prompts: Options of the chat-prompt analysis (see `conceptatlas.prompts.prompts`); left out unless given.
        label: Options of ``conceptatlas label``, with ``dataset`` the concept's own sentences unless given; left out unless
            given (``true`` makes search labels).
        compare: Of several concepts: options of `conceptatlas.compare_concepts`; ``false`` leaves the stage out.
        report: Options of ``conceptatlas report``.
        concepts: Options for some concepts only: from a concept's name to its ``record``, ``rank``, ``trace`` …
    """

    model_config = ConfigDict(extra="forbid")

    name: str = ""
    data: str | list[str] | dict[str, str]
    model: str
    saes: list[str]
    out: str = ""
    record: dict[str, Any] = {}
    rank: dict[str, Any] = {}
    trace: StageOptions = {}
    effect: StageOptions = False
    prompts: StageOptions = False
    label: StageOptions = False
    compare: StageOptions = {}
    report: dict[str, Any] = {}
    concepts: dict[str, ConceptOptions] = {}

    @field_validator("data", mode="before")
    @classmethod
    def _names_data(cls, value: Any) -> Any:
        given = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else [value]
        if not given:
            raise ValueError("it is empty; name at least one concept's sentences")
        if not all(isinstance(entry, str) for entry in given):
            raise ValueError("give a path or builtin:<trait>, a list of these, or a mapping from names to these")
        return value

    @field_validator("saes", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    def options(self, stage: str, concept: str | None) -> dict[str, Any] | None:
        """Return the options of a stage for a concept (None: for the whole study), or None where it is left out."""
        base = getattr(self, stage)
        own = getattr(self.concepts.get(concept or ""), stage, None)
        if (base if own is None else own) is False:
            return None
        return {option: value for given in (base, own) if isinstance(given, dict) for option, value in given.items()}


@dataclass(frozen=True)
class ConceptSource:
    """A concept of a study: its name, and its sentences (an absolute path, ``builtin:<trait>`` or ``seeds:<trait>``)."""

    name: str
    data: str


@dataclass(frozen=True)
class Study:
    """A study that has been read: its configuration, its folder, and its concepts.

    The part of a study that belongs to one concept is a study itself, with that concept alone.
    """

    config: StudyConfig
    folder: Path
    concepts: tuple[ConceptSource, ...]

    @property
    def parts(self) -> list[Study]:
        """The study of each concept, in a folder of its own; a study of one concept is its own only part."""
        if len(self.concepts) == 1:
            return [self]
        return [replace(self, folder=self.folder / one.name, concepts=(one,)) for one in self.concepts]
