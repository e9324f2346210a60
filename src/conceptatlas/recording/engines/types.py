"""What an engine is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from conceptatlas.recording.job import Job

if TYPE_CHECKING:
    from conceptatlas.subjects.language import LanguageSubject


@dataclass(frozen=True)
class EngineRun:
    """One run over all shards.

    Attributes:
        job: The work.
        subject: The model, loaded.
        tick: Called with an SAE's slug whenever a piece of it has been computed.
        address: Of the cluster, for engines that have one.
    """

    job: Job
    subject: LanguageSubject
    tick: Callable[[str], None]
    address: str | None = None
