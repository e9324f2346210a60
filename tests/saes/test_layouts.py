"""Local layouts, each against the formulas of the project that writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from conceptatlas.base.errors import InputError
from conceptatlas.saes import SAESource, encode_rows, resolve_saes
from conceptatlas.saes.layouts import LAYOUTS, find_folders, natural_key
from tests.helpers.tiny_saes import (
    DICTIONARIES,
    write_dictionary_learning,
    write_gemma_scope,
    write_saelens,
    write_sparsify,
)


def rows(n: int = 40, d: int = 16) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(1)) * 1.5


def only(path: Path) -> SAESource:
    (source,) = resolve_saes([str(path)])
    return source


def encoded(source: SAESource, x: torch.Tensor) -> np.ndarray[Any, Any]:
    return encode_rows(x, source.load_encoder()).to_dense(len(x))


def topk(pre: torch.Tensor, k: int) -> torch.Tensor:
    values, where = pre.topk(k, dim=1)
    return torch.zeros_like(pre).scatter(1, where, values)


def test_sparsify_formula(tmp_path: Path) -> None:
    """TopK(relu((x − b_dec) Wᵀ + b_enc)), as sparsify itself encodes."""
    folder = write_sparsify(tmp_path / "layers.3", k=5)
    source, x, raw = only(tmp_path), rows(), load_file(folder / "sae.safetensors")
    assert (source.site, source.architecture, source.average_l0) == ("blocks.3.hook_resid_post", "topk", 5.0)
    pre = torch.relu((x - raw["b_dec"]) @ raw["encoder.weight"].T + raw["encoder.bias"])
    np.testing.assert_allclose(encoded(source, x), topk(pre, 5).numpy(), atol=1e-5)
    out = source.load().decode(topk(pre, 5)).detach()
    torch.testing.assert_close(out, topk(pre, 5) @ raw["W_dec"] + raw["b_dec"], atol=1e-5, rtol=1e-5)


def test_sparsify_transcoder_keeps_b_dec_for_its_output(tmp_path: Path) -> None:
    folder = write_sparsify(tmp_path / "layers.3.mlp", k=5, transcode=True)
    source, x, raw = only(tmp_path), rows(), load_file(folder / "sae.safetensors")
    assert (source.site, source.site_out) == ("blocks.3.mlp.hook_in", "blocks.3.mlp.hook_out")
    pre = torch.relu(x @ raw["encoder.weight"].T + raw["encoder.bias"])
    np.testing.assert_allclose(encoded(source, x), topk(pre, 5).numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "site"),
    [("embed_tokens", "hook_embed"), ("layers.11", "blocks.11.hook_resid_post"), ("h.2", "blocks.2.hook_resid_post")],
)
def test_sparsify_hookpoints(tmp_path: Path, name: str, site: str) -> None:
    assert only(write_sparsify(tmp_path / name)).site == site


def test_sparsify_width_from_the_expansion_factor(tmp_path: Path) -> None:
    folder = write_sparsify(tmp_path / "layers.0", num_latents=0, expansion_factor=4)
    assert only(folder).d_sae == 64


def test_sparsify_groupmax_is_refused(tmp_path: Path) -> None:
    write_sparsify(tmp_path / "layers.0", activation="groupmax")
    with pytest.raises(InputError, match="activation 'groupmax'"):
        resolve_saes([str(tmp_path)])


def dictionary_oracle(kind: str, raw: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """As the classes of dictionary_learning encode (without the decoder norm that two of them multiply by)."""
    if kind == "AutoEncoder":
        return torch.relu((x - raw["bias"]) @ raw["encoder.weight"].T + raw["encoder.bias"])
    if kind == "AutoEncoderNew":
        return torch.relu(x @ raw["encoder.weight"].T + raw["encoder.bias"])
    if kind == "GatedAutoEncoder":
        shared = (x - raw["decoder_bias"]) @ raw["encoder.weight"].T
        return (shared + raw["gate_bias"] > 0) * torch.relu(raw["r_mag"].exp() * shared + raw["mag_bias"])
    if kind == "AutoEncoderTopK":
        return topk(torch.relu((x - raw["b_dec"]) @ raw["encoder.weight"].T + raw["encoder.bias"]), 4)
    if kind == "BatchTopKSAE":
        acts = torch.relu((x - raw["b_dec"]) @ raw["encoder.weight"].T + raw["encoder.bias"])
        return acts * (acts > raw["threshold"])
    if kind == "MatryoshkaBatchTopKSAE":
        acts = torch.relu((x - raw["b_dec"]) @ raw["W_enc"] + raw["b_enc"])
        return acts * (acts > raw["threshold"])
    pre = x @ raw["W_enc"] + raw["b_enc"]
    return torch.relu(pre * (pre > raw["threshold"]))


@pytest.mark.parametrize("kind", DICTIONARIES)
def test_dictionary_learning(tmp_path: Path, kind: str) -> None:
    folder = write_dictionary_learning(tmp_path / "trainer_0", kind)
    source, x = only(tmp_path), rows()
    raw = torch.load(folder / "ae.pt", weights_only=True)
    assert (source.site, source.d_sae, source.model_name) == ("blocks.1.hook_resid_post", 64, "org/tiny")
    expected = dictionary_oracle(kind, raw, x)
    assert 0 < (expected > 0).sum() < expected.numel()
    np.testing.assert_allclose(encoded(source, x), expected.numpy(), atol=1e-5)
    torch.testing.assert_close(source.load().encode(x).detach(), expected, atol=1e-5, rtol=1e-5)


def test_dictionary_learning_loads_no_pickle(tmp_path: Path) -> None:
    folder = write_dictionary_learning(tmp_path / "sae")
    torch.save({"encoder.weight": Path("/nowhere")}, folder / "ae.pt")
    with pytest.raises(InputError, match=r"ae\.pt cannot be read as tensors alone"):
        only(folder).load_encoder()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dict_class": "CrossCoder"}, "dict_class 'CrossCoder'; those that can be read are AutoEncoder"),
        ({"submodule_name": "router_layer_1"}, "submodule_name 'router_layer_1'"),
        ({"layer": None}, "no trainer.layer"),
    ],
)
def test_dictionary_learning_configurations_that_cannot_be_read(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    folder = write_dictionary_learning(tmp_path / "sae")
    config = json.loads((folder / "config.json").read_text())
    config["trainer"] |= change
    config["trainer"] = {key: value for key, value in config["trainer"].items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=message):
        resolve_saes([str(folder)])


def test_gemma_scope(tmp_path: Path) -> None:
    folder = write_gemma_scope(tmp_path / "gemma-scope-2b-pt-res" / "layer_12" / "width_16k" / "average_l0_82")
    source, x = only(tmp_path), rows()
    assert (source.site, source.average_l0, source.d_in, source.d_sae) == ("blocks.12.hook_resid_post", 82.0, 16, 64)
    assert source.config_status == "known"
    with np.load(folder / "params.npz") as raw:
        pre = x.numpy() @ raw["W_enc"] + raw["b_enc"]
        expected = np.where(pre > raw["threshold"], np.maximum(pre, 0), 0)
    np.testing.assert_allclose(encoded(source, x), expected, atol=1e-5)
    np.testing.assert_allclose(source.load().encode(x).detach().numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("root", "site", "status"),
    [
        ("gemma-scope-2b-pt-att", "blocks.7.attn.hook_z", "known"),
        ("gemma-scope-2b-pt-mlp", "blocks.7.hook_mlp_out", "known"),
        ("gemma-scope-2b-pt-transcoders", "blocks.7.ln2.hook_normalized", "known"),
        ("somewhere", "blocks.7.hook_resid_post", "inferred"),
    ],
)
def test_gemma_scope_site_from_the_path(tmp_path: Path, root: str, site: str, status: str) -> None:
    source = only(write_gemma_scope(tmp_path / root / "layer_7" / "width_16k" / "average_l0_8"))
    assert (source.site, source.config_status) == (site, status)


def test_gemma_scope_without_a_layer_in_its_path(tmp_path: Path) -> None:
    write_gemma_scope(tmp_path / "plain")
    with pytest.raises(InputError, match="names no hook; give it in a JSON list"):
        resolve_saes([str(tmp_path)])


@pytest.mark.parametrize("layout", ["saelens", "sparsify", "dictionary_learning", "gemma_scope"])
def test_only_the_encoder_half_is_read(tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    writers = {
        "saelens": lambda: write_saelens(tmp_path / "sae", apply_b_dec_to_input=False),
        "sparsify": lambda: write_sparsify(tmp_path / "layers.1"),
        "dictionary_learning": lambda: write_dictionary_learning(tmp_path / "sae"),
        "gemma_scope": lambda: write_gemma_scope(tmp_path / "layer_1"),
    }
    source = only(writers[layout]())
    assert source.layout == layout
    given: list[set[str]] = []
    spec = LAYOUTS[layout]
    original = spec.tensors

    def spy(*arguments: Any) -> dict[str, torch.Tensor]:
        tensors = original(*arguments)
        given.append(set(tensors))
        return tensors

    object.__setattr__(spec, "tensors", spy)
    try:
        source.load_encoder()
        source.load_decoder()
    finally:
        object.__setattr__(spec, "tensors", original)
    assert "W_enc" in given[0]
    assert "W_dec" not in given[0]
    assert given[1] == {"W_dec", "b_dec"}


@pytest.mark.parametrize("name", ["sae_weights.safetensors", "sae.safetensors", "params.npz"])
def test_damaged_files_are_named(tmp_path: Path, name: str) -> None:
    folder = {
        "sae_weights.safetensors": lambda: write_saelens(tmp_path / "sae"),
        "sae.safetensors": lambda: write_sparsify(tmp_path / "layers.1"),
        "params.npz": lambda: write_gemma_scope(tmp_path / "layer_1"),
    }[name]()
    (folder / name).write_bytes((folder / name).read_bytes()[:40])
    with pytest.raises(InputError, match=rf"{name} cannot be read"):
        only(folder).load_encoder()


def test_folders_come_in_natural_order(tmp_path: Path) -> None:
    for layer in (10, 2, 1):
        write_saelens(tmp_path / f"blocks.{layer}.hook_resid_post" / "l0_8", hook=f"blocks.{layer}.hook_resid_post")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "cfg.json").write_text("{}")  # a configuration alone is no SAE
    assert [folder.parent.name.split(".")[1] for folder, _ in find_folders(tmp_path)] == ["1", "2", "10"]
    assert natural_key("layer_2") < natural_key("layer_10")


def test_old_saelens_configurations_are_brought_up_to_date(tmp_path: Path) -> None:
    folder = write_saelens(tmp_path / "sae", "standard")
    config = json.loads((folder / "cfg.json").read_text())
    old = {k: v for k, v in config.items() if k not in ("metadata", "architecture")}
    old |= {"hook_point": "blocks.5.hook_resid_pre", "activation_fn_str": "relu", "model_name": "gpt2-small"}
    (folder / "cfg.json").write_text(json.dumps(old))
    source, x = only(tmp_path), rows()
    assert (source.site, source.architecture) == ("blocks.5.hook_resid_pre", "standard")
    np.testing.assert_allclose(encoded(source, x), source.load().encode(x).detach().numpy(), atol=1e-5)
