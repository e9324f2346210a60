"""Chat prompts end to end on tiny models, against one prompt at a time through SAELens's own encode."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from scipy import stats

from conceptatlas.base.errors import InputError
from conceptatlas.prompts import (
    ChatOptions,
    PromptsConfig,
    analyse_prompts,
    load_prompts,
    name_of,
    preset_of,
    resolve_sources,
)
from conceptatlas.prompts.analysis import contrast_rows, difference_tests, with_q_values
from conceptatlas.prompts.data import Prompt
from conceptatlas.prompts.reading import Reading
from conceptatlas.subjects.chat import ChatFormat
from tests.helpers.cli import invoke
from tests.helpers.recordings import columns_of
from tests.helpers.tiny_models import tiny_model
from tests.helpers.tiny_saes import write_saelens

UNIVERSAL = (
    "feature_id,activation_mean,activation_max,activation_min,num_prompts,chat_desc,pt_desc,type,source,token,link"
)
SPECIFIC = "prompt_idx,prompt,label,feature_id,activation,source,token,link"
JSONL_KEYS = ["model", "layer", "feature_id", "prompt", "label", "activation", "token_type"]
PROMPTS = [
    {"content": f"{text} {number}", "label": label}
    for number in range(4)
    for text, label in (("Do you feel?", "self"), ("What is the fox?", "control"), ("She told him.", "self"))
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("prompts")
    models = {family: tiny_model(family, folder / family) for family in ("llama", "qwen2", "gemma2")}
    site = "blocks.1.hook_resid_post"
    saes = {
        family: write_saelens(folder / f"sae_{family}", "jumprelu", d_in=32, d_sae=40, site=site, seed=number)
        for number, family in enumerate(models)
    }
    prompts = folder / "prompts.jsonl"
    prompts.write_text("".join(json.dumps(prompt, ensure_ascii=False) + "\n" for prompt in PROMPTS))
    return {"folder": folder, "models": models, "saes": saes, "prompts": prompts}


def source(world: dict[str, Any], family: str) -> str:
    return f"{family}_trainer1_layer1={world['models'][family]},{world['saes'][family]}"


def slow_activations(world: dict[str, Any], family: str, kind: str) -> np.ndarray:
    """[N, F]: one prompt at a time, the unmodified model's hidden states, SAELens's encode."""
    from sae_lens import SAE
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = str(world["models"][family])
    model = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager", dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(path)
    chat = ChatFormat(tokenizer, name=family)
    sae = SAE.load_from_disk(str(world["saes"][family]))
    found = []
    for prompt in PROMPTS:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt["content"]}], tokenize=False, add_generation_prompt=True
        )
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            hidden = model(ids, output_hidden_states=True).hidden_states[2]
        position = chat.encode(prompt["content"], [kind]).positions[kind]
        found.append(sae.encode(hidden[0, position]).detach().numpy())
    return np.stack(found)


def test_values_equal_one_prompt_at_a_time(world: dict[str, Any]) -> None:
    folder = world["folder"] / "values"
    config = PromptsConfig(
        "both",
        prompts_path=world["prompts"],
        sources=tuple(source(world, family) for family in world["models"]),
        chat=ChatOptions(device="cpu"),
        threshold=0.3,
        universal_output=folder / "u.csv",
        specific_output=folder / "s.csv",
        record_prompts=True,
    )
    result = analyse_prompts(config)
    assert (folder / "u.csv").read_text().splitlines()[0] == UNIVERSAL
    assert (folder / "s.csv").read_text().splitlines()[0] == SPECIFIC
    assert result.universal["source"].unique().sort().to_list() == sorted(
        f"{f}_trainer1_layer1" for f in world["models"]
    )
    types = {"llama": ["asst", "endheader", "newline"], "qwen2": ["asst", "newline"], "gemma2": ["model", "newline"]}
    for family, kinds in types.items():
        name = f"{family}_trainer1_layer1"
        mine = result.universal.filter(pl.col("source") == name)
        assert mine["token"].unique(maintain_order=True).to_list() == kinds
        for kind in kinds:
            slow = slow_activations(world, family, kind)
            active = slow > 0.01
            expected = set(np.flatnonzero(active.sum(0) >= 0.3 * len(PROMPTS)).tolist())
            rows = mine.filter(pl.col("token") == kind)
            assert set(rows["feature_id"]) == expected
            for row in rows.iter_rows(named=True):
                values = slow[active[:, row["feature_id"]], row["feature_id"]]
                assert row["num_prompts"] == len(values)
                assert row["activation_mean"] == pytest.approx(values.mean(), abs=1e-4)
                assert row["activation_max"] == pytest.approx(values.max(), abs=1e-4)
                assert row["activation_min"] == pytest.approx(values.min(), abs=1e-4)
            followed = result.specific.filter((pl.col("source") == name) & (pl.col("token") == kind))
            got = {(r["prompt_idx"], r["feature_id"]): r["activation"] for r in followed.iter_rows(named=True)}
            for (prompt, feature), value in got.items():
                assert value == pytest.approx(slow[prompt, feature], abs=1e-4)
    lines = (folder / "s_activeprompts.jsonl").read_text().splitlines()
    assert len(lines) == result.specific.filter(pl.col("activation") > 0.01).height
    first = json.loads(lines[0])
    assert list(first) == JSONL_KEYS
    assert first["model"] in types
    assert first["layer"] == 1


def test_a_rerun_replaces_and_outside_rows_are_named(world: dict[str, Any]) -> None:
    folder = world["folder"] / "rerun"
    folder.mkdir()
    features = folder / "f.csv"
    features.write_text(
        "feature_id,source,note\n3,llama_trainer1_layer1,a\n5,qwen2_trainer1_layer1,b\n3,llama_trainer1_layer1,c\n"
        "7,other_trainer1_layer9,d\n8,other_trainer1_layer9,e\n"
    )
    command = [
        "prompts", "specific", "--prompts-path", world["prompts"], "--source", source(world, "llama"), "--source",
        source(world, "qwen2"), "--features-csv", features, "--specific-output", folder / "s.csv", "--record-prompts",
        "--device", "cpu", "--json",
    ]  # fmt: skip
    first = invoke(*command)
    assert first.code == 0, first.stderr
    assert "2 rows of the features CSV belong to sources outside this run" in first.stderr
    assert "other_trainer1_layer9 (2)" in first.stderr
    recorded = (folder / "s_activeprompts.jsonl").read_bytes()
    assert invoke(*command).code == 0
    assert (folder / "s_activeprompts.jsonl").read_bytes() == recorded
    table = pl.read_csv(folder / "s.csv")
    assert table.height == len(PROMPTS) * (3 + 2)


def test_contrast_between_labels(world: dict[str, Any]) -> None:
    folder = world["folder"] / "contrast"
    outcome = invoke(
        "prompts", "universal", "--prompts-path", world["prompts"], "--source", source(world, "gemma2"),
        "--universal-output", folder / "u.csv", "--by", "label", "--threshold", 0.0, "--device", "cpu",
    )  # fmt: skip
    assert outcome.code == 0, outcome.stderr
    table = pl.read_csv(folder / "u_by_label.csv")
    assert {"share_self", "share_control", "mean_self", "mean_control", "p_value", "q_value"} <= set(table.columns)
    slow = slow_activations(world, "gemma2", "newline")
    is_self = np.array([prompt["label"] == "self" for prompt in PROMPTS])
    for row in table.filter(pl.col("token") == "newline").iter_rows(named=True):
        column = slow[:, row["feature_id"]].astype(np.float32)
        assert row["mean_self"] == pytest.approx(column[is_self].mean(), abs=1e-4)
        assert row["share_control"] == pytest.approx((column[~is_self] > 0.01).mean())
    assert table["q_value"].is_sorted()


def test_difference_tests_are_kruskals_by_permutation_and_keep_repeated_prompts_together() -> None:
    rng = np.random.default_rng(0)
    classes = np.repeat([0, 1, 2], 15)
    columns = [rng.random(45) + 0.3 * lift * classes for lift in rng.random(200)]
    found = difference_tests(columns, classes, np.arange(45))
    scipys = [stats.kruskal(*(column[classes == c] for c in range(3))).pvalue for column in columns]
    assert np.abs(found - scipys).max() < 0.02
    assert difference_tests([np.zeros(45)], classes, np.arange(45)).tolist() == [1]
    tied = [*columns, *(1.0 + (column > 0.5) for column in columns)]
    scipys = [stats.kruskal(*(column[classes == c] for c in range(3))).pvalue for column in tied]
    assert np.abs(difference_tests(tied, classes, np.arange(45)) - scipys).max() < 0.06
    repeated = np.repeat([0.0, 0, 1, 1], 10)
    alone = difference_tests([repeated], repeated.astype(int), np.arange(40))
    grouped = difference_tests([repeated], repeated.astype(int), np.arange(40) // 10)
    assert alone[0] < 0.01
    assert grouped[0] == pytest.approx(1 / 3, abs=0.05)  # four prompts allow six arrangements, two of them as extreme


def test_twins_of_a_prompt_are_exchanged_together() -> None:
    """Four prompts ten times each, in other capitals and marks: six arrangements, two of them as extreme."""
    texts = [f"{'PLEASE' if k % 2 else 'please'} say {word}{'!' * (k % 3)}" for word in "abcd" for k in range(10)]
    prompts = [Prompt(text, "self" if number < 20 else "control") for number, text in enumerate(texts)]
    columns = columns_of(np.repeat([1.0, 1.0, 0.0, 0.0], 10)[:, None])
    source: Any = SimpleNamespace(name="s", sae=SimpleNamespace(url=lambda _feature: ""))
    reading = Reading(source, ["last"], columns, 40, [], "", [])
    (row,) = contrast_rows(reading, prompts, activation_threshold=0.01)
    assert row["p_value"] == pytest.approx(1 / 3, abs=0.05)


def test_a_sparse_feature_is_judged_among_sparse_ones() -> None:
    """Five of 150 prompts, all of the rare label: exact by counting, although nine in ten other features are dense."""
    rng = np.random.default_rng(0)
    classes = np.repeat([0, 1], [120, 30])
    columns = [rng.random(150) for _ in range(900)]
    for number in range(100):
        column = np.zeros(150)
        column[rng.choice(150, 5, replace=False) if number else np.arange(120, 125)] = 1
        columns.append(column)
    exact = stats.hypergeom(150, 30, 5).pmf(5)
    assert exact == pytest.approx(2.4e-4, rel=0.02)
    assert exact / 2 < difference_tests(columns, classes, np.arange(150))[900] < 2 * exact


def test_q_values_are_monotone() -> None:
    rows = [
        {"p_value": p, "source": "s", "token": "t", "feature_id": i} for i, p in enumerate((0.5, 0.001, 0.04, 0.03))
    ]
    assert [row["q_value"] for row in with_q_values(rows)] == pytest.approx([0.004, 0.04 * 4 / 3, 0.04 * 4 / 3, 0.5])


def test_source_names_round_trip() -> None:
    for name in ("llama_trainer1_layer15", "llama_trainer1_layer11", "qwen_trainer1_layer11", "qwen_trainer1_layer15"):
        assert name_of(*preset_of(name)) == name
    assert preset_of("llama_trainer1_layer15") == (
        "llama-3.1-8b-instruct-andyrdt",
        "resid_post_layer_15_trainer_1",
    )
    with pytest.raises(InputError, match="nearest: llama_trainer1_layer15"):
        preset_of("lama_trainer1_layer15")
    with pytest.raises(InputError, match="belongs to no built-in source"):
        name_of("gpt2-small-res-jb", "blocks.0.hook_resid_pre")


def test_sources_of_several_saes_have_names_of_their_own(world: dict[str, Any]) -> None:
    folder = world["folder"]
    many = folder / "many"
    for name in ("a", "b"):
        write_saelens(many / name, "jumprelu", d_in=32, d_sae=40, seed=7)
    names = [one.name for one in resolve_sources([f"mine={world['models']['llama']},{many}"])]
    assert names == ["mine_trainer1_layer1", "mine_trainer2_layer1"]
    with pytest.raises(InputError, match="Two sources are called"):
        resolve_sources([source(world, "llama"), source(world, "llama")])
    with pytest.raises(InputError, match="not NAME=MODEL,SAES"):
        resolve_sources(["mine=./model"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: this is not JSON"),
        ("[1]", 'line 2: a prompt needs "content", a text; it has a list'),
        ('{"text": "x"}', "it has text"),
        ('{"content": "  "}', "line 2: the content is empty"),
        ('{"content": 5}', 'needs "content", a text'),
    ],
)
def test_malformed_prompts(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"content": "fine", "label": "a"}\n' + line + "\n")
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        load_prompts(path)


def test_prompt_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no \.jsonl file"):
        load_prompts(tmp_path)
    with pytest.raises(InputError, match="no prompts at"):
        load_prompts(tmp_path / "none")
    (tmp_path / "b.jsonl").write_text('{"content": "two", "label": "x"}\n\n{"content": "one", "label": "x"}\n')
    (tmp_path / "a.jsonl").write_text('{"content": "one", "label": "y"}\n')
    loaded = load_prompts(tmp_path)
    assert [prompt.content for prompt in loaded.prompts] == ["one", "two", "one"]
    assert loaded.duplicates == 1
    (tmp_path / "latin.jsonl").write_bytes(b'{"content": "caf\xe9"}\n')
    with pytest.raises(InputError, match=r"latin\.jsonl, line 1: this is not JSON in UTF-8"):
        load_prompts(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--threshold", "1.5"], "between 0 and 1, not 1.5"),
        (["--activation-threshold", "-1"], "give 0 or more"),
        (["--tokens", "endheader"], "It has: model, newline, last"),
        (["--by", "source"], "label is the one column"),
        (["--token", "x"], "not NAME=INDEX"),
        (["--max-tokens", "5"], "Prompt 0: A prompt has"),
        (["--source", "lama"], "Unknown source 'lama'"),
    ],
)
def test_bad_options(world: dict[str, Any], tmp_path: Path, arguments: list[str], message: str) -> None:
    command = ["prompts", "universal", "--prompts-path", world["prompts"], "--universal-output", tmp_path / "u.csv"]
    if "--source" not in arguments:
        command += ["--source", source(world, "gemma2"), "--device", "cpu"]
    outcome = invoke(*command, *arguments)
    assert outcome.code == 2
    assert message in outcome.stderr
    assert not (tmp_path / "u.csv").exists()


def test_bad_feature_lists(world: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    command = [
        "prompts", "specific", "--prompts-path", world["prompts"], "--source", source(world, "gemma2"),
        "--features-csv", path, "--specific-output", tmp_path / "s.csv",
    ]  # fmt: skip
    for content, message in (
        (None, "no features CSV"),
        ("feature,source\n1,x\n", "no column 'feature_id'; it has feature, source"),
        ("feature_id,source\n40,gemma2_trainer1_layer1\n", "line 2: gemma2_trainer1_layer1 has no feature 40"),
        ("feature_id,source\nx,gemma2_trainer1_layer1\n", "line 2: feature_id is 'x'"),
    ):
        if content is not None:
            path.write_text(content)
        outcome = invoke(*command)
        assert outcome.code == 2
        assert message in outcome.stderr
