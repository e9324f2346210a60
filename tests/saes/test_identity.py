"""A recorded SAE is found again: the very one, or an error, never another of the same folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

import conceptatlas as ca
from conceptatlas.base.errors import InputError
from conceptatlas.concepts import build_concept
from conceptatlas.ranking.families import decoder_cosines
from conceptatlas.recording import Recording
from conceptatlas.saes import loading, resolve_saes
from conceptatlas.saes.identity import find_by_specs, find_referenced, reference_of
from conceptatlas.saes.reference import SAEReference
from conceptatlas.subjects import load_subject
from tests.helpers.tiny_models import tiny_model
from tests.helpers.tiny_saes import write_dictionary_learning, write_gemma_scope, write_saelens, write_sparsify

TEXTS = ["She told him that the bag was new.", "A brave child went back for the cat.", "Nothing, said the man."]


# Every feature is ranked, and nothing beside.
ALL: dict[str, Any] = {
    "baselines": False, "permutations": 0, "resplits": 0, "holdout": 0, "min_pearson": -1, "min_tpr": 0, "max_fpr": 1,
}  # fmt: skip


def concept() -> Any:
    texts = [f"{text} {number}" for number in range(8) for text in TEXTS]
    return build_concept("tiny", texts, [number % 4 for number in range(len(texts))])


def folder_of_several(root: Path, *, d_in: int = 32) -> Path:
    for number in range(4):
        hook = f"blocks.{number % 3}.hook_resid_post"
        write_saelens(root / f"sae_{number}", d_in=d_in, d_sae=24, hook=hook, seed=number)
    return root


@pytest.fixture
def rec(tmp_path: Path) -> Recording:
    saes = folder_of_several(tmp_path / "saes")
    return ca.record(concept(), tiny_model("gpt2", tmp_path), str(saes), tmp_path / "rec", hidden="none")


def test_each_of_a_folder_is_itself(rec: Recording, tmp_path: Path) -> None:
    for number, sae in enumerate(rec.saes):
        right = load_file(tmp_path / "saes" / f"sae_{number}" / "sae_weights.safetensors")
        source = rec.source(sae.slug)
        assert (source.slug, source.site) == (sae.slug, sae.site)
        torch.testing.assert_close(source.load_decoder().W_dec, right["W_dec"], rtol=0, atol=0)
        torch.testing.assert_close(source.load_encoder().W_enc, right["W_enc"], rtol=0, atol=0)


def test_families_compare_the_very_decoders(rec: Recording, tmp_path: Path) -> None:
    """Planted: each decoder is random, so cosines of another SAE's rows would be far off."""
    ranking = ca.rank(rec, tmp_path / "rank", **ALL)
    decoders = {
        sae.slug: load_file(tmp_path / "saes" / f"sae_{number}" / "sae_weights.safetensors")["W_dec"].double().numpy()
        for number, sae in enumerate(rec.saes)
    }
    members = pl.DataFrame({"slug": [s.slug for s in rec.saes for _ in range(24)], "feature_id": [*range(24)] * 4})
    found, notes = decoder_cosines(members, rec)
    units = np.concatenate([d / np.linalg.norm(d, axis=1, keepdims=True) for d in decoders.values()])
    np.testing.assert_allclose(found, units @ units.T, atol=1e-12)
    assert notes == []
    compared = 0
    for family in json.loads((tmp_path / "rank" / "families.json").read_text()):
        head = decoders[family["best"]["slug"]][family["best"]["feature_id"]]
        for member in family["members"]:
            own = decoders[member["slug"]][member["feature_id"]]
            right = own @ head / np.linalg.norm(own) / np.linalg.norm(head)
            assert member["cosine"] == pytest.approx(right, abs=1e-9)
            compared += member["slug"] != rec.saes[0].slug
    assert compared > 0
    assert not [warning for warning in ranking.facts["warnings"] if "cosine" in warning]


def test_the_built_in_models_saes(tmp_path: Path) -> None:
    """Recorded by the name ``organism``, without a path of this machine."""
    for source in resolve_saes(["organism"]):
        reference = SAEReference.model_validate_json(reference_of(source).model_dump_json())
        assert (reference.layout, reference.path) == ("organism", "")
        again = find_referenced(reference)
        assert again.slug == source.slug
        torch.testing.assert_close(again.load_decoder().W_dec, source.load_decoder().W_dec, rtol=0, atol=0)


