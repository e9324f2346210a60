"""The built-in model end to end: what is recorded is what SAELens's own ``encode`` gives, sentence by sentence."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from conceptatlas.concepts import build_concept, load_concept
from conceptatlas.recording import record, verify
from conceptatlas.saes import resolve_saes
from conceptatlas.subjects import Site, load_subject
from conceptatlas.subjects.organism import organism_path, saes_path
from tests.helpers.cli import invoke

N_ITEMS = 60
# Of float32: a product of d = 128 terms, and the hidden state before it, both in another order of summation.
ROUNDING = 4e-6
SAE = "blocks.1.hook_resid_post/l0_12"


@pytest.fixture(scope="module")
def subject():
    return load_subject("organism", device="cpu")


@pytest.fixture(scope="module")
def concept():
    items = load_concept("builtin:dishonesty").items.head(N_ITEMS)
    return build_concept("some", items["text"].to_list(), items["label"].to_list(), groups=items["group"].to_list())


@pytest.fixture(scope="module")
def states(subject, concept):
    """Site → the rows of each item, by a pass of its own."""
    tokens = subject.tokenize(concept.texts)
    sites = [Site("hook_resid_post", layer) for layer in range(subject.n_layers)]
    each = [
        subject.hidden_states([ids], sites, [mask]) for ids, mask in zip(tokens.token_ids, tokens.rows, strict=True)
    ]
    return {str(site): [one[str(site)] for one in each] for site in sites}


@dataclass(frozen=True)
class OneByOne:
    """What SAELens says of every row, item by item, each [T, F]."""

    acts: np.ndarray
    distance: np.ndarray
    """Of the pre-activation from the threshold, relative to the lengths of row and encoder direction."""


def one_by_one(source: Any, rows: list[torch.Tensor]) -> OneByOne:
    sae = source.load()
    acts, distances = [], []
    with torch.no_grad():
        for x in rows:
            inside = sae.process_sae_in(x)
            pre = inside @ sae.W_enc + sae.b_enc
            scale = inside.norm(dim=1, keepdim=True) * sae.W_enc.norm(dim=0)
            acts.append(sae.encode(x).numpy())
            distances.append(((pre - sae.threshold).abs() / scale).numpy())
    return OneByOne(np.concatenate(acts), np.concatenate(distances))


@pytest.fixture(scope="module", params=["float32", "mixed"])
def rec(request, subject, concept, tmp_path_factory):
    folder = tmp_path_factory.mktemp("organism") / "rec"
    return record(concept, subject, "organism", folder, shard_rows=1500, sae_dtype=request.param)


def test_no_false_alarm(rec):
    assert len(rec.saes) == 8
    assert {(sae.status, sae.message) for sae in rec.saes} == {("ok", "")}
    assert rec.manifest.warnings == []
    assert rec.manifest.subject.location == "organism"
    assert verify(rec) == []


def assert_as_one_by_one(rec: Any, slug: str, expected: OneByOne) -> int:
    """What differs in being active lies at its threshold; return how many do."""
    found = rec.columns(slug).to_dense(rec.n_rows)
    differs = (found != 0) != (expected.acts != 0)
    assert expected.distance[differs].max(initial=0) < ROUNDING
    # bfloat16 keeps eight bits: of the factors, and so of the sum relative to its terms.
    near = 1e-3 if rec.manifest.options.sae_dtype == "float32" else 0.1
    assert np.abs(found - expected.acts)[~differs].max(initial=0) < near
    return int(differs.sum())


def test_equals_saelens_sentence_by_sentence(rec, states):
    assert len(rec.manifest.plan.shards) > 1
    for source in resolve_saes(["organism"]):
        expected = one_by_one(source, states[source.site])
        assert (expected.acts != 0).sum() > 10 * rec.n_rows
        assert assert_as_one_by_one(rec, source.slug, expected) <= 2


@pytest.mark.parametrize("sae_dtype", ["float32", "mixed"])
def test_only_what_lies_at_its_threshold_may_differ(subject, concept, states, tmp_path, sae_dtype):
    """Each feature's threshold is put exactly on one of its own pre-activations, where rounding decides."""
    folder = copy_sae(tmp_path / "sae")
    (source,) = resolve_saes([str(folder)])
    sae, rows = source.load(), torch.cat(states[source.site])
    with torch.no_grad():
        pre = torch.cat([sae.process_sae_in(x) @ sae.W_enc + sae.b_enc for x in states[source.site]])
    tensors = load_file(folder / "sae_weights.safetensors")
    tied = torch.topk(pre, 40, dim=0).values[-1]
    tensors["threshold"] = torch.where(tied > 0, tied, tensors["threshold"])
    save_file(tensors, folder / "sae_weights.safetensors")
    rec = record(concept, subject, str(folder), tmp_path / "rec", shard_rows=1500, sae_dtype=sae_dtype)
    expected = one_by_one(source, states[source.site])
    at_threshold = int((expected.distance < ROUNDING).sum())
    assert len(rows) == rec.n_rows
    assert at_threshold > 300
    assert 0 < assert_as_one_by_one(rec, source.slug, expected) <= at_threshold


