"""``generate`` against a scripted writer and grader: counts met or given up, the labeller wins, reruns go on."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from conceptatlas.concepts import load_concept
from conceptatlas.concepts.generating import _Progress
from tests.concepts.graders import answer, grade_all
from tests.helpers.cli import Outcome, invoke
from tests.llm.scripted_server import Answer, Request, Script, ScriptedServer

SEEDS = load_concept("seeds:bravery")
SEED_GRADES = dict(zip(SEEDS.texts, SEEDS.labels.tolist(), strict=True))
WORDS = [a + b for a in ("ba", "de", "fi", "go", "lu") for b in ("ma", "ne", "pi", "ro", "tu", "xa")]
Run = Callable[..., tuple[ScriptedServer, Outcome]]


def asked_for(request: Request) -> tuple[int, int] | None:
    """Return (n, grade) of a request to write, None for one to grade."""
    found = re.search(r"Write (\d+) new texts of grade (\d)\.", request.user)
    return (int(found[1]), int(found[2])) if found else None


def sentence(grade: int, rng: np.random.Generator) -> str:
    return f"G{grade} " + " ".join(rng.choice(WORDS, 12))


def grade_of(text: str) -> int:
    return SEED_GRADES[text] if text in SEED_GRADES else int(text[1])


class Model:
    """Writes random sentences that carry their grade, and grades by it; both can be changed."""

    def __init__(
        self,
        grade: Callable[[str], object] = grade_of,
        write: Callable[[int, int, np.random.Generator], list[str]] | None = None,
    ) -> None:
        self.grade = grade
        self.write = write or (lambda n, grade, rng: [sentence(grade, rng) for _ in range(n)])

    def __call__(self, request: Request) -> Answer:
        wanted = asked_for(request)
        if wanted is None:
            return answer(grade_all(request, self.grade))
        rng = np.random.default_rng([request.body["seed"], wanted[1]])
        return Answer(json.dumps({"sentences": self.write(*wanted, rng)}))


@pytest.fixture(autouse=True)
def settings_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-generate-secret-1234567890")
    monkeypatch.setenv("CONCEPTATLAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    servers: list[ScriptedServer] = []

    def _run(
        script: Script, *more: object, counts: tuple[int, int, int, int] = (2, 3, 4, 5)
    ) -> tuple[ScriptedServer, Outcome]:
        if not servers:
            servers.append(ScriptedServer(script).__enter__())
        server = servers[0]
        server.script = script
        server.requests.clear()
        wanted = [part for grade, n in enumerate(counts) for part in (f"--label{grade}-count", n)]
        outcome = invoke(
            "generate", "--concept", "bravery", "--out", tmp_path / "out.csv", *wanted, "--llm-model", "m",
            "--llm-base-url", server.url, "--llm-wait", "0.001", "--llm-retries", "1", "--batch-size", "3", *more,
        )  # fmt: skip
        return server, outcome

    yield _run
    for server in servers:
        server.__exit__()


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def generated(folder: Path) -> list[dict[str, str]]:
    return [row for row in rows(folder / "out.csv") if row["origin"] == "generated"]


def writes(server: ScriptedServer) -> list[tuple[int, int]]:
    return [wanted for request in server.requests if (wanted := asked_for(request))]


def test_counts_are_met_seeds_merged_and_everything_written(run: Run, tmp_path: Path) -> None:
    server, done = run(Model())
    assert done.code == 0, done.stderr
    table = rows(tmp_path / "out.csv")
    assert list(table[0]) == ["sentence", "concept_strength_label", "intended_label", "origin"]
    assert Counter(row["origin"] for row in table) == {"seed": 20, "generated": 14}
    assert Counter(int(row["concept_strength_label"]) for row in generated(tmp_path)) == {0: 2, 1: 3, 2: 4, 3: 5}
    assert sorted(writes(server), reverse=True) == [(3, 3), (3, 2), (3, 1), (2, 3), (2, 0), (1, 2)]
    assert "quadratic kappa 1.000" in done.stdout
    assert (tmp_path / "out.distribution.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "out.run.json").read_text())["agreement_with_seeds"]["kappa"] == 1.0
    assert len(load_concept(tmp_path / "out.csv")) == 34
    assert not (tmp_path / "out.unlabelled.csv").exists()
    secret = b"sk-generate-secret-1234567890"
    assert not any(secret in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_prompts_show_seeds_of_the_grade_and_ask_for_variety(run: Run) -> None:
    server, _ = run(Model(), "--concurrency", "1")
    for request in server.requests:
        wanted = asked_for(request)
        if wanted is None:
            continue
        shown = {text for text in SEED_GRADES if f"- {text}" in request.user}
        assert len(shown) == 5
        assert {SEED_GRADES[text] for text in shown} == {wanted[1]}
        assert "Settings to draw on" in request.user
    variety = {request.user.split("Settings")[1] for request in server.requests if asked_for(request)}
    assert len(variety) > 3


def test_a_rerun_asks_nothing_and_more_is_topped_up(run: Run, tmp_path: Path) -> None:
    run(Model())
    first = (tmp_path / "out.csv").read_bytes()
    server, done = run(Model())
    assert done.code == 0
    assert server.requests == []
    assert (tmp_path / "out.csv").read_bytes() == first
    server, _ = run(Model(), counts=(2, 3, 4, 7))
    assert writes(server) == [(2, 3)]
    assert len(generated(tmp_path)) == 16


def test_the_labellers_grade_wins_and_what_is_short_is_topped_up(run: Run, tmp_path: Path) -> None:
    def strict(text: str) -> int:
        grade = grade_of(text)
        # Of the threes, those with a "bama" in them are only twos.
        return 2 if text not in SEED_GRADES and grade == 3 and "bama" in text else grade

    _, done = run(Model(strict))
    assert done.code == 0
    table = generated(tmp_path)
    got = Counter(int(row["concept_strength_label"]) for row in table)
    assert all(got[grade] >= count for grade, count in enumerate((2, 3, 4, 5)))
    for row in table:
        assert int(row["concept_strength_label"]) == strict(row["sentence"])
        assert int(row["intended_label"]) == int(row["sentence"][1])
    assert any(row["intended_label"] != row["concept_strength_label"] for row in table)


def test_near_duplicates_are_dropped_and_topped_up(run: Run, tmp_path: Path) -> None:
    def repeating(n: int, grade: int, rng: np.random.Generator) -> list[str]:
        text = sentence(grade, rng)
        return [text, text.upper(), *(sentence(grade, rng) for _ in range(n - 2))][:n]

    _, done = run(Model(write=repeating))
    assert done.code == 0
    texts = [row["sentence"].casefold() for row in generated(tmp_path)]
    assert len(texts) == len(set(texts))
    got = Counter(int(row["concept_strength_label"]) for row in generated(tmp_path))
    assert all(got[grade] >= count for grade, count in enumerate((2, 3, 4, 5)))
    assert re.search(r"[1-9]\d* near-duplicates were dropped", done.stderr)


def test_a_model_that_only_repeats_itself_is_given_up(run: Run, tmp_path: Path) -> None:
    def stuck(n: int, grade: int, _: np.random.Generator) -> list[str]:
        return [sentence(grade, np.random.default_rng(grade))] * n

    server, done = run(Model(write=stuck))
    assert done.code == 0
    assert "Grade 3: 1 of 5; the model gave no more" in done.stderr
    assert Counter(int(row["concept_strength_label"]) for row in generated(tmp_path)) == {0: 1, 1: 1, 2: 1, 3: 1}
    assert len(server.requests) < 80


def test_seeds_are_not_repeated(run: Run, tmp_path: Path) -> None:
    parrot = Model(write=lambda n, grade, rng: [t for t, g in SEED_GRADES.items() if g == grade][:n])
    _, done = run(parrot)
    assert done.code == 1
    assert "no usable sentence" in done.stderr
    assert generated(tmp_path) == []
    assert len(rows(tmp_path / "out.csv")) == 20


def test_texts_without_a_grade_are_set_aside_and_graded_by_a_rerun(run: Run, tmp_path: Path) -> None:
    def moody(text: str) -> object:
        return "unsure" if text not in SEED_GRADES and grade_of(text) == 1 else grade_of(text)

    _, done = run(Model(moody))
    assert done.code == 0
    aside = rows(tmp_path / "out.unlabelled.csv")
    assert aside
    assert {row["intended_label"] for row in aside} == {"1"}
    assert all('"unsure", is not 0, 1, 2 or 3' in row["reason"] for row in aside)
    written = {entry["text"] for entry in json.loads((tmp_path / "out.work.json").read_text())["texts"]}
    assert {row["sentence"] for row in [*generated(tmp_path), *aside]} == written
    server, done = run(Model())
    assert writes(server) == []
    assert done.code == 0
    assert {row["sentence"] for row in generated(tmp_path)} == written
    assert not (tmp_path / "out.unlabelled.csv").exists()


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Answer(status=401, error="no"), "refused the key"),
        (Answer(status=500, error="oops"), "keeps failing"),
    ],
)
def test_an_endpoint_that_goes_away_midway_is_gone_on_with(run: Run, tmp_path: Path, fault: Answer, says: str) -> None:
    def dies(request: Request) -> Answer:
        return Model()(request) if request.number < 11 else fault

    server, done = run(dies, "--concurrency", "1")
    assert done.code == 1
    assert says in done.stderr
    assert "Run the same command again" in done.stderr
    before = {entry["text"] for entry in json.loads((tmp_path / "out.work.json").read_text())["texts"]}
    assert before
    server, done = run(Model(), "--concurrency", "1")
    assert done.code == 0
    got = Counter(int(row["concept_strength_label"]) for row in generated(tmp_path))
    assert got == {0: 2, 1: 3, 2: 4, 3: 5}
    assert before <= {row["sentence"] for row in generated(tmp_path)}
    # Together as many texts and requests as an undisturbed run asks for: what was not answered does not count.
    assert sum(json.loads((tmp_path / "out.work.json").read_text())["asked"].values()) == 6
    assert sum(n for n, _ in writes(server)) + len(before) == 14


@pytest.mark.parametrize(
    "text",
    [
        "no idea",
        "{}",
        '{"sentences": []}',
        '{"sentences": ["", " "]}',
        '{"sentences": [1]}',
        '{"sentences": ["\\ud800"]}',
        "",
    ],
)
def test_a_model_that_cannot_write_ends_cleanly(run: Run, tmp_path: Path, text: str) -> None:
    def script(request: Request) -> Answer:
        return Answer(text) if asked_for(request) else Model()(request)

    server, done = run(script, counts=(0, 0, 0, 2))
    assert done.code == 1
    assert "no usable sentence" in done.stderr
    # Three rounds of at most four times the two texts, in batches of three, each asked twice.
    assert len(writes(server)) <= 2 * (1 + 3 + 3)


def test_votes_are_recorded(run: Run, tmp_path: Path) -> None:
    _, done = run(Model(), "--votes", "3", counts=(0, 0, 0, 2))
    assert done.code == 0
    assert {row["label_votes"] for row in generated(tmp_path)} == {"3|3|3"}
    assert rows(tmp_path / "out.csv")[0]["label_votes"] == ""


def test_other_settings_on_the_same_output_are_refused(run: Run) -> None:
    run(Model(), counts=(0, 0, 0, 2))
    _, done = run(Model(), "--describe", "quite another thing", counts=(0, 0, 0, 2))
    assert done.code == 2
    assert "made with another description or rubric" in done.stderr


def test_seeds_of_ones_own_keep_their_columns(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text(
        "sentence,concept_strength_label,group,split,colour\n"
        "G3 she leapt into the well after the child,3,a,holdout,red\nG0 the kettle sang in the empty kitchen,0,,,blue\n"
    )
    grade = Model(lambda text: int(text[1]))
    _, done = run(grade, "--seed-file", tmp_path / "mine.csv", counts=(1, 0, 0, 1))
    assert done.code == 0, done.stderr
    table = rows(tmp_path / "out.csv")
    assert list(table[0])[4:] == ["group", "split", "colour"]
    assert [table[0]["group"], table[0]["split"], table[1]["group"], table[1]["colour"]] == ["a", "holdout", "", "blue"]


def test_dry_run_asks_nothing(run: Run, tmp_path: Path) -> None:
    server, done = run(Model(), "--dry-run")
    assert done.code == 0
    assert server.requests == []
    assert "6 calls would be made to write, and about 12 to grade" in done.stdout
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--concept", "greed"], "no built-in seeds"),
        (["--label1-count", "-1"], "must be 0 or more"),
        (["--seed-file", "none.csv"], "There is no file none.csv"),
        (["--out", "x.json"], "does not end in .csv"),
    ],
)
def test_bad_usage_says_what_to_do(run: Run, more: list[str], says: str) -> None:
    _, done = run(Model(), *more)
    assert done.code == 2
    assert says in done.stderr


def test_more_is_asked_for_when_little_comes_of_it_but_never_without_bound() -> None:
    progress = _Progress()
    assert progress.to_ask(3, 10) == 10
    progress.rounds[3] += [(10, 5)]
    assert progress.to_ask(3, 5) == 10
    progress.rounds[3] += [(10, 0), (10, 0)]
    assert progress.to_ask(3, 5) == 20
    assert not progress.hopeless(3)
    progress.rounds[3] += [(20, 0)]
    assert progress.hopeless(3)
    assert progress.to_ask(2, 1) == 1