def test_a_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by release and sae_id, whatever pattern it was asked for by."""
    sources = resolve_saes(["gemma-scope-2b-pt-res:layer_1[12]/width_16k/average_l0_*"])
    assert len(sources) > 2
    monkeypatch.setattr(
        loading, "hub_params", lambda source: write_gemma_scope(tmp_path / source.slug, seed=sources.index(source))
    )
    for number, source in enumerate(sources):
        reference = reference_of(source)
        assert (reference.layout, reference.repo_id, reference.weights) == (
            "registry",
            "google/gemma-scope-2b-pt-res",
            "",
        )
        again = find_referenced(reference)
        with np.load(write_gemma_scope(tmp_path / "right", seed=number) / "params.npz") as right:
            np.testing.assert_array_equal(again.load_decoder().W_dec.numpy(), right["W_dec"])


@pytest.mark.parametrize("layout", ["sparsify", "dictionary_learning", "gemma_scope"])
def test_every_layout(tmp_path: Path, layout: str) -> None:
    folder = {
        "sparsify": lambda: write_sparsify(tmp_path / "layers.1"),
        "dictionary_learning": lambda: write_dictionary_learning(tmp_path / "trainer_0"),
        "gemma_scope": lambda: write_gemma_scope(tmp_path / "layer_1" / "width_16k" / "average_l0_8"),
    }[layout]()
    (source,) = resolve_saes([str(folder)])
    assert reference_of(source).layout == layout
    assert find_referenced(reference_of(source)) == source


def test_an_sae_that_a_list_placed(tmp_path: Path) -> None:
    write_sparsify(tmp_path / "sae-pythia-layer3")
    (tmp_path / "list.json").write_text(json.dumps([{"layer": 3, "path": "sae-pythia-layer3"}]))
    (source,) = resolve_saes([str(tmp_path / "list.json")])
    assert source.site == "blocks.3.hook_resid_post"
    (tmp_path / "list.json").unlink()
    assert find_referenced(reference_of(source)) == source


def test_changed_weights_are_an_error_and_no_cosine(rec: Recording, tmp_path: Path) -> None:
    path = tmp_path / "saes" / "sae_2" / "sae_weights.safetensors"
    tensors = load_file(path)
    tensors["W_dec"] = -tensors["W_dec"]
    save_file(tensors, path)
    with pytest.raises(InputError, match=r"saes/sae_2 in .*sae_2 have changed since it was recorded"):
        rec.source(rec.saes[2].slug)
    members = pl.DataFrame({"slug": [rec.saes[1].slug, rec.saes[2].slug, rec.saes[3].slug], "feature_id": [0, 1, 2]})
    cosine, (note,) = decoder_cosines(members, rec)
    assert f"no decoder cosine for {rec.saes[2].slug} (The files of the SAE saes/sae_2" in note
    assert np.isnan(cosine).tolist() == [[False, True, False], [True, True, True], [False, True, False]]


def test_a_decoder_that_is_gone_is_said_by_the_ranking(rec: Recording, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "saes")
    ranking = ca.rank(rec, **ALL)
    (warning,) = [w for w in ranking.facts["warnings"] if "no decoder cosine" in w]
    assert "is not at" in warning
    assert all(member["cosine"] is None for family in ranking.families for member in family["members"])


def test_an_sae_that_is_gone(rec: Recording, tmp_path: Path) -> None:
    (tmp_path / "saes" / "sae_1").rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"saes/sae_1 is not at .*sae_1 any more; put it back"):
        rec.source(rec.saes[1].slug)


def test_recordings_without_references_are_found_by_slug(rec: Recording, tmp_path: Path) -> None:
    (tmp_path / "rec" / "artefact.json").unlink()  # as in recordings of earlier versions
    path = tmp_path / "rec" / "manifest.json"
    manifest = json.loads(path.read_text())
    for sae in manifest["saes"]:
        del sae["reference"]
    path.write_text(json.dumps(manifest))
    old = Recording.open(tmp_path / "rec")
    for number, sae in enumerate(old.saes):
        assert old.source(sae.slug).path == str(tmp_path / "saes" / f"sae_{number}")
    with pytest.raises(InputError, match=r"x/y is not found any more under .*saes"):
        find_by_specs("x", "x/y", [str(tmp_path / "saes")])


def test_version_1_says_what_it_cannot_find() -> None:
    old = Recording.open(Path(__file__).parent.parent / "data" / "recording_v1")
    with pytest.raises(InputError, match="made/low is not found any more under low, high"):
        old.source("low")


def test_a_folder_that_now_holds_another_width(rec: Recording, tmp_path: Path) -> None:
    (tmp_path / "rec" / "artefact.json").unlink()  # as in recordings of earlier versions
    path = tmp_path / "rec" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["saes"][0]["reference"] = None
    path.write_text(json.dumps(manifest))
    write_saelens(tmp_path / "saes" / "sae_0", d_in=32, d_sae=12, hook="blocks.0.hook_resid_post")
    with pytest.raises(InputError, match="has 12 features of width 32, and 24 of width 32 were recorded"):
        Recording.open(tmp_path / "rec").source(rec.saes[0].slug)


def test_the_model_still_takes_what_is_found(rec: Recording) -> None:
    assert load_subject(rec.manifest.subject.location).d_model == rec.source(rec.saes[0].slug).d_in
