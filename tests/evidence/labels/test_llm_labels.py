"""Labels by a language model, and their scores, against a scripted server that decides from the text alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import conceptatlas as ca
from conceptatlas.base.errors import WorkError
from conceptatlas.evidence.labels import LabelOptions, LabelRun, Prepared, finish_labels, prepare_labels
from conceptatlas.evidence.labels.asking import read_label, verdict_reader
from conceptatlas.llm import BadAnswer, LLMOptions, open_llm
from tests.evidence.labels.conftest import WORDS, Planted
from tests.evidence.labels.judges import as_answer, judge, kind, knows, lines_of, marked_words, shown_texts, texts_of
from tests.helpers.cli import invoke
from tests.llm.scripted_server import Answer, Request, Script, ScriptedServer

OPTIONS = LabelOptions(device="cpu")


@pytest.fixture(autouse=True)
def no_settings_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-label-secret-123456789")
    monkeypatch.setenv("CONCEPTATLAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def prepared(planted: Planted) -> Prepared:
    return prepare_labels(
        [0, 1, 2, 3, 4], str(planted.texts), model=str(planted.model), saes=[str(planted.sae)], options=OPTIONS
    )


def finish(prepared: Prepared, folder: Path, script: Script) -> tuple[LabelRun, list[Request]]:
    with ScriptedServer(script) as server:
        options = LLMOptions(model="m", base_url=server.url, retries=1, first_wait=0.001, timeout=5)
        with open_llm(options) as llm:
            return finish_labels(prepared, folder, options=OPTIONS, llm=llm), server.requests


def planted_word(request: Request) -> str:
    """What a good labeller says: the word that is marked."""
    (part,) = {tuple(marked_words(json.loads(line.split(". ", 1)[1]))) for line in lines_of(request)}
    return f"the word {part[0]}"


def right_judge(request: Request) -> Answer:
    """Labels by the marked word, and judges by the word of the description."""
    if kind(request) == "label":
        return Answer(json.dumps({"label": planted_word(request)}))
    word = json.loads(request.user.split("\n")[0].removeprefix("Description: ")).split()[-1]
    return judge(knows([word]))(request)


def test_the_search_labels_are_the_planted_words(prepared: Prepared) -> None:
    assert [label.keywords[:1] for label in prepared.labels] == [[word] for word in WORDS] + [[]]
    assert [label.label for label in prepared.labels][-1] is None


def test_a_judge_that_knows_the_word_scores_one(prepared: Prepared, tmp_path: Path) -> None:
    # "door" is two tokens, of which the second activates: its marks read "do<<or>>".
    run, requests = finish(prepared, tmp_path, right_judge)
    for label, word in zip(run.labels, WORDS[:3], strict=False):
        assert (label.label_llm, label.label, label.reason) == (f"the word {word}", f"the word {word}", "")
        assert (label.detection.accuracy, label.detection.n) == (1.0, 40)
        assert (label.fuzzing.accuracy, label.fuzzing.n) == (1.0, 20)
    silent = run.labels[4]
    assert (silent.label, silent.detection.accuracy, silent.detection.n, silent.reason) == (None, None, 0, "")
    assert [kind(r) for r in requests].count("label") == 4
    for word in WORDS[:3]:
        shown = {t for r in requests if kind(r) == "label" and planted_word(r).endswith(word) for t in shown_texts(r)}
        about = [r for r in requests if kind(r) != "label" and f'Description: "the word {word}"' in r.user]
        judged = {one["text"].replace("<<", "").replace(">>", "") for r in about for one in texts_of(r)}
        assert (len(shown), len(judged)) == (10, 40)
        assert not shown & judged
    # Only what the description says is sent to the judge: no activation, no truth.
    assert all(set(one) == {"id", "text"} for r in requests if kind(r) != "label" for one in texts_of(r))


@pytest.mark.parametrize("constant", [True, False])
def test_a_constant_judge_scores_a_half(prepared: Prepared, tmp_path: Path, constant: bool) -> None:
    run, _ = finish(prepared, tmp_path, judge(lambda _text: constant))
    for label in run.labels[:4]:
        assert label.detection.accuracy == label.fuzzing.accuracy == 0.5


def test_bad_answers_are_never_counted(prepared: Prepared, tmp_path: Path) -> None:
    """Feature 0: too long a label. Of the verdicts, the first group of each test lacks an id, twice."""
    good = judge(knows(WORDS))

    def script(request: Request) -> Answer:
        if kind(request) == "label" and "brave" in request.user:
            return Answer(json.dumps({"label": "one two three four five six seven eight nine ten"}))
        answers = good(request)
        if kind(request) == "detection" and '"brave deeds"' in request.user:
            return (
                as_answer([(one["id"], True) for one in texts_of(request)[1:]]) if "door" in request.user else answers
            )
        return answers

    run, requests = finish(prepared, tmp_path, script)
    first = run.labels[0]
    assert first.label_llm is None
    assert first.label == first.label_search
    assert "the label has 10 words, and 9 are the most" in first.reason
    assert first.detection.n == 40  # the search label is judged in its place
    assert sum("could not be used" in r.user for r in requests) > 1
    assert run.lost
    assert all("each once" in reason for reason in run.lost)
    lost = sum(label.detection.n_asked - label.detection.n for label in run.labels)
    assert lost == sum(10 for _ in run.lost)
    run_json = json.loads((tmp_path / "run.json").read_text())
    assert run_json["n_without_llm_label"] == 1
    assert run_json["n_groups_without_verdict"] == len(run.lost)
    assert "sk-label" not in (tmp_path / "run.json").read_text()


def test_an_endpoint_that_goes_away_leaves_search_labels(prepared: Prepared, tmp_path: Path) -> None:
    run, _ = finish(prepared, tmp_path, lambda _request: Answer(status=401, error="no such key"))
    assert run.stopped
    assert [label.label for label in run.labels] == [label.label_search for label in run.labels]
    assert all(label.detection.accuracy is None for label in run.labels)
    assert all(label.reason for label in run.labels[:4])
    # Run again with the key mended, everything is there; and once more costs nothing.
    with ScriptedServer(right_judge) as server:
        options = LLMOptions(model="m", base_url=server.url)
        for calls in (True, False):
            server.requests.clear()
            with open_llm(options) as llm:
                again = finish_labels(prepared, tmp_path, options=OPTIONS, llm=llm)
            assert bool(server.requests) is calls
            assert not again.unlabelled


def test_reading_labels_and_verdicts() -> None:
    assert read_label('{"label": " \\"Lies about money.\\" "}') == "Lies about money"
    for bad in ('{"label": ""}', '{"label": "..."}', '{"label": 3}', "lies", '{"label": "a", "more": 1}'):
        with pytest.raises(BadAnswer):
            read_label(bad)
    read = verdict_reader(2)
    assert read('{"answers": [{"id": 2, "fits": true}, {"id": 1, "fits": false}]}') == [False, True]
    bad_ids: tuple[list[int], ...] = ([1], [1, 1], [1, 2, 2], [0, 1], [1, 3])
    for ids in bad_ids:
        with pytest.raises(BadAnswer, match="each once"):
            read(json.dumps({"answers": [{"id": i, "fits": True} for i in ids]}))
    with pytest.raises(BadAnswer):
        read('{"answers": [{"id": 1, "fits": "yes"}, {"id": 2, "fits": true}]}')


def arguments(planted: Planted, *more: Any) -> list[Any]:
    base = ["label", "--model", planted.model, "--saes", planted.sae, "--dataset", planted.texts, "--device", "cpu"]
    return [*base, "--output-dir", "results", *more]


def test_the_command_with_an_endpoint(planted: Planted, tmp_path: Path) -> None:
    with ScriptedServer(right_judge) as server:
        llm = ["--llm-model", "m", "--llm-base-url", server.url, "--llm-wait", "0.001"]
        dry = invoke(*arguments(planted, "--features", "0,1", "--dry-run", *llm))
        assert dry.code == 0, dry.stderr
        assert "2 calls would be made for labels, and 12 to score them" in dry.stdout
        assert not server.requests
        done = invoke(*arguments(planted, "--features", "0,1", "--json", *llm))
        assert done.code == 0, done.stderr
        assert len(server.requests) == 14
    assert [row["label"] for row in json.loads(done.stdout)] == ["the word brave", "the word bag"]
    content = json.loads((tmp_path / "results/feature_labels.json").read_text())
    assert content["num_features"] == 2
    assert list(content["features"][0])[:8] == [
        "feature_index", "score", "label_llm", "label_search", "label", "num_examples", "detection_accuracy",
        "fuzzing_accuracy",
    ]  # fmt: skip
    assert content["features"][0]["detection_accuracy"] == 1.0


def test_a_model_of_this_machine_that_answers_nonsense(planted: Planted, tmp_path: Path) -> None:
    done = invoke(*arguments(planted, "--features", "0", "--label-model", planted.model, "--llm-max-tokens", "8"))
    assert done.code == 1
    assert "gave no valid answer to 8 questions in a row (the last: the prompt's" in done.stderr
    assert "take a larger model" in done.stderr
    (entry,) = json.loads((tmp_path / "results/feature_labels.json").read_text())["features"]
    assert entry["label_llm"] is None
    assert entry["label"].startswith("brave")
    assert entry["detection_accuracy"] is None


def test_run_labeling_labels_with_the_subject_itself(planted: Planted, tmp_path: Path) -> None:
    with ScriptedServer(right_judge) as server, open_llm(LLMOptions(model="m", base_url=server.url)) as llm:
        examples, labels = ca.run_labeling(
            "0,2", str(planted.model), str(planted.sae), str(planted.texts), "sae", output_dir=tmp_path / "out",
            device="cpu", max_examples_per_feature=4, max_examples_for_labeling=3, llm=llm,
        )  # fmt: skip
    assert (examples, labels) == (tmp_path / "out/feature_examples.jsonl", tmp_path / "out/feature_labels.json")
    assert [entry["label_llm"] for entry in json.loads(labels.read_text())["features"]] == [
        "the word brave",
        "the word rain",
    ]
    assert [len(json.loads(line)["examples"]) for line in examples.read_text().splitlines()] == [4, 4]
    with pytest.warns(UserWarning, match=r"1 features got no valid label \(the first: .*\), so search labels stand in"):
        ca.run_labeling(
            [1], str(planted.model), str(planted.sae), str(planted.texts), "sae", output_dir=tmp_path / "own",
            device="cpu",
        )  # fmt: skip
    (entry,) = json.loads((tmp_path / "own/feature_labels.json").read_text())["features"]
    assert entry["label"].startswith("bag")
    assert entry["reason"]
    run = json.loads((tmp_path / "own/run.json").read_text())
    assert run["llm"]["endpoint"].endswith(planted.model.name)


def test_stopped_is_an_error_of_the_command(planted: Planted) -> None:
    with ScriptedServer(lambda _request: Answer(status=401, error="no such key")) as server:
        llm = ["--llm-model", "m", "--llm-base-url", server.url]
        done = invoke(*arguments(planted, "--features", "0", *llm))
    assert done.code == WorkError.exit_code
    assert "not asked to the end" in done.stderr
    assert "sk-label" not in done.stderr
