"""``conceptatlas label`` without a language model: files, rankings as input, and errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from conceptatlas.concepts import build_concept
from conceptatlas.ranking import rank
from conceptatlas.recording import record
from tests.evidence.labels.conftest import SITE, WORDS, Planted, write_texts
from tests.helpers.cli import Outcome, invoke
from tests.helpers.tiny_saes import write_saelens


@pytest.fixture(autouse=True)
def in_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def label(planted: Planted, *more: Any, saes: Any = None, dataset: Any = None) -> Outcome:
    return invoke(
        "label", "--model", planted.model, "--saes", saes or planted.sae, "--dataset", dataset or planted.texts,
        "--device", "cpu", *more,
    )  # fmt: skip


def test_search_labels(planted: Planted, tmp_path: Path) -> None:
    (tmp_path / "f.json").write_text('{"feature_indices": [2, 4], "scores": [0.75, 0.5]}')
    done = label(planted, "--features", "f.json", "--max-examples", "5", "--json")
    assert done.code == 0, done.stderr
    assert [row["label"] and row["label"].split(", ")[0] for row in json.loads(done.stdout)] == ["rain", None]
    assert "1 features were silent on these texts and have no label: 4" in done.stderr
    lines = [json.loads(line) for line in Path("results/feature_examples.jsonl").read_text().splitlines()]
    assert [(line["feature_id"], line["score"], len(line["examples"])) for line in lines] == [(2, 0.75, 5), (4, 0.5, 0)]
    for example in lines[0]["examples"]:
        assert example["tokens"][example["activations"].index(max(example["activations"]))] == " rain"
        assert "<<rain>>" in example["marked"]
        assert {"activation", "sequence_index", "token_position", "text"} <= set(example)
        assert "".join(example["tokens"]) == example["text"]
        text = Path(planted.texts).read_text().split("\n")[example["sequence_index"]]
        assert example["text"] in text
    assert {one["decile"] for one in lines[0]["decile_examples"]} == set(range(1, 11))
    assert len(lines[0]["non_activating_examples"]) == 10
    content = json.loads(Path("results/feature_labels.json").read_text())
    for entry in content["features"]:
        assert entry["label_llm"] is None
        assert entry["detection_accuracy"] is None
        assert entry["label"] == entry["label_search"]
    run = json.loads(Path("results/run.json").read_text())
    assert (run["command"], run["n_texts"], run["n_empty"]) == ("label", 360, 0)


def test_one_run_is_like_the_next(planted: Planted) -> None:
    files = []
    for batch in ("64", "7"):
        assert label(planted, "--features", "0,1", "--minibatch-size-tokens", batch).code == 0
        files.append(Path("results/feature_examples.jsonl").read_bytes())
        files.append(Path("results/feature_labels.json").read_bytes())
    assert files[0] == files[2]
    assert files[1] == files[3]


def test_a_ranking_brings_its_model_saes_and_scores(planted: Planted, tmp_path: Path) -> None:
    texts = write_texts(tmp_path / "concept.txt", 90, seed=1)
    grades = [3 if "brave" in text or "rain" in text else 0 for text in texts]
    recording = record(
        build_concept("weather", texts, grades), str(planted.model), str(planted.sae), tmp_path / "rec", device="cpu"
    )
    ranking = rank(
        recording,
        tmp_path / "rank",
        pool="max",
        min_pearson=0.1,
        min_tpr=0.1,
        permutations=20,
        resplits=0,
        baselines=False,
    )
    ranked = [row["feature_id"] for row in ranking.features.iter_rows(named=True) if row["fails"] is None]
    assert set(ranked) == {0, 2}
    done = invoke(
        "label", "--features", tmp_path / "rank", "--dataset", planted.texts, "--device", "cpu", "--top-n", "1"
    )
    assert done.code == 0, done.stderr
    (entry,) = json.loads(Path("results/feature_labels.json").read_text())["features"]
    assert entry["label"].split(", ")[0] == WORDS[ranked[0]]
    assert entry["score"] == pytest.approx(ranking.features["interpretability_score"][0])
    assert (entry["rank"], entry["slug"]) == (1, recording.saes[0].slug)


def test_a_million_characters_on_one_line(planted: Planted) -> None:
    path = Path("long.txt")
    text = "the man said that she went home " * 31_250
    assert len(text) == 1_000_000
    path.write_text(text[:-60] + " rain rain brave\n")
    done = label(planted, "--features", "0,2", "--json", dataset=path)
    assert done.code == 0, done.stderr
    assert [row["num_examples"] for row in json.loads(done.stdout)] == [1, 1]
    run = json.loads(Path("results/run.json").read_text())
    assert run["n_texts"] == 1
    assert run["n_windows"] == -(-run["n_tokens"] // 127)  # a context of 128, of which one is the BOS


def test_errors_are_said_plainly(planted: Planted, tmp_path: Path) -> None:
    write_saelens(tmp_path / "two" / "a", "jumprelu", d_in=32, d_sae=24, hook=SITE)
    write_saelens(tmp_path / "two" / "b", "jumprelu", d_in=32, d_sae=24, hook="blocks.1.hook_resid_post")
    Path("empty.txt").write_text("")
    Path("table.csv").write_text("body,id\na,1\n")
    Path("bad.json").write_text('{"features": [1]}')
    cases: list[tuple[list[Any], dict[str, Any], str]] = [
        (
            ["--features", "0"],
            {"saes": "two"},
            "Feature 0 could belong to any of 2 SAEs (a, b); pick one with --sae-id",
        ),
        (["--features", "5"], {}, "There is no feature 5 in sae: it has 5 features, 0 to 4."),
        (["--features", "bad.json"], {}, 'bad.json has no "feature_indices" (it has: features)'),
        (["--features", "0"], {"dataset": "empty.txt"}, "empty.txt holds no text"),
        (["--features", "0"], {"dataset": "table.csv"}, "no column 'text'; its columns: body, id."),
        (["--features", "0"], {"dataset": "none.csv"}, "There is no file none.csv"),
        (["--features", "0", "--sae-id", "blocks.2.hook_resid_post"], {}, "No SAE here is called"),
        (["--features", "0", "--n-samples", "0"], {}, "--n-samples is 0"),
        (["--features", "0", "--minibatch-size-tokens", "0"], {}, "--minibatch-size-tokens is 0"),
        (["--features", "0", "--llm-base-url", "http://127.0.0.1:1/v1"], {}, "give --llm-model NAME"),
    ]
    for more, changes, message in cases:
        done = label(planted, *more, **changes)
        assert done.code == 2, (more, done.stderr)
        assert message in done.stderr
    done = invoke("label", "--features", "0", "--dataset", planted.texts)
    assert (done.code, "Give --model and --saes" in done.stderr) == (2, True)
    done = label(planted, "--features", "0", "--sae-id", "blocks.0.hook_resid_pre", saes="two")
    assert done.code == 0, done.stderr
