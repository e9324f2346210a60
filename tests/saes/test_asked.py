"""SAEs that ask something of the model: centred writing weights, other processing, a BOS."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

import conceptatlas as ca
from conceptatlas.base.errors import InputError
from conceptatlas.concepts import build_concept
from conceptatlas.saes import SAESource, encode_dense, resolve_saes
from conceptatlas.saes.architectures import build_encoder
from conceptatlas.saes.asked import fit_to_model
from conceptatlas.subjects import Site, load_subject
from tests.helpers.tiny_models import tiny_model
from tests.helpers.tiny_saes import SAE_LENS_VERSION, tiny_parts, write_saelens

CENTRED = {"center_writing_weights": True}
TEXTS = ["She told him that the bag was new.", "A brave child went back for the cat.", "Nothing, said the man."]


def metadata(hook: str = "blocks.1.hook_resid_pre", **more: Any) -> dict[str, Any]:
    return {"sae_lens_version": SAE_LENS_VERSION, "hook_name": hook, "model_name": "tiny", **more}


def fit(source: SAESource, model: Any) -> tuple[SAESource, list[str]]:
    (found,), notes = fit_to_model([source], model)
    return found, notes


def centre_writing_weights(model: torch.nn.Module) -> None:
    """What TransformerLens's ``center_writing_weights`` does to GPT-2: no weight that writes has a mean over d_model."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("wte.weight", "wpe.weight", "c_proj.weight", "c_proj.bias")):
                weight -= weight.mean(dim=-1, keepdim=True)  # Conv1D keeps [in, out]


def states(folder: Path, site: str) -> torch.Tensor:
    subject = load_subject(folder)
    tokens = subject.tokenize(TEXTS)
    return subject.hidden_states(tokens.token_ids, [Site.parse(site)], tokens.rows)[site]


@pytest.fixture
def gpt2(tmp_path: Path) -> Path:
    """A tiny GPT-2 whose writing weights have a mean (random ones hardly do)."""
    folder = tiny_model("gpt2", tmp_path / "models")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("wte.weight", "wpe.weight", "c_proj.weight", "c_proj.bias")):
                weight += 0.3 * torch.randn((*weight.shape[:-1], 1), generator=generator)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    "site", ["blocks.1.hook_resid_pre", "blocks.1.hook_resid_post", "blocks.0.hook_mlp_out", "blocks.2.hook_attn_out"]
)
def test_centred_rows_are_those_of_a_model_with_centred_weights(gpt2: Path, tmp_path: Path, site: str) -> None:
    processed = transformers.AutoModelForCausalLM.from_pretrained(gpt2)
    centre_writing_weights(processed)
    copy = tmp_path / "processed"
    processed.save_pretrained(copy)
    transformers.AutoTokenizer.from_pretrained(gpt2).save_pretrained(copy)
    write_saelens(
        tmp_path / "sae", "standard", d_in=32, hook=site, metadata=metadata(site, model_from_pretrained_kwargs=CENTRED)
    )
    (plain,) = resolve_saes([str(tmp_path / "sae")])
    source, notes = fit(plain, load_subject(gpt2))
    assert source.centred
    assert notes == ["sae/sae: trained with centred writing weights, so each row's own mean is taken off."]
    right = encode_dense(states(copy, site), plain.load_encoder())
    found = encode_dense(states(gpt2, site), source.load_encoder())
    torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-5)
    wrong = encode_dense(states(gpt2, site), plain.load_encoder())
    assert (wrong - right).abs().max() > 0.1


def test_a_recording_centres_and_says_so(gpt2: Path, tmp_path: Path) -> None:
    """The self-check, too, measures on centred rows: an SAE whose decoder gives back centred rows exactly has FVU 0."""
    site = "blocks.1.hook_resid_pre"
    config, tensors = tiny_parts("standard", d_in=32, d_sae=64, hook=site)
    eye = torch.eye(32)
    tensors |= {
        "W_enc": torch.cat([eye, -eye], dim=1), "W_dec": torch.cat([eye, -eye]),
        "b_enc": torch.zeros(64), "b_dec": torch.zeros(32),
    }  # fmt: skip
    config["metadata"]["model_from_pretrained_kwargs"] = CENTRED
    save(tmp_path / "sae", config, tensors)
    rec = ca.record(concept(), str(gpt2), str(tmp_path / "sae"), tmp_path / "rec", hidden="all", hidden_sites="saes")
    (sae,) = rec.saes
    assert sae.fvu == pytest.approx(0, abs=1e-9)
    assert sae.reference is not None
    assert sae.reference.centred
    assert any("each row's own mean is taken off" in warning for warning in rec.manifest.warnings)
    x = torch.from_numpy(rec.hidden(site)[:].copy())
    centred = x - x.mean(dim=1, keepdim=True)
    columns = rec.columns(sae.slug)
    acts = torch.zeros(rec.n_rows, 64)
    for feature in range(64):
        rows, values = columns.column(feature)
        acts[torch.from_numpy(rows.copy()).long(), feature] = torch.from_numpy(values.copy())
    torch.testing.assert_close(acts[:, :32] - acts[:, 32:], centred, rtol=1e-4, atol=1e-5)
    again = encode_dense(x, rec.source(sae.slug).load_encoder())
    torch.testing.assert_close(again, acts, rtol=1e-4, atol=1e-5)


