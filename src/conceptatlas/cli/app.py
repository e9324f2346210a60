"""Builds the ``conceptatlas`` command and turns errors into exit codes.

Exit codes: 0 success, 2 bad usage or bad input, 1 a failure during the work, 130 interrupted.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Annotated

import typer

from conceptatlas.base.console import note
from conceptatlas.base.errors import ConceptAtlasError

# Every module has ``register(app)``; the order is the order of --help.
COMMAND_MODULES: tuple[str, ...] = (
    "demo",
    "run",
    "check",
    "generate",
    "annotate",
    "train",
    "record",
    "info",
    "verify",
    "export",
    "rank",
    "show",
    "compare_rankings",
    "trace",
    "effect",
    "label",
    "report",
    "explore",
    "probe",
    "catalog",
    "prompts",
    "images",
)

HELP = """From a concept to the features that carry it, with the evidence, in minutes.

Start with: conceptatlas demo
"""

EXIT_INTERRUPTED = 130


def _show_version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(version("conceptatlas"))
        raise typer.Exit


def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    if debug:
        os.environ["CONCEPTATLAS_DEBUG"] = "1"


def build_app() -> typer.Typer:
    """Return the Typer application with every command registered."""
    app = typer.Typer(
        name="conceptatlas",
        help=HELP,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
    )
    app.callback()(_root)
    for name in COMMAND_MODULES:
        importlib.import_module(f"{__package__}.{name}").register(app)
    return app


def run(arguments: list[str]) -> int:
    """Run the command line with ``arguments`` and return its exit code."""
    # SAELens and transformers read these when they are imported; a closed network must not cost a minute of retries.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        build_app()(args=arguments, standalone_mode=True)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    except ConceptAtlasError as error:
        if _debugging(arguments):
            raise
        note(f"Error: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        note("Interrupted; run the same command again to go on.")
        return EXIT_INTERRUPTED
    except Exception as error:  # the last line of defence: one sentence, and how to see more
        if _debugging(arguments):
            raise
        note(f"Error: unexpected {type(error).__name__}: {error}; `conceptatlas --debug …` shows the traceback.")
        return 1
    return 0


def _debugging(arguments: list[str]) -> bool:
    return "--debug" in arguments or os.environ.get("CONCEPTATLAS_DEBUG") == "1"


def main() -> None:
    """Entry point of the ``conceptatlas`` script."""
    sys.exit(run(sys.argv[1:]))
