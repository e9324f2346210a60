"""``annotate`` against a scripted server: no default grade, no lost sentence, and a rerun asks only what is missing."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from conceptatlas.base.errors import InputError
from conceptatlas.concepts import builtin_sets, load_concept
from conceptatlas.concepts.agreement import agreement
from conceptatlas.concepts.annotating import AnnotateOptions, Annotation, annotate
from conceptatlas.concepts.builtin import concept_text
from conceptatlas.concepts.sentences import read_sentences
from conceptatlas.llm import LLMOptions, open_llm
from tests.concepts.graders import answer, grade_all, items_of, perfect, texts_asked
from tests.helpers.cli import Outcome, invoke
from tests.llm.scripted_server import Answer, Request, Script, ScriptedServer, in_order

KEY = "sk-annotate-secret-9876543210"
TRUTH = {f"Sentence number {i} is about thing {i * 7 % 11}.": i % 4 for i in range(10)}
TEXTS = list(TRUTH)
Run = Callable[..., tuple[ScriptedServer, Outcome]]


@pytest.fixture(autouse=True)
def settings_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("CONCEPTATLAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.txt"
    path.write_text("\n".join(TEXTS) + "\n\n")
    return path


@pytest.fixture
def run(tmp_path: Path, source: Path) -> Iterator[Run]:
    """Run the command against a server that follows a script; the same address each time, so that a rerun is one."""
    servers: list[ScriptedServer] = []

    def _run(script: Script, *more: object, given: object = source) -> tuple[ScriptedServer, Outcome]:
        if not servers:
            servers.append(ScriptedServer(script).__enter__())
        server = servers[0]
        server.script = script
        server.requests.clear()
        outcome = invoke(
            "annotate", given, "--concept", "bravery", "--out", tmp_path / "out.csv", "--llm-model", "m",
            "--llm-base-url", server.url, "--llm-wait", "0.001", "--llm-retries", "2", "--llm-timeout", "5",
            "--batch-size", "4", *more,
        )  # fmt: skip
        return server, outcome

    yield _run
    for server in servers:
        server.__exit__()


def rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def outcome_files(folder: Path) -> tuple[dict[str, int], dict[str, str]]:
    """Return (grades by sentence, reasons by sentence), having checked that none is in both."""
    labelled = {row["sentence"]: int(row["concept_strength_label"]) for row in rows(folder / "out.csv")}
    unlabelled = {row["sentence"]: row["reason"] for row in rows(folder / "out.unlabelled.csv")}
    assert not set(labelled) & set(unlabelled)
    return labelled, unlabelled


def test_good_answers_give_the_grades_in_order(run: Run, tmp_path: Path) -> None:
    server, done = run(perfect(TRUTH))
    assert done.code == 0, done.stderr
    assert len(server.requests) == 3
    assert [(r["sentence"], int(r["concept_strength_label"])) for r in rows(tmp_path / "out.csv")] == list(
        TRUTH.items()
    )
    assert not (tmp_path / "out.unlabelled.csv").exists()
    assert "3 calls" in done.stderr
    assert load_concept(tmp_path / "out.csv").labels.tolist() == list(TRUTH.values())
    assert json.loads((tmp_path / "out.run.json").read_text())["counts"]["labelled"] == 10
    assert "bravery" in server.requests[0].system
    assert [path.name for path in (tmp_path / "cache" / "llm").iterdir()] == ["items"]
    assert KEY not in "".join(p.read_text() for p in tmp_path.rglob("*.json")) + done.stdout + done.stderr


def test_a_rerun_asks_nothing_and_writes_the_same(run: Run, tmp_path: Path) -> None:
    run(perfect(TRUTH))
    first = (tmp_path / "out.csv").read_bytes()
    server, done = run(perfect(TRUTH))
    assert done.code == 0
    assert server.requests == []
    assert (tmp_path / "out.csv").read_bytes() == first


def faulty_first(fault: Callable[[Request], Answer]) -> Script:
    """Spoil every answer to more than one sentence; sentences alone are graded well, but for the first."""
    good = perfect(TRUTH)
    return lambda request: good(request) if len(items_of(request)) == 1 else fault(request)


def without_first(request: Request) -> Answer:
    return answer(grade_all(request, TRUTH.__getitem__)[1:])


def too_many(request: Request) -> Answer:
    return answer([*grade_all(request, TRUTH.__getitem__), {"id": "zzzz", "grade": 3}])


def reordered(request: Request) -> Answer:
    return answer(grade_all(request, TRUTH.__getitem__)[::-1])


def by_counting(request: Request) -> Answer:
    return answer([{"id": str(i), "grade": 3} for i, _ in enumerate(items_of(request))])


def doubled(request: Request) -> Answer:
    entries = grade_all(request, TRUTH.__getitem__)
    return answer([{"id": entries[0]["id"], "grade": (entries[0]["grade"] + 1) % 4}, *entries])


def out_of_range(value: object) -> Callable[[Request], Answer]:
    def script(request: Request) -> Answer:
        entries = grade_all(request, TRUTH.__getitem__)
        entries[0]["grade"] = value
        return answer(entries)

    return script


ALWAYS_GOOD = [too_many, reordered]
PARTLY_GOOD = [
    without_first,
    doubled,
    *(out_of_range(value) for value in (4, -1, 1.5, 2.0, "2", True, None, [1], "unsure")),
]
USELESS = [
    by_counting,
    lambda _: Answer('{"grades": [{"id": "bcd", "gra'),
    lambda _: Answer("Grades: 3, 2, 1, 0"),
    lambda _: Answer('{"grades": {}}'),
    lambda _: Answer('{"grades": [3, 2, 1, 0]}'),
    lambda _: Answer("[]"),
    lambda _: Answer(""),
    lambda _: Answer(None, refusal="I cannot grade this."),
    lambda _: Answer("I'm sorry, but I can't help with that."),
    lambda _: Answer('{"grades": []}', finish_reason="length"),
    lambda _: Answer(status=400, error="the prompt was flagged"),
]


@pytest.mark.parametrize("fault", ALWAYS_GOOD)
def test_further_and_reordered_entries_do_no_harm(run: Run, tmp_path: Path, fault: Script) -> None:
    server, done = run(fault)
    assert done.code == 0
    assert outcome_files(tmp_path) == (TRUTH, {})
    assert len(server.requests) == 3


@pytest.mark.parametrize("fault", PARTLY_GOOD)
def test_one_bad_entry_loses_only_its_sentence_which_is_asked_again(run: Run, tmp_path: Path, fault: Script) -> None:
    server, done = run(fault)
    # Of 4 + 4 + 2 sentences the first of each batch fails, then of 2 + 1, then one by one.
    labelled, unlabelled = outcome_files(tmp_path)
    assert set(labelled) | set(unlabelled) == set(TEXTS)
    assert all(TRUTH[text] == grade for text, grade in labelled.items())
    assert all("grade" in reason for reason in unlabelled.values())
    assert [len(items_of(r)) for r in sorted(server.requests, key=lambda r: r.number)][:3].count(4) == 2
    assert done.code == 0
    missing = set(unlabelled)
    server, done = run(perfect(TRUTH))
    assert set(texts_asked(server.requests)) == missing
    assert outcome_files(tmp_path) == (TRUTH, {})
    assert not (tmp_path / "out.unlabelled.csv").exists()


@pytest.mark.parametrize("fault", USELESS)
def test_an_answer_of_no_use_leads_to_smaller_batches(run: Run, tmp_path: Path, fault: Script) -> None:
    # Ten sentences in batches of four and two give no valid grade at all: the model clearly cannot, nothing is asked
    # one by one.
    server, done = run(faulty_first(fault))
    labelled, unlabelled = outcome_files(tmp_path)
    assert labelled == {}
    assert set(unlabelled) == set(TEXTS)
    assert all(unlabelled.values())
    assert done.code == 1
    assert "No sentence got a valid grade" in done.stderr
    assert [len(items_of(r)) for r in server.requests].count(1) == 0
    server, done = run(perfect(TRUTH))
    assert done.code == 0
    assert sorted(texts_asked(server.requests)) == sorted(TEXTS)
    assert outcome_files(tmp_path) == (TRUTH, {})


def test_one_sentence_that_spoils_its_batch_is_found_and_the_others_are_graded(run: Run, tmp_path: Path) -> None:
    poison = TEXTS[5]

    def script(request: Request) -> Answer:
        if any(item["text"] == poison for item in items_of(request)):
            return Answer(None, refusal="not this one")
        return perfect(TRUTH)(request)

    _, done = run(script)
    labelled, unlabelled = outcome_files(tmp_path)
    assert done.code == 0
    assert unlabelled == {poison: "the model refused: not this one"}
    assert labelled == {text: grade for text, grade in TRUTH.items() if text != poison}
    server, _ = run(script)
    assert set(texts_asked(server.requests)) == {poison}


@pytest.mark.parametrize(
    "fault",
    [
        Answer(status=429, error="slow down"),
        Answer(status=500, error="oops"),
        Answer('{"grades": []}', cut_after=30),
    ],
)
def test_passing_failures_cost_nothing_but_a_retry(run: Run, tmp_path: Path, fault: Answer) -> None:
    server, done = run(in_order([fault, fault], then=perfect(TRUTH)), "--concurrency", "1")
    assert done.code == 0
    assert outcome_files(tmp_path) == (TRUTH, {})
    assert len(server.requests) == 5
    assert "2 retries" in done.stderr


def test_a_time_out_is_retried(run: Run, tmp_path: Path) -> None:
    slow = in_order([Answer(delay=1.5)], then=perfect(TRUTH))
    _, done = run(slow, "--llm-timeout", "0.4")
    assert done.code == 0
    assert outcome_files(tmp_path) == (TRUTH, {})


@pytest.mark.parametrize(
    ("fault", "says", "code"),
    [
        (Answer(status=500, error="oops"), "answered 500 (oops)", 1),
        (Answer(status=429, error="slow down"), "answered 429", 1),
        (Answer("", cut_after=10), "no connection", 1),
        (Answer(status=401, error=f"bad key {KEY}"), "refused the key (401: bad key ***)", 1),
    ],
)
def test_an_endpoint_that_goes_away_midway_keeps_what_it_gave(
    run: Run, tmp_path: Path, fault: Answer, says: str, code: int
) -> None:
    def script(request: Request) -> Answer:
        return perfect(TRUTH)(request) if request.number == 0 else fault

    server, done = run(script, "--concurrency", "1")
    labelled, unlabelled = outcome_files(tmp_path)
    assert labelled == {text: TRUTH[text] for text in TEXTS[:4]}
    assert set(unlabelled) == set(TEXTS[4:])
    assert all(says in reason for reason in unlabelled.values())
    assert done.code == code
    assert "Run the same command again" in done.stderr or "valid grade" in done.stderr
    assert KEY not in done.stderr + done.stdout + (tmp_path / "out.unlabelled.csv").read_text()
    server, done = run(perfect(TRUTH))
    assert done.code == 0
    assert sorted(texts_asked(server.requests)) == sorted(TEXTS[4:])
    assert outcome_files(tmp_path) == (TRUTH, {})


def test_a_wrong_key_asks_once_and_loses_nothing(run: Run, tmp_path: Path) -> None:
    server, done = run(lambda _: Answer(status=401, error="no"), "--concurrency", "1")
    assert len(server.requests) == 1
    assert done.code == 1
    labelled, unlabelled = outcome_files(tmp_path)
    assert (labelled, set(unlabelled)) == ({}, set(TEXTS))


def test_three_votes_take_the_median_and_record_the_spread(run: Run, tmp_path: Path) -> None:
    def script(request: Request) -> Answer:
        seed = request.body["seed"]
        return answer(grade_all(request, lambda text: [TRUTH[text], TRUTH[text], 3][seed]))

    server, done = run(script, "--votes", "3")
    assert done.code == 0
    assert len(server.requests) == 9
    assert {request.body["temperature"] for request in server.requests} == {0.7}
    table = rows(tmp_path / "out.csv")
    assert [int(row["concept_strength_label"]) for row in table] == list(TRUTH.values())
    assert [row["label_votes"] for row in table] == [f"{g}|{g}|3" for g in TRUTH.values()]
    assert [int(row["label_spread"]) for row in table] == [3 - g for g in TRUTH.values()]
    orders = {tuple(texts_asked([r for r in server.requests if r.body["seed"] == seed])) for seed in range(3)}
    assert len(orders) == 3


def test_a_missing_vote_is_no_grade_and_is_completed_by_a_rerun(run: Run, tmp_path: Path) -> None:
    def script(request: Request) -> Answer:
        return Answer("nonsense") if request.body["seed"] == 2 else perfect(TRUTH)(request)

    run(script, "--votes", "3")
    labelled, unlabelled = outcome_files(tmp_path)
    assert labelled == {}
    assert all(reason.startswith("2 of 3 votes: the answer is not JSON") for reason in unlabelled.values())
    server, done = run(perfect(TRUTH), "--votes", "3")
    assert done.code == 0
    assert {request.body["seed"] for request in server.requests} == {2}
    assert outcome_files(tmp_path) == (TRUTH, {})


def test_another_rubric_model_or_batch_size_is_asked_anew(run: Run, tmp_path: Path) -> None:
    run(perfect(TRUTH))
    server, _ = run(perfect(TRUTH), "--describe", "something else")
    assert len(server.requests) == 3
    assert "something else" in server.requests[0].system
    (tmp_path / "rubric.md").write_text("3: purple")
    server, _ = run(perfect(TRUTH), "--rubric", tmp_path / "rubric.md")
    assert "3: purple" in server.requests[0].system
    server, _ = run(perfect(TRUTH), "--batch-size", "5")
    assert len(server.requests) == 2
    server, _ = run(perfect(TRUTH), "--llm-model", "n")
    assert len(server.requests) == 3


def test_human_labels_and_further_columns_are_kept_and_agreement_is_told(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    lines = [
        f"{text},{(grade + 1) % 4 if i == 0 else grade},g{i},holdout,red"
        for i, (text, grade) in enumerate(TRUTH.items())
    ]
    lines[3] = f"{TEXTS[3]},,g3,,blue"
    path.write_text("sentence,concept_strength_label,group,split,colour\n" + "\n".join(lines) + "\n")
    _, done = run(perfect(TRUTH), given=path)
    assert done.code == 0
    table = rows(tmp_path / "out.csv")
    assert list(table[0]) == ["sentence", "concept_strength_label", "group", "split", "colour", "human_label"]
    assert table[0]["human_label"] == "1"
    assert table[0]["concept_strength_label"] == "0"
    assert table[3]["human_label"] == ""
    assert "Agreement on 9 items: quadratic kappa 0.9" in done.stdout
    assert load_concept(tmp_path / "out.csv").items["colour"].to_list() == ["red"] * 3 + ["blue"] + ["red"] * 6


def test_the_same_sentence_twice_is_asked_once_and_written_twice(run: Run, tmp_path: Path, source: Path) -> None:
    source.write_text("\n".join([*TEXTS, TEXTS[0]]))
    server, _ = run(perfect(TRUTH))
    assert texts_asked(server.requests).count(TEXTS[0]) == 1
    assert len(rows(tmp_path / "out.csv")) == 11


def test_dry_run_prints_prompts_and_calls_and_needs_neither_key_nor_model(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    shown = invoke(
        "annotate", source, "--concept", "bravery", "--out", tmp_path / "o.csv", "--batch-size", "4", "--dry-run"
    )
    assert shown.code == 0, shown.stderr
    assert "3 calls would be made" in shown.stdout
    assert TEXTS[0] in shown.stdout
    assert not (tmp_path / "o.csv").exists()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--votes", "2"], "must be odd"),
        (["--batch-size", "0"], "must be 1 or more"),
        (["--concept", "greed"], "'greed' is not built in"),
        (["--rubric", "none.md"], "Cannot read the rubric"),
        (["--out", "x.tsv"], "does not end in .csv"),
        (["--concurrency", "0"], "--concurrency"),
    ],
)
def test_bad_usage_says_what_to_do(run: Run, more: list[str], says: str) -> None:
    server, done = run(perfect(TRUTH), *more)
    assert done.code == 2
    assert says in done.stderr
    assert server.requests == []


def test_an_input_that_would_be_overwritten_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "out.unlabelled.csv").write_text("sentence,reason\na,b\n")
    _, done = run(perfect(TRUTH), given=tmp_path / "out.unlabelled.csv")
    assert done.code == 2
    assert "would be overwritten" in done.stderr


def test_any_concept_is_served_by_a_description() -> None:
    description, rubric = concept_text("greed", describe="Wanting more than one's share.")
    assert description == "Wanting more than one's share."
    assert "greed cleanly identifies the text" in rubric
    assert "bravery" in concept_text("bravery")[1]


@pytest.mark.parametrize(
    ("content", "name", "says"),
    [
        (b"", "a.txt", "is empty"),
        (b"ok\nna\xefve\n", "a.txt", "line 2: 'na\\xefve' is not UTF-8"),
        (b"a,b\n1,2\n", "a.csv", "no column 'sentence', 'content' or 'text'; it has 'a', 'b'"),
        (b"sentence\n\n \n", "a.csv", "line 3, column 'sentence': the sentence is empty"),
        (b"sentence,concept_strength_label\na,9\n", "a.csv", "'9' is not a grade"),
    ],
)
def test_unreadable_sentences_are_named(tmp_path: Path, content: bytes, name: str, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_sentences(tmp_path / name)
    assert says in str(caught.value)


def test_sentences_come_from_lists_and_columns_without_labels(tmp_path: Path) -> None:
    assert read_sentences(["a", "b"]).texts == ["a", "b"]
    (tmp_path / "a.csv").write_text("sentence,other\nx,1\n,2\n")
    read = read_sentences(tmp_path / "a.csv", skip_bad_rows=True)
    assert (read.texts, len(read.bad_rows)) == (["x"], 1)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=30))
def test_kappa_equals_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    found = agreement(a, b)
    assert found.n == len(pairs)
    if len(set(a) | set(b)) < 2:
        assert found.kappa is None
    else:
        expected = cohen_kappa_score(a, b, weights="quadratic", labels=[0, 1, 2, 3])
        assert found.kappa == pytest.approx(expected, abs=1e-12)


@pytest.fixture(scope="module")
def graded_builtin() -> list[str]:
    return [entry.name for entry in builtin_sets() if entry.name == f"builtin:{entry.trait}"]


def annotated(tmp_path: Path, name: str, script: Script) -> Annotation:
    with ScriptedServer(script) as server:
        options = LLMOptions(model="m", base_url=server.url, cache_folder=tmp_path / "cache")
        with open_llm(options) as llm:
            graders = AnnotateOptions(concept=name.partition(":")[2], cache_folder=tmp_path / "cache")
            return annotate(name, tmp_path / "out.csv", options=graders, llm=llm)


def test_a_perfect_grader_has_kappa_one_on_every_built_in_set(tmp_path: Path, graded_builtin: list[str]) -> None:
    for number, name in enumerate(graded_builtin):
        concept = load_concept(name)
        folder = tmp_path / str(number)
        done = annotated(folder, name, perfect(dict(zip(concept.texts, concept.labels.tolist(), strict=True))))
        assert done.agreement.n == len(concept) == done.table.height
        assert done.agreement.kappa == 1.0


def test_a_tenth_of_the_grades_shuffled_gives_about_the_expected_kappa(
    tmp_path: Path, graded_builtin: list[str]
) -> None:
    rng = np.random.default_rng(7)
    concept = load_concept(graded_builtin[0])
    texts, labels = concept.texts, concept.labels.astype(int)
    shuffled = labels.copy()
    chosen = rng.choice(len(labels), len(labels) // 10, replace=False)
    shuffled[chosen] = labels[rng.permutation(chosen)]
    done = annotated(tmp_path, graded_builtin[0], perfect(dict(zip(texts, shuffled.tolist(), strict=True))))
    assert done.agreement.kappa == pytest.approx(cohen_kappa_score(labels, shuffled, weights="quadratic"))
    # A shuffled tenth agrees by chance only, so kappa loses about a tenth.
    assert done.agreement.kappa == pytest.approx(0.9, abs=0.07)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_or_killed_it_goes_on_with_what_is_missing(
    run: Run, tmp_path: Path, source: Path, how: signal.Signals
) -> None:
    """The first batch is answered; the process ends while it waits for the second, slow one."""
    waiting = threading.Event()

    def slow_second(request: Request) -> Answer:
        if request.number == 0:
            return perfect(TRUTH)(request)
        waiting.set()
        return Answer(delay=5.0)

    # The same address and cache as ``run`` uses.
    server, _ = run(slow_second, "--dry-run")
    command = [
        sys.executable, "-c", "from conceptatlas.cli.app import main; main()", "annotate",
        str(source), "--concept", "bravery", "--out",
        str(tmp_path / "out.csv"), "--llm-model", "m", "--llm-base-url", server.url, "--batch-size", "4",
        "--concurrency", "1",
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    assert waiting.wait(60)
    process.send_signal(how)
    _, err = process.communicate(timeout=4)  # before the slow answer comes
    assert process.returncode == (130 if how == signal.SIGINT else -how), err
    assert not (tmp_path / "out.csv").exists()
    server, done = run(perfect(TRUTH))
    assert done.code == 0
    assert sorted(texts_asked(server.requests)) == sorted(TEXTS[4:])
    assert outcome_files(tmp_path) == (TRUTH, {})