def test_mixed_has_the_active_set_of_float32(subject, concept, states, tmp_path):
    plain = record(concept, subject, "organism", tmp_path / "float32")
    mixed = record(concept, subject, "organism", tmp_path / "mixed", sae_dtype="mixed")
    assert mixed.manifest.options.sae_dtype == "mixed"
    changed = 0
    for source in resolve_saes(["organism"]):
        one, other = plain.columns(source.slug), mixed.columns(source.slug)
        differs = (one.to_dense(plain.n_rows) != 0) != (other.to_dense(plain.n_rows) != 0)
        assert one_by_one(source, states[source.site]).distance[differs].max(initial=0) < ROUNDING
        changed += not np.array_equal(one.values, other.values)
        assert differs.sum() <= 2
    assert changed == len(plain.saes)  # bfloat16 products were really taken


# ---- what does not belong together ---------------------------------------------------------------------------------


def copy_sae(folder: Path, **change: Any) -> Path:
    """Copy a built-in SAE of block 1, with another hook or other fields of its configuration."""
    shutil.copytree(saes_path() / SAE, folder)
    config = json.loads((folder / "cfg.json").read_text())
    hook = change.pop("hook", None)
    if hook is not None:
        config["metadata"]["hook_name"] = hook
    (folder / "cfg.json").write_text(json.dumps(config | change))
    return folder


@pytest.fixture(scope="module")
def other_model(tmp_path_factory):
    """A model of the same shape with the same tokenizer, but other weights."""
    folder = tmp_path_factory.mktemp("other") / "model"
    shutil.copytree(organism_path(), folder)
    generator = torch.Generator().manual_seed(0)
    for path in folder.glob("*.safetensors"):
        tensors = {
            name: weights.flatten()[torch.randperm(weights.numel(), generator=generator)].reshape(weights.shape)
            for name, weights in load_file(path).items()
        }
        save_file(tensors, path, metadata={"format": "pt"})
    return folder


WRONG = {
    "model": ({}, "of the variance unexplained"),
    "block": ({"hook": "blocks.3.hook_resid_post"}, "of the variance unexplained"),
    "site": ({"hook": "blocks.1.hook_mlp_out"}, "of the variance unexplained"),
    "activation function": ({"architecture": "standard"}, "features are active per row where its own figure is 12.16"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_does_not_belong_together_is_caught(wrong, subject, other_model, concept, tmp_path, capsys):
    change, message = WRONG[wrong]
    model = str(other_model) if wrong == "model" else subject
    (sae,) = record(concept, model, str(copy_sae(tmp_path / "sae", **change)), tmp_path / "rec").saes
    assert sae.status == "suspect"
    assert message in sae.message
    assert f"WARNING: {sae.message}" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", ["model", "block", "activation function"])
def test_strict_check_on_the_command_line(wrong, other_model, tmp_path):
    change, message = WRONG[wrong]
    model = other_model if wrong == "model" else "organism"
    sae, out = copy_sae(tmp_path / "sae", **change), tmp_path / "rec"
    options = ("--model", model, "--saes", sae, "--out", out, "--device", "cpu")
    outcome = invoke("record", "builtin:dishonesty", *options, "--strict-check")
    assert outcome.code == 1
    assert message in outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert not (out / "manifest.json").exists()
    assert invoke("record", "builtin:dishonesty", *options).code == 0
    assert invoke("record", "builtin:dishonesty", *options, "--strict-check").code == 1
