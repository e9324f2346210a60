"""Benchmarks measure speed and are no tests; but they must start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["record", "record_top", "record_full"])
def test_those_that_share_parts_find_them(name: str) -> None:
    command = [sys.executable, "-m", f"benchmarks.{name}", "--help"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert f"python -m benchmarks.{name} " in ended.stdout


def test_every_benchmark_is_started_as_a_module_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import __main__ as command

    started: list[list[str]] = []

    class Ended:
        returncode = 0

    monkeypatch.setattr(sys, "argv", ["benchmarks"])
    monkeypatch.setattr(subprocess, "run", lambda words, **options: started.append([*words, options["cwd"]]) or Ended())
    assert command.main() == 0
    assert len(started) == len(command.BENCHMARKS)
    for _, flag, module, *_, folder in started:
        assert flag == "-m"
        assert (folder / f"{module.replace('.', '/')}.py").is_file()