def concept() -> Any:
    texts = [f"{text} {number}" for number in range(4) for text in TEXTS]
    return build_concept("tiny", texts, [number % 4 for number in range(len(texts))])


def save(folder: Path, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    import json

    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    (folder / "cfg.json").write_text(json.dumps(config))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "sae_weights.safetensors")


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["standard", "jumprelu", "gated", "topk", "abstopk", "jumprelu_transcoder", "skip_transcoder"]),
    st.booleans(),
    st.sampled_from(["none", "layer_norm"]),
    st.integers(0, 9),
)
def test_folding_is_the_same_as_centring_rows(architecture: str, applies: bool, normalised: str, seed: int) -> None:
    config, tensors = tiny_parts(architecture, seed=seed, normalize_activations=normalised)
    config["apply_b_dec_to_input"] = applies and not architecture.endswith("transcoder")
    x = torch.randn(20, 16, generator=torch.Generator().manual_seed(seed)) + 2.0
    plain = encode_dense(x - x.mean(dim=1, keepdim=True), build_encoder(config, tensors))
    folded = encode_dense(x, build_encoder(config, tensors, centred=True))
    torch.testing.assert_close(folded, plain, rtol=1e-3, atol=1e-4)


def test_centring_and_a_division_by_the_norm_are_refused() -> None:
    config, tensors = tiny_parts("standard", normalize_activations="constant_norm_rescale")
    with pytest.raises(InputError, match="center_writing_weights and normalize_activations 'constant_norm_rescale'"):
        build_encoder(config, tensors, centred=True)


def test_models_with_rmsnorm_are_left_as_they_are(tmp_path: Path) -> None:
    write_saelens(tmp_path / "sae", d_in=32, metadata=metadata(model_from_pretrained_kwargs=CENTRED))
    (source,) = resolve_saes([str(tmp_path / "sae")])
    fitted, notes = fit(source, load_subject(tiny_model("gemma2", tmp_path)))
    assert not fitted.centred
    assert "a model without LayerNorm cannot have" in notes[0]


@pytest.mark.parametrize(
    ("hook", "processing", "said"),
    [
        ("blocks.1.hook_resid_post", {"fold_ln": True, "center_unembed": True, "device": "cuda"}, []),
        ("blocks.1.hook_resid_post", {"fold_ln": False, "center_writing_weights": False}, []),
        ("blocks.1.attn.hook_z", {"fold_value_biases": True}, ["fold_value_biases=True, which was not done"]),
        ("blocks.1.hook_mlp_in", {"fold_ln": True}, ["fold_ln=True, which was not done"]),
        ("blocks.1.hook_resid_post", {"revision": "step3000"}, ["revision='step3000', which was not done"]),
    ],
)
def test_what_is_not_done_is_said(tmp_path: Path, hook: str, processing: dict[str, Any], said: list[str]) -> None:
    write_saelens(tmp_path / "sae", hook=hook, metadata=metadata(hook, model_from_pretrained_kwargs=processing))
    (source,) = resolve_saes([str(tmp_path / "sae")])
    model: Any = SimpleNamespace(ignores_mean=True, bos="prepended")
    fitted, notes = fit(source, model)
    assert not fitted.centred
    assert len(notes) == len(said)
    assert all(part in note for part, note in zip(said, notes, strict=True))


def test_the_warning_of_saelens_comes_through(tmp_path: Path) -> None:
    hook = "blocks.1.hook_resid_pre"
    write_saelens(tmp_path / "sae", hook=hook, metadata=metadata(hook, model_from_pretrained_kwargs=CENTRED))
    (source,) = resolve_saes([str(tmp_path / "sae")])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        source.load()
    assert any("This SAE has non-empty model_from_pretrained_kwargs" in str(warning.message) for warning in said)


def test_saes_that_disagree_about_the_bos_are_named_each(tmp_path: Path) -> None:
    """One recording has one way of beginning its texts; the SAE that knew another is named, in the ranking too."""
    for name, prepend in (("false", False), ("true", True)):
        write_saelens(
            tmp_path / "saes" / name, d_in=32, metadata=metadata("blocks.1.hook_resid_post", prepend_bos=prepend)
        )
    rec = ca.record(concept(), tiny_model("gpt2", tmp_path), str(tmp_path / "saes"), tmp_path / "rec")
    assert [w for w in rec.manifest.warnings if "BOS" in w] == [
        "saes/false: trained without a BOS (prepend_bos false), and the texts here begin with one."
    ]
    ranking = ca.rank(rec, baselines=False, permutations=0, resplits=0, holdout=0)
    assert any(w.startswith("saes/false: trained without a BOS") for w in ranking.facts["warnings"])


def test_a_bos_that_the_model_does_not_have(tmp_path: Path) -> None:
    write_saelens(tmp_path / "sae", metadata=metadata(prepend_bos=True))
    (source,) = resolve_saes([str(tmp_path / "sae")])
    model: Any = SimpleNamespace(ignores_mean=False, bos="none")
    assert fit(source, model)[1] == [
        "sae/sae: trained with a BOS before each text (prepend_bos), and this model's texts have none."
    ]


def test_the_registrys_own_example_is_centred() -> None:
    (source,) = resolve_saes(["gpt2-small-res-jb:blocks.8.hook_resid_pre"], complete=False)
    model: Any = SimpleNamespace(ignores_mean=True, bos="prepended")
    fitted, notes = fit(source, model)
    assert fitted.reads_centred
    assert len(notes) == 1
