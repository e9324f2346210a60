"""The command reference, written from the commands themselves, so that the docs cannot fall behind."""

from __future__ import annotations

from typing import Any

import typer

HEADER = """# Commands

Written from the commands themselves (`python -m tools.write_reference`). Exit codes: 0 success, 2 bad usage or bad input, 1 a
failure during the work, 130 interrupted. `--debug`, before the command, shows the traceback of an error.
"""


def command_reference(app: typer.Typer) -> str:
    """Return the reference of every command as Markdown."""
    root: Any = typer.main.get_command(app)
    parts = [HEADER]
    for name, command in root.commands.items():
        parts += _command(command, f"conceptatlas {name}")
    return "\n".join(parts).rstrip() + "\n"


def _command(command: Any, path: str) -> list[str]:
    if hasattr(command, "commands"):
        parts = [f"## {path}", "", _flat(command.help), ""]
        for name, child in command.commands.items():
            parts += [line.replace("## ", "### ", 1) if line.startswith("## ") else line
                      for line in _command(child, f"{path} {name}")]  # fmt: skip
        return parts
    parts = [f"## {path}", "", *_paragraphs(command.help), ""]
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    options = [
        parameter for parameter in command.params if parameter.param_type_name == "option" and not parameter.hidden
    ]
    rows = [_row(f"`{parameter.name.upper()}`", parameter) for parameter in arguments]
    rows += [_row(" ".join(f"`{flag}`" for flag in (*parameter.opts, *parameter.secondary_opts)), parameter)
             for parameter in options]  # fmt: skip
    return [*parts, "| | default | |", "| --- | --- | --- |", *rows, ""] if rows else parts


def _row(name: str, parameter: Any) -> str:
    default = parameter.default
    if parameter.required:
        shown = "needed"
    elif default is None or callable(default) or default == []:
        shown = ""
    else:
        shown = f"`{default}`" if not isinstance(default, bool) else ("on" if default else "off")
    return f"| {name} | {shown} | {_flat(getattr(parameter, 'help', '') or '')} |"


def _flat(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|").replace("{", "&#123;").replace("}", "&#125;")


def _paragraphs(text: str | None) -> list[str]:
    """Return the help's paragraphs, the example as a block of its own."""
    found: list[str] = []
    for paragraph in (text or "").split("\n\n"):
        words = " ".join(paragraph.split())
        if words.startswith("Example:"):
            found += ["```text", words.removeprefix("Example:").strip().strip("`"), "```", ""]
        elif words:
            found += [words, ""]
    return found
