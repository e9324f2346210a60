"""The commands of the docs run, and the reference says what the commands say."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from conceptatlas.cli.app import build_app
from conceptatlas.cli.reference import command_reference
from tests.helpers.cli import invoke

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)


def blocks(path: Path, language: str) -> list[str]:
    return [body for found, body in FENCE.findall(path.read_text(encoding="utf-8")) if found == language]


def commands(path: Path) -> list[list[str]]:
    lines = "\n".join(blocks(path, "bash")).replace("\\\n", " ").splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    return [line[1:] for line in words if line and line[0] == "conceptatlas"]


def test_the_reference_is_up_to_date() -> None:
    written = (ROOT / "docs" / "reference" / "commands.md").read_text(encoding="utf-8")
    assert written == command_reference(build_app()), "run: python -m tools.write_reference"


def test_the_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tutorial = ROOT / "docs" / "tutorial.md"
    (study,) = blocks(tutorial, "yaml")
    (tmp_path / "study.yaml").write_text(study)
    ran = commands(tutorial)
    assert len(ran) >= 8
    for arguments in ran:
        outcome = invoke(*arguments)
        assert outcome.code == 0, f"conceptatlas {' '.join(arguments)}\n{outcome.stderr}"
    again = invoke(*ran[1])
    assert again.code == 0
    assert "nothing" in again.stderr.lower() + again.stdout.lower()
    assert (tmp_path / "study" / "report.html").stat().st_size > 10_000
    (python,) = blocks(tutorial, "python")
    exec(compile(python, str(tutorial), "exec"), {})


def test_the_page_on_judging_elsewhere_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs" / "how-to" / "judge-elsewhere.md"
    for arguments in commands(page):
        outcome = invoke(*arguments)
        assert outcome.code == 0, f"conceptatlas {' '.join(arguments)}\n{outcome.stderr}"
    assert (tmp_path / "concepts" / "cross_concepts.png").stat().st_size > 10_000
    (python,) = blocks(page, "python")
    exec(compile(python, str(page), "exec"), {})


def test_the_page_on_several_concepts_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs" / "how-to" / "several-concepts.md"
    (tmp_path / "traits.yaml").write_text(blocks(page, "yaml")[0])
    first, again = (invoke(*arguments) for arguments in commands(page))
    assert first.code == 0, first.stderr
    assert set(re.findall(r'"state": "(.*)"', again.stdout)) == {"up to date"}
    (python,) = blocks(page, "python")
    exec(compile(python, str(page), "exec"), {})
    assert (tmp_path / "traits" / "report.html").stat().st_size > 10_000


def test_a_recording_goes_to_an_object_store_and_comes_back_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (python,) = (body for body in blocks(ROOT / "docs" / "scale.md", "python") if "fsspec" in body)
    recorded = invoke("record", "seeds:caring", "--model", "organism", "--saes", "organism", "--out", "rec")
    assert recorded.code == 0, recorded.stderr
    exec(compile(python.replace("s3://bucket", "memory://bucket"), "scale.md", "exec"), {})
    outcome = invoke("verify", "rec-copy")
    assert outcome.code == 0, outcome.stderr


def test_every_documented_command_exists() -> None:
    import typer

    known = typer.main.get_command(build_app()).commands
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for arguments in commands(path):
            assert arguments[0] in known, f"{path.name}: conceptatlas {arguments[0]}"


def test_links_of_the_readme_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


def test_the_page_on_training_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs" / "how-to" / "train.md"
    for arguments in commands(page):
        outcome = invoke(*arguments)
        assert outcome.code == 0, f"conceptatlas {' '.join(arguments)}\n{outcome.stderr}"
    assert len(list((tmp_path / "saes").rglob("card.json"))) == 4
    (python,) = blocks(page, "python")
    exec(compile(python, str(page), "exec"), {})
    assert len(list((tmp_path / "saes-python").rglob("card.json"))) == 2
