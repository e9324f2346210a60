"""Studies of several concepts: a folder for each, and each step run again only where its own inputs changed."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import yaml

import conceptatlas
from conceptatlas.base.errors import InputError
from conceptatlas.concepts import load_concept
from conceptatlas.concepts.builtin import builtin_path
from conceptatlas.recording import Recording
from conceptatlas.study import fingerprints, load_study, plan, run_study
from tests.helpers.cli import invoke
from tests.views.test_report import Page

QUICK = {
    "model": "organism",
    "saes": "organism",
    "out": "out",
    "record": {"device": "cpu"},
    "rank": {"permutations": 99, "resplits": 0, "baselines": False},
    "trace": {"top_n": 1, "max_sentences": 1, "dpi": 60},
}
TWO = {"own": "lies.csv", "caring": "seeds:caring"}
OF_CONCEPT = ("record", "rank", "trace", "report")
ALL = [*(f"own/{stage}" for stage in OF_CONCEPT), *(f"caring/{stage}" for stage in OF_CONCEPT), "compare", "report"]


def write(folder: Path, data: object, **changes: object) -> Path:
    folder.mkdir(exist_ok=True)
    shutil.copy(builtin_path("seeds:dishonesty"), folder / "lies.csv")
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({"data": data, **QUICK, **changes}, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two concepts that has run once."""
    folder = tmp_path_factory.mktemp("several")
    result = run_study(write(folder, TWO))
    assert result.stages == dict.fromkeys(ALL, "ran")
    return folder


@pytest.fixture
def copy(done: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(done, tmp_path / "copy"))


def test_each_concept_has_a_folder_and_the_report_leads_to_theirs(done: Path) -> None:
    out = done / "out"
    assert {path.name for path in out.iterdir()} == {
        "own", "caring", "compare", "concepts.json", "stages.json", "report.html",
    }  # fmt: skip
    for name in TWO:
        assert {path.name for path in (out / name).iterdir()} == {"rec", "rank", "trace", "report.html"}
        assert Recording.open(out / name / "rec").manifest.concept.name == name
    page = Page((out / "report.html").read_text(encoding="utf-8"))
    links = [(attrs.get("href") or "").partition("#") for tag, attrs in page.tags if tag == "a"]
    away = {(target, anchor) for target, _, anchor in links if target}
    assert {target for target, _ in away} == {"own/report.html", "caring/report.html"}
    for target, anchor in away:
        ids = Page((out / target).read_text(encoding="utf-8")).ids()
        assert not anchor or anchor in ids
    assert any(anchor.startswith("feature-") for _, anchor in away)
    compared = json.loads((out / "compare" / "cross_concepts.json").read_text())
    assert [entry["concept"] for entry in compared["concepts"]] == list(TWO)


