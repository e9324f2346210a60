"""A study runs what changed and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from conceptatlas.base.errors import InputError
from conceptatlas.study import load_study, run_study
from tests.helpers.cli import invoke
from tests.helpers.tiny_models import tiny_model
from tests.helpers.tiny_saes import write_saelens


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies")
    tiny_model("gemma2", folder / "model")
    write_saelens(folder / "sae", "jumprelu", d_in=32, d_sae=48, site="blocks.1.hook_resid_post")
    lines = ["sentence,concept_strength_label"]
    for i in range(60):
        text = "a brave child went back for the cat" if i % 2 else "nobody minds the quick brown fox"
        lines.append(f"{text} {'and then ' * (i % 5)}number {i},{3 * (i % 2)}")
    (folder / "data.csv").write_text("\n".join(lines) + "\n")
    return folder


def write_study(folder: Path, name: str, **changes: object) -> Path:
    (model,) = (path.parent for path in folder.glob("**/config.json") if (path.parent / "model.safetensors").exists())
    content: dict[str, object] = {
        "data": "data.csv",
        "model": str(model),
        "saes": str(folder / "sae"),
        "record": {"device": "cpu"},
        "rank": {"permutations": 20, "resplits": 0, "baselines": False},
        "trace": {"top_n": 2, "max_sentences": 1, "dpi": 60},
    }
    content |= changes
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}))
    return path


def test_stages_run_once_and_again_only_after_a_change(folder: Path) -> None:
    path = write_study(folder, "one")
    first = invoke("run", path)
    assert first.code == 0, first.stderr
    assert (folder / "one" / "report.html").is_file()
    assert set(run_study(path).stages.values()) == {"up to date"}
    write_study(folder, "one", trace={"top_n": 1, "max_sentences": 1, "dpi": 60})
    assert run_study(path).stages == {
        "record": "up to date",
        "rank": "up to date",
        "trace": "ran",
        "report": "ran",
    }
    (folder / "data.csv").write_text((folder / "data.csv").read_text() + "one more sentence about a brave child,3\n")
    with pytest.raises(InputError, match="data"):
        run_study(path)


def test_effect_joins_where_it_is_asked_for(folder: Path) -> None:
    effect = {"targets": ["child"], "n_items": 2, "n_controls": 2, "top_n": 1, "device": "cpu"}
    path = write_study(folder, "two", effect=effect, trace=False)
    result = run_study(path)
    assert list(result.stages) == ["record", "rank", "effect", "report"]
    assert "What they cause" in (folder / "two" / "report.html").read_text()


def test_label_joins_where_it_is_asked_for(folder: Path) -> None:
    """Without a dataset of its own it reads the study's sentences; without a language model it makes search labels."""
    path = write_study(folder, "three", label={"top_n": 2, "device": "cpu"}, trace=False)
    result = run_study(path)
    assert list(result.stages) == ["record", "rank", "label", "report"]
    entries = json.loads((folder / "three" / "label" / "feature_labels.json").read_text())["features"]
    assert all(entry["label_search"] for entry in entries)
    assert "What they are called" in (folder / "three" / "report.html").read_text()
    assert set(run_study(path).stages.values()) == {"up to date"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modle": "x"}, "modle: Extra inputs are not permitted; a study file may say: name, data, model"),
        ({"data": None}, "data: Field required"),
        ({"rank": {"permutation": 5}}, "Unknown option of the stage rank 'permutation'; nearest: permutations"),
        ({"record": {"keep_rows": "all"}}, "option of the stage record 'keep_rows'"),
        ({"trace": 3}, "trace"),
    ],
)
def test_wrong_study_files(folder: Path, changes: dict[str, object], message: str) -> None:
    path = write_study(folder, "wrong", **changes)
    outcome = invoke("run", path)
    assert outcome.code == 2
    assert message in outcome.stderr


def test_files_that_are_no_study(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no study file"):
        load_study(tmp_path / "none.yaml")
    bad = tmp_path / "bad.yaml"
    bad.write_text("a: [1,\n")
    with pytest.raises(InputError, match="is not YAML"):
        load_study(bad)
    bad.write_text("- 1\n")
    with pytest.raises(InputError, match="holds no mapping"):
        load_study(bad)


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[2] / "examples").glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_examples_are_sound(path: Path) -> None:
    study = load_study(path)
    assert study.config.model
    assert study.config.saes
