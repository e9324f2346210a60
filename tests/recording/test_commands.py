"""``record`` and ``info`` on the command line, with SAEs in folders."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from conceptatlas.recording import Recording
from tests.helpers.cli import invoke
from tests.recording.standins import MadeSAE


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "bags.csv"
    lines = [f"She told him that the bag was new when it was old number {i},{i % 4}" for i in range(8)]
    path.write_text("sentence,concept_strength_label\n" + "\n".join(lines) + "\n")
    return path


@pytest.fixture
def sae_folder(tmp_path):
    """One SAE as SAELens saves it."""
    made = MadeSAE("made", "blocks.1.hook_resid_post", 1, seed=1, threshold=0.5)
    folder = tmp_path / "saes" / "layer_1"
    folder.mkdir(parents=True)
    encoder = made.load_encoder()
    tensors = {
        "W_enc": encoder.W_enc,
        "b_enc": encoder.bias,
        "threshold": encoder.threshold,
        "W_dec": made.load_decoder().W_dec,
        "b_dec": torch.zeros(made.d_in),
    }
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "sae_weights.safetensors")
    config = {
        "architecture": "jumprelu",
        "d_in": made.d_in,
        "d_sae": made.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"sae_lens_version": "6.54.0", "hook_name": made.site, "model_name": "tiny"},
    }
    (folder / "cfg.json").write_text(json.dumps(config))
    return folder.parent


def call(data, model, saes, out, *more):
    return invoke("record", data, "--model", model, "--saes", saes, "--out", out, *more)


def test_record_and_again(data, gemma_path, sae_folder, tmp_path):
    outcome = call(data, gemma_path, sae_folder, tmp_path / "rec", "--json")
    assert outcome.code == 0, outcome.stderr
    table = json.loads(outcome.stdout)
    assert [row["sae_id"] for row in table] == ["layer_1"]
    assert table[0]["status"] == "not judged"
    assert Recording.open(tmp_path / "rec").n_items == 8
    said = invoke("info", tmp_path / "rec").stdout
    assert "1 of 1 SAEs were not judged in full: saes/layer_1: not judged, 1" in said
    outcome = call(data, gemma_path, sae_folder, tmp_path / "rec", "--resume")
    assert outcome.code == 0
    assert "nothing to do" in outcome.stderr
    outcome = call(data, gemma_path, sae_folder, tmp_path / "rec", "--keep", "final")
    assert outcome.code == 2
    assert "was recorded with --keep all, and now --keep is final" in outcome.stderr


def test_info(data, gemma_path, sae_folder, tmp_path):
    call(data, gemma_path, sae_folder, tmp_path / "rec", "--features", "1,5")
    outcome = invoke("info", tmp_path / "rec")
    assert outcome.code == 0
    assert "8 items" in outcome.stdout
    assert "Gemma2ForCausalLM, float32, eager attention, proven by architecture" in outcome.stdout
    assert json.loads(invoke("info", tmp_path / "rec", "--json").stdout)["options"]["features"] == [1, 5]
    assert invoke("info", tmp_path).code == 2


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--features", "1,x", "--features is '1,x'"),
        ("--keep", "sum", "Unknown value of --keep 'sum'; nearest:"),
        ("--engine", "warp", "Unknown engine 'warp'"),
        ("--max-tokens", "4", "the limit of"),
    ],
)
def test_bad_options(data, gemma_path, sae_folder, tmp_path, option, value, message):
    outcome = call(data, gemma_path, sae_folder, tmp_path / "rec", option, value)
    assert outcome.code == 2
    assert message in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_missing_things(data, gemma_path, sae_folder, tmp_path):
    outcome = call(tmp_path / "none.csv", gemma_path, sae_folder, tmp_path / "rec")
    assert (outcome.code, "none.csv" in outcome.stderr) == (2, True)
    outcome = call(data, tmp_path / "none", sae_folder, tmp_path / "rec")
    assert (outcome.code, "There is no model folder" in outcome.stderr) == (2, True)
    outcome = call(data, gemma_path, "gemma-scope-2b-pt-rez", tmp_path / "rec")
    assert (outcome.code, "gemma-scope-2b-pt-res" in outcome.stderr) == (2, True)
    outcome = call(data, gemma_path, sae_folder, "/proc/rec")
    assert (outcome.code, "Cannot write in /proc/rec" in outcome.stderr) == (2, True)
