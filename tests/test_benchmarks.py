"""Benchmarks measure speed and are no tests; but they must start."""

from __future__ import annotations

import json
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


def test_the_page_of_calibration_shows_what_was_measured() -> None:
    from benchmarks import calibration

    result = json.loads(calibration.RESULT.read_text(encoding="utf-8"))
    text = calibration.PAGE.read_text(encoding="utf-8")
    assert calibration.page_with(text, result) == text
    assert result["runs"] >= 400


@pytest.mark.parametrize("kind", ["items", "constant groups", "mixed groups", "groups of many sizes", "pairs"])
def test_a_search_over_noise_gives_p_values(kind: str) -> None:
    from benchmarks import calibration

    p_max, q = calibration.one_search((kind, 1))
    assert 1 / 200 <= p_max <= 1
    assert 0 < q <= 1


def test_calibration_writes_its_result_and_its_page(tmp_path: Path) -> None:
    from benchmarks import calibration

    page = tmp_path / "page.md"
    page.write_text(f"before\n{calibration.BEGIN}\nold\n{calibration.END}\nafter\n")
    made = {
        "runs": 3,
        "searches": {"items": {"p_max": 0.05, "any_q": 0.01}},
        "coverage": [{"n": 20, "auroc": 0.5, "items_of_a_group": 1, "coverage": 0.96}],
        "beats": [{"n_of_a_grade": 20, "auroc": 0.6, "false_beats": 0.02}],
    }
    calibration.main(["--result", str(tmp_path / "r.json"), "--page", str(page)], measured=lambda runs: made)
    assert json.loads((tmp_path / "r.json").read_text()) == made
    text = page.read_text()
    assert "| items | 0.050 | 0.010 |" in text
    assert "old" not in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