def test_a_rerun_does_nothing_and_says_so(copy: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*") if path.is_file()}
    outcome = invoke("run", copy / "study.yaml", "--json")
    assert outcome.code == 0
    assert json.loads(outcome.stdout) == [{"stage": name, "state": "up to date"} for name in ALL]
    changed = {path.name for path, when in before.items() if path.stat().st_mtime_ns != when}
    assert changed <= {"concepts.json"}


def test_other_sentences_of_one_concept_rerun_only_its_steps(copy: Path) -> None:
    with (copy / "lies.csv").open("a") as handle:
        handle.write("She said that the clock was new and it was old,3\n")
    with pytest.raises(InputError, match=r"own/rec was recorded from other data"):
        run_study(copy / "study.yaml")
    shutil.rmtree(copy / "out" / "own" / "rec")
    found = run_study(copy / "study.yaml").stages
    assert {name for name, state in found.items() if state == "up to date"} == {
        f"caring/{stage}" for stage in OF_CONCEPT
    }


def test_an_option_for_one_concept_reruns_only_what_reads_it(copy: Path) -> None:
    write(copy, TWO, concepts={"caring": {"rank": {"pool": "max"}, "trace": False}})
    found = run_study(copy / "study.yaml").stages
    assert {name for name, state in found.items() if state == "ran"} == {
        "caring/rank", "caring/report", "compare", "report",
    }  # fmt: skip
    assert "caring/trace" not in found


def test_killed_between_concepts_it_goes_on(done: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "killed", TWO)

    def kill(name: str, state: str) -> None:
        if name.startswith("caring/") and state == "running":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study(path, report_stage=kill)
    found = run_study(path).stages
    assert {name for name, state in found.items() if state == "up to date"} == {f"own/{stage}" for stage in OF_CONCEPT}
    for name in ("own/rank/ranked_features.csv", "caring/rank/ranked_features.csv", "compare/cross_concepts.csv"):
        assert (path.parent / "out" / name).read_bytes() == (done / "out" / name).read_bytes(), name


def test_a_renamed_concept_is_compared_anew(copy: Path) -> None:
    before = fingerprints(load_study(copy / "study.yaml"))
    write(copy, {"own": "lies.csv", "kindness": "seeds:caring"})
    after = fingerprints(load_study(copy / "study.yaml"))
    assert after["kindness/rank"] == before["caring/rank"]
    assert after["compare"] != before["compare"]


def test_one_concept_keeps_its_layout_and_its_fingerprints(tmp_path: Path) -> None:
    path = write(tmp_path / "one", "lies.csv")
    study = load_study(path)

    def digest(stage: str, options: object, reads: list[str], **facts: object) -> str:
        told = {"stage": stage, "options": options, "version": conceptatlas.__version__, "reads": reads, **facts}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    data = load_concept(tmp_path / "one" / "lies.csv").data_hash
    record = digest("record", QUICK["record"], [], data=data, model="organism", saes=["organism"])
    rank = digest("rank", QUICK["rank"], [record])
    trace = digest("trace", QUICK["trace"], [record, rank])
    report = digest("report", {}, [record, rank, trace])
    expected = {"record": record, "rank": rank, "trace": trace, "report": report}
    assert fingerprints(study) == expected
    assert fingerprints(load_study(write(tmp_path / "one", ["lies.csv"]))) == expected
    run_study(study)
    out = tmp_path / "one" / "out"
    assert {path.name for path in out.iterdir()} == {"rec", "rank", "trace", "stages.json", "report.html"}
    assert json.loads((out / "stages.json").read_text()) == expected


def test_options_of_one_concept_stand_on_those_of_all(tmp_path: Path) -> None:
    own = {"effect": {"targets": ["lie"]}, "label": False, "rank": {"pool": "max", "permutations": 20}}
    path = write(
        tmp_path / "s", TWO, effect={"top_n": 1}, label=True, trace=False, compare=False, concepts={"own": own}
    )
    steps = {step.name: step for step in plan(load_study(path))}
    assert list(steps) == [
        "own/record", "own/rank", "own/effect", "own/report",
        "caring/record", "caring/rank", "caring/effect", "caring/label", "caring/report", "report",
    ]  # fmt: skip
    assert steps["own/effect"].options == {"top_n": 1, "targets": ["lie"]}
    assert steps["caring/effect"].options == {"top_n": 1}
    assert steps["own/rank"].options == {**QUICK["rank"], "pool": "max", "permutations": 20}
    assert steps["own/effect"].reads == ("own/record", "own/rank")
    assert steps["report"].reads == ("own/report", "caring/report")


@pytest.mark.parametrize(
    ("data", "changes", "message"),
    [
        ([], {}, "data: it is empty; name at least one concept's sentences"),
        ({}, {}, "data: it is empty"),
        ([3], {}, "data: give a path or builtin:<trait>, a list of these, or a mapping from names to these"),
        ({"a": ["lies.csv"]}, {}, "data: give a path or builtin:<trait>"),
        (["lies.csv", "./lies.csv"], {}, "data: ./lies.csv is given twice"),
        ({"a": "seeds:caring", "b": "seeds:caring"}, {}, "data: seeds:caring is given twice"),
        (["seeds:caring", "builtin:caring"], {}, "seeds:caring and builtin:caring would both have the folder 'caring'"),
        ({"Own": "lies.csv", "own": "seeds:caring"}, {}, "would both have the folder 'own'; give names with a mapping"),
        ({"a/b": "lies.csv", "c": "seeds:caring"}, {}, "'a/b' (of lies.csv) cannot be a folder's name"),
        ({"..": "lies.csv", "c": "seeds:caring"}, {}, "'..' (of lies.csv) cannot be a folder's name"),
        ({"compare": "lies.csv", "c": "seeds:caring"}, {}, "'compare' (of lies.csv) is the name of a stage's folder"),
        (["seeds:caring", "gone.csv"], {}, "gone.csv"),
        (["seeds:caring", "seeds:carign"], {}, "nearest: seeds:caring"),
        (TWO, {"concepts": {"carin": {}}}, "Unknown concept under concepts 'carin'; nearest: caring"),
        (TWO, {"concepts": {"caring": {"rank": {"pol": 1}}}}, "Unknown option of the stage rank 'pol'; nearest: pool"),
        (TWO, {"concepts": {"caring": {"report": {}}}}, "concepts.caring.report: Extra inputs are not permitted"),
        (TWO, {"compare": {"tip": 2}}, "Unknown option of the stage compare 'tip'; nearest: top"),
        (TWO, {"rank": {"holdout": 0}}, "own has holdout 0, and compare judges on held-out items"),
        ("lies.csv", {"compare": {}}, "a comparison needs two concepts or more, and data names one"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(
    tmp_path: Path, data: object, changes: dict[str, object], message: str
) -> None:
    path = write(tmp_path / "wrong", data, **changes)
    outcome = invoke("run", path)
    assert outcome.code == 2
    assert message in outcome.stderr
    assert len([line for line in outcome.stderr.splitlines() if line.strip()]) == 1
    assert not (tmp_path / "wrong" / "out").exists()


def test_one_folder_is_for_one_kind_of_study(copy: Path, tmp_path: Path) -> None:
    write(copy, "lies.csv")
    with pytest.raises(InputError, match="holds a study of several concepts, and this file names one; choose another"):
        run_study(copy / "study.yaml")
    path = write(tmp_path / "one", TWO)
    (tmp_path / "one" / "out").mkdir()
    (tmp_path / "one" / "out" / "stages.json").write_text("{}")
    with pytest.raises(InputError, match="holds a study of one concept, and this file names several"):
        run_study(path)
