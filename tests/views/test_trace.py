"""``trace``: which files it writes, what they say, what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import conceptatlas as ca
from conceptatlas.base.errors import InputError
from tests.helpers.cli import invoke

PNG = b"\x89PNG\r\n\x1a\n"


def size_of(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data.startswith(PNG)
    return int.from_bytes(data[16:20]), int.from_bytes(data[20:24])


def test_it_writes_a_plot_per_sentence_and_the_statistics(study: Path, tmp_path: Path) -> None:
    traced = ca.trace(
        study / "rank", study / "rec", tmp_path / "t", top_n=4, labels=[3], max_sentences=2, dpi=40, figsize=(8, 4)
    )
    drawn = sorted(path.relative_to(tmp_path / "t").as_posix() for path in (tmp_path / "t").rglob("*.png"))
    assert drawn == [
        "emergence.png",
        *(f"feature_{rank:02d}_distribution.png" for rank in range(1, 5)),
        "label_3/sentence_000003.png",
        "label_3/sentence_000007.png",
        "score_by_rank.png",
    ]
    assert sorted(traced.plots) == sorted(tmp_path / "t" / name for name in drawn)
    assert size_of(tmp_path / "t/label_3/sentence_000003.png") == (320, 160)
    summary = json.loads((tmp_path / "t/summary_statistics.json").read_text())
    assert len(summary["features"]) == 4
    by_index = {f["feature_id"]: f for f in summary["features"]}
    assert by_index[3]["by_label"]["3"]["n_items"] == 30
    assert all(f["class"] in ("early", "contextual", "late") for f in summary["features"])
    assert (tmp_path / "t/run.json").exists()


def test_the_same_trace_gives_the_same_bytes(study: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        ca.trace(study / "rank", study / "rec", tmp_path / name, top_n=2, labels=[3], max_sentences=1, dpi=30)
    for path in sorted((tmp_path / "a").rglob("*")):
        if path.is_file() and path.name != "run.json":
            assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes(), path


def test_plots_of_an_earlier_trace_do_not_stay(study: Path, tmp_path: Path) -> None:
    mine = tmp_path / "label_3/my_notes.png"
    for top_n, count in ((2, 2), (1, 1)):
        ca.trace(study / "rank", study / "rec", tmp_path, top_n=top_n, labels=[3], max_sentences=count, dpi=30)
        mine.touch()
    assert [path.name for path in tmp_path.glob("label_3/sentence*")] == ["sentence_000003.png"]
    assert len(list(tmp_path.glob("feature_*"))) == 1
    assert mine.exists()


def test_hostile_text_can_be_drawn(nasty_study: Path, tmp_path: Path) -> None:
    ca.trace(nasty_study / "rank", nasty_study / "rec", tmp_path, labels=[0, 1, 2, 3], max_sentences=1, dpi=30)
    assert len(list(tmp_path.glob("label_*/*.png"))) == 4


def test_a_recording_of_final_rows_only_is_refused_with_the_command_that_helps(
    final_study: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="kept the activations of final tokens only") as refused:
        ca.trace(final_study / "rank", final_study / "rec", tmp_path / "t", top_n=1)
    message = str(refused.value)
    assert "conceptatlas record DATA --model organism --saes synthetic/layer_" in message
    assert re.search(r"--keep all --features (3|11|20) ", message)
    assert not (tmp_path / "t").exists()


def test_where_nothing_passes_the_filters_the_best_are_traced(strict_study: Path, tmp_path: Path) -> None:
    outcome = invoke(
        "trace", strict_study / "rank", "--rec", strict_study / "rec", "--out", tmp_path, "--top-n", 2, "--labels", "3",
        "--max-sentences", 1, "--dpi", 30,
    )  # fmt: skip
    assert outcome.code == 0, outcome.stderr
    assert (tmp_path / "emergence.png").exists()
    assert len(json.loads((tmp_path / "summary_statistics.json").read_text())["features"]) == 2


def test_the_command_prints_the_classes(study: Path, tmp_path: Path) -> None:
    outcome = invoke(
        "trace", study / "rank", "--rec", study / "rec", "--out", tmp_path, "--top-n", 2, "--labels", "3",
        "--max-sentences", 1, "--dpi", 30, "--figsize", "8,4", "--json",
    )  # fmt: skip
    assert outcome.code == 0, outcome.stderr
    rows = json.loads(outcome.stdout)
    assert [row["rank"] for row in rows] == [1, 2]


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--labels", "two", "--labels is 'two'"),
        ("--labels", "4", "give grades of 0 to 3"),
        ("--figsize", "14", "--figsize is '14'"),
        ("--figsize", "0,7", "in inches, each 2 to 60"),
        ("--dpi", "5", "--dpi is 5"),
        ("--top-n", "0", "--top-n is 0"),
        ("--max-sentences", "-1", "--max-sentences is -1"),
        ("--max-token-len", "0", "--max-token-len is 0"),
    ],
)
def test_a_bad_option_is_refused_with_its_value(
    study: Path, tmp_path: Path, option: str, value: str, words: str
) -> None:
    outcome = invoke("trace", study / "rank", "--rec", study / "rec", "--out", tmp_path, option, value)
    assert outcome.code == 2
    assert words in outcome.stderr


def test_a_ranking_in_memory_is_refused(study: Path, tmp_path: Path) -> None:
    ranking = ca.rank(study / "rec", permutations=0, resplits=0, baselines=False)
    with pytest.raises(InputError, match="in memory only"):
        ca.trace(ranking, study / "rec", tmp_path)
