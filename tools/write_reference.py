"""Write docs/reference/commands.md from the commands themselves: ``python -m tools.write_reference``."""

from __future__ import annotations

from pathlib import Path

from conceptatlas.cli.app import build_app
from conceptatlas.cli.reference import command_reference

PATH = Path(__file__).parents[1] / "docs" / "reference" / "commands.md"

if __name__ == "__main__":
    PATH.write_text(command_reference(build_app()), encoding="utf-8")
