"""Progress bars on stderr; silent when stderr is not a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Bar:
    """One bar: ``advance`` it, and ``describe`` what is being done."""

    def __init__(self, progress: Progress, task: int) -> None:
        self._progress = progress
        self._task = task

    def advance(self, steps: float = 1) -> None:
        """Move on by ``steps``."""
        self._progress.advance(self._task, steps)  # type: ignore[arg-type]

    def describe(self, text: str) -> None:
        """Change the text beside the bar."""
        self._progress.update(self._task, description=text)  # type: ignore[arg-type]


@contextmanager
def progress_bar(description: str, total: float | None) -> Iterator[Bar]:
    """Show a bar for the time of the block; ``total=None`` when the end is not known."""
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(file=sys.stderr),
        disable=not sys.stderr.isatty(),
        transient=True,
    )
    with progress:
        yield Bar(progress, progress.add_task(description, total=total))
