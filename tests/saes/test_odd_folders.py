"""Folders that are nearly what we read: what is plain is read, the rest is an error that names file and field."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from conceptatlas.base.errors import InputError
from conceptatlas.saes import SAESource, encode_dense, resolve_saes
from conceptatlas.saes.asked import fit_to_model
from tests.helpers.tiny_saes import (
    tiny_parts,
    write_dictionary_learning,
    write_gemma_scope,
    write_saelens,
    write_sparsify,
)


def only(path: Path) -> SAESource:
    (source,) = resolve_saes([str(path)])
    return source


def save_saelens(folder: Path, architecture: str, tensors: dict[str, torch.Tensor], **config: Any) -> Path:
    from safetensors.torch import save_file

    write_saelens(folder, architecture, **config)
    save_file({n: t.contiguous() for n, t in tensors.items()}, folder / "sae_weights.safetensors")
    return folder


@pytest.mark.parametrize(
    ("architecture", "name", "value"),
    [
        ("standard", "W_enc", "nan"),
        ("gated", "r_mag", "inf"),
        ("topk", "b_dec", "nan"),
        ("jumprelu", "threshold", "-inf"),
    ],
)
def test_weights_that_are_not_finite_are_named(tmp_path: Path, architecture: str, name: str, value: str) -> None:
    _, tensors = tiny_parts(architecture)
    tensors[name].view(-1)[3:5] = float(value)
    source = only(save_saelens(tmp_path / "bad", architecture, tensors))
    with pytest.raises(
        InputError, match=rf"bad/sae_weights\.safetensors: {name} of .* holds 2 values that are NaN or inf"
    ):
        source.load_encoder()


def test_a_decoder_that_is_not_finite_is_named(tmp_path: Path) -> None:
    _, tensors = tiny_parts("jumprelu")
    tensors["W_dec"][0, 0] = float("nan")
    source = only(save_saelens(tmp_path / "bad", "jumprelu", tensors))
    source.load_encoder()
    with pytest.raises(InputError, match=r"W_dec of .* holds 1 values"):
        source.load_decoder()
    with pytest.raises(InputError, match=r"W_dec of .* holds 1 values"):
        source.load()


def test_a_threshold_of_infinity_is_a_feature_that_never_fires(tmp_path: Path) -> None:
    _, tensors = tiny_parts("jumprelu")
    tensors["threshold"][2] = float("inf")
    source = only(save_saelens(tmp_path / "off", "jumprelu", tensors))
    assert encode_dense(10 * torch.ones(1, 16), source.load_encoder())[0, 2] == 0


@pytest.mark.parametrize(
    ("version", "metadata"),
    [("dev", {}), ("v6.5.1", {}), ("6.5.1", {}), (None, None)],
)
def test_saelens_versions_that_are_no_number(
    tmp_path: Path, version: str | None, metadata: dict[str, Any] | None
) -> None:
    folder = write_saelens(tmp_path / "sae")
    config = json.loads((folder / "cfg.json").read_text())
    hook = config["metadata"]["hook_name"]
    config["metadata"] = metadata if metadata is None else {"hook_name": hook, "sae_lens_version": version}
    if metadata is None:
        config["hook_name"] = hook
    (folder / "cfg.json").write_text(json.dumps(config))
    assert only(folder).site == hook


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"d_sae": None}, r"cfg\.json says d_sae None"),
        ({"metadata": "none"}, r"cfg\.json says metadata 'none'"),
        ({"architecture": "batchtopk"}, r"cfg\.json says architecture 'batchtopk', which is a training checkpoint"),
    ],
)
def test_saelens_configurations_that_cannot_be_read(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    folder = write_saelens(tmp_path / "sae")
    config = json.loads((folder / "cfg.json").read_text())
    (folder / "cfg.json").write_text(json.dumps(config | change))
    with pytest.raises(InputError, match=message):
        only(folder)


def test_a_configuration_that_is_a_list(tmp_path: Path) -> None:
    folder = write_saelens(tmp_path / "sae")
    (folder / "cfg.json").write_text("[1]")
    with pytest.raises(InputError, match=r"cfg\.json holds a list"):
        only(folder)


def test_the_threshold_of_a_training_checkpoint(tmp_path: Path) -> None:
    _, tensors = tiny_parts("jumprelu")
    right = tensors["threshold"].abs() + 0.1
    tensors["log_threshold"] = right.log()
    del tensors["threshold"]
    source = only(save_saelens(tmp_path / "sae", "jumprelu", tensors))
    torch.testing.assert_close(source.load_encoder().threshold, right)


def test_copies_in_hidden_folders_are_no_saes(tmp_path: Path) -> None:
    root = tmp_path / ".mine"  # hidden itself, and asked for by name
    for folder in ("a", ".ipynb_checkpoints/a", ".Trash-1000/files/a"):
        write_saelens(root / folder)
    assert [source.sae_id for source in resolve_saes([str(root)])] == ["a"]


def test_dictionary_learning_of_a_compiled_module_in_the_old_format(tmp_path: Path) -> None:
    folder = write_dictionary_learning(tmp_path / "sae")
    right = only(folder).load_encoder().W_enc.clone()
    state = {f"_orig_mod.{name}": value for name, value in torch.load(folder / "ae.pt").items()}
    torch.save(state, folder / "ae.pt", _use_new_zipfile_serialization=False)
    torch.testing.assert_close(only(folder).load_encoder().W_enc, right)


def test_dictionary_learning_without_a_threshold(tmp_path: Path) -> None:
    folder = write_dictionary_learning(tmp_path / "sae")
    state = torch.load(folder / "ae.pt")
    del state["threshold"]
    torch.save(state, folder / "ae.pt")
    with pytest.raises(InputError, match=r"ae\.pt has no threshold: .* saved before dictionary_learning kept it"):
        only(folder).load_encoder()


@pytest.mark.parametrize(
    ("change", "message"),
    [({"layer": None}, r"config\.json says trainer\.layer None"), ({"k": "4"}, r"config\.json says trainer\.k '4'")],
)
def test_dictionary_learning_fields_that_are_no_number(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    folder = write_dictionary_learning(tmp_path / "sae", "AutoEncoderTopK")
    config = json.loads((folder / "config.json").read_text())
    config["trainer"] |= change
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=message):
        only(folder)
    (folder / "config.json").write_text(json.dumps({"trainer": [config["trainer"]]}))
    with pytest.raises(InputError, match=r"config\.json says trainer \["):
        only(folder)


@pytest.mark.parametrize(
    "above", ["my-research", "old-mlp-runs", "att-test", "transcoder-work", "gemma-scope-2b-pt-resx"]
)
def test_words_in_a_path_place_nothing(tmp_path: Path, above: str) -> None:
    """Only the exact name of a published repository says what was recorded."""
    source = only(write_gemma_scope(tmp_path / above / "layer_99" / "x" / "layer_7" / "width_16k" / "average_l0_8"))
    assert (source.site, source.config_status) == ("blocks.7.hook_resid_post", "inferred")
    assert (source.architecture, source.average_l0) == ("jumprelu", 8)
    cached = (
        tmp_path / above / "models--google--gemma-scope-2b-pt-mlp" / "snapshots" / "abc" / "layer_3" / "average_l0_5"
    )
    source = only(write_gemma_scope(cached))
    assert (source.site, source.config_status) == ("blocks.3.hook_mlp_out", "known")


def test_a_place_that_was_taken_for_granted_is_said(tmp_path: Path) -> None:
    source = only(write_gemma_scope(tmp_path / "mine" / "layer_7" / "width_16k" / "average_l0_8"))
    model: Any = SimpleNamespace(ignores_mean=False, bos="prepended")
    (note,) = fit_to_model([source], model)[1]
    assert "nothing says where it belongs; blocks.7.hook_resid_post was taken for granted." in note
    named = tmp_path / "gemma-scope-2b-pt-res" / "layer_7" / "average_l0_8"
    assert fit_to_model([only(write_gemma_scope(named))], model)[1] == []


def test_a_sparsify_folder_of_another_name(tmp_path: Path) -> None:
    folder = write_sparsify(tmp_path / "sae-pythia-layer3")
    with pytest.raises(InputError, match=r"names no hook; rename the folder to layers\.N, or give it in a JSON list"):
        only(folder)
    (tmp_path / "list.json").write_text(json.dumps([{"layer": 3, "path": "sae-pythia-layer3"}]))
    (source,) = resolve_saes([str(tmp_path / "list.json")])
    assert source.site == "blocks.3.hook_resid_post"
