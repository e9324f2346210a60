"""``conceptatlas train`` as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conceptatlas.base.errors import InputError
from conceptatlas.cli.train import read_count
from tests.helpers.cli import invoke

FEW = ["--model", "organism", "--text", "builtin:dishonesty-small", "--width", "64", "--k", "6", "--tokens", "0.5k"]
SMALL = [*FEW, "--batch", "64", "--buffer-rows", "256", "--context", "32", "--eval-contexts", "3"]


def test_trained_recorded_and_said(tmp_path: Path) -> None:
    out = tmp_path / "saes"
    done = invoke("train", *SMALL, "--layers", "1", "--sites", "blocks.2.hook_mlp_out", "--control", "--out", out)
    assert done.code == 0, done.stderr
    for name in ("blocks.1.hook_resid_post/64-k6", "blocks.2.hook_mlp_out/64-k6-frozen"):
        assert name in done.stdout
        assert (out / name / "cfg.json").is_file()
    assert "4 SAEs" in done.stdout
    again = invoke(
        "train", *SMALL, "--layers", "1", "--sites", "blocks.2.hook_mlp_out", "--control", "--out", out, "--json"
    )
    rows = json.loads(again.stdout)
    assert len(rows) == 4
    assert all(0 < row["ce_clean"] < row["ce_zero"] for row in rows)


def test_a_dry_run_trains_nothing(tmp_path: Path) -> None:
    done = invoke("train", *SMALL, "--layers", "1,2", "--dry-run", "--out", tmp_path / "saes")
    assert done.code == 0, done.stderr
    for word in ("2 SAEs, 7 steps each", "Memory: about", "Disk: at most", "Time: about"):
        assert word in done.stdout
    assert not (tmp_path / "saes").exists()
    found = json.loads(invoke("train", *SMALL, "--layers", "1,2", "--dry-run", "--json", "--out", "x").stdout)
    assert found[0]["n_saes"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "There is no site to train at; give --layers or --sites."),
        (["--layers", "one"], "--layers is 'one', and must be numbers with commas"),
        (["--layers", "9"], "There is no blocks.9.hook_resid_post in organism"),
        (["--layers", "1", "--tokens", "many"], "--tokens is 'many', and must be a number such as 5M, 100k or 65536."),
        (["--layers", "1", "--architecture", "transcoder"], "SAELens has no training class for transcoder"),
        (["--layers", "1", "--text", "nowhere.txt"], "There is no file nowhere.txt"),
    ],
)  # fmt: skip
def test_errors(tmp_path: Path, arguments: list[str], message: str) -> None:
    done = invoke("train", *SMALL, *arguments, "--out", tmp_path / "saes")
    assert done.code == 2
    assert done.stderr.startswith("Error: ")
    assert message in done.stderr
    assert not list(tmp_path.glob("saes/*")), "the folder must stay free for the right command"


def test_counts() -> None:
    assert [read_count("--tokens", text) for text in ("5M", "100k", "65536", "1.5m", "2B", "1,000")] == [
        5_000_000, 100_000, 65_536, 1_500_000, 2_000_000_000, 1000,
    ]  # fmt: skip
    with pytest.raises(InputError):
        read_count("--tokens", "-5")
