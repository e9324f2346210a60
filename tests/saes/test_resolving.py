"""What --saes may be, and what happens when it is something else."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conceptatlas.base.errors import InputError
from conceptatlas.saes import neuronpedia_url, require_width, resolve_saes
from conceptatlas.saes.loading import with_config
from conceptatlas.saes.registry import all_entries, registry
from conceptatlas.saes.resolving import registry_source
from tests.helpers.tiny_saes import tiny_parts, write_gemma_scope, write_saelens

GEMMA_SCOPE_135 = "gemma-scope-2b-pt-res:layer_*/width_16k/*"


def test_the_135_configurations() -> None:
    sources = resolve_saes([GEMMA_SCOPE_135])
    assert len(sources) == 135
    assert {s.layer for s in sources} == set(range(26))
    assert {(s.d_in, s.d_sae, s.architecture, s.config_status) for s in sources} == {(2304, 16384, "jumprelu", "known")}
    assert [s.layer for s in sources] == sorted(s.layer or 0 for s in sources)
    assert len({s.slug for s in sources}) == 135


def test_neuronpedia_ids_of_the_135() -> None:
    """Twelve have an id in their own release, twenty-six more as the canonical SAE of their layer."""
    sources = resolve_saes([GEMMA_SCOPE_135])
    own = {e.sae_id for e in registry()["gemma-scope-2b-pt-res"] if e.neuronpedia}
    with_id = [s for s in sources if s.neuronpedia_id]
    assert len([s for s in with_id if s.sae_id in own]) == 12
    assert len([s for s in with_id if s.sae_id not in own]) == 26
    layer_20 = next(s for s in sources if s.sae_id == "layer_20/width_16k/average_l0_71")
    assert layer_20.url(5) == "https://www.neuronpedia.org/gemma-2-2b/20-gemmascope-res-16k/5"
    without = next(s for s in sources if not s.neuronpedia_id)
    assert without.url(5) == neuronpedia_url(None, 5) == ""


def test_slugs_are_flat_unique_and_stable() -> None:
    slugs = [registry_source(entry).slug for entry in all_entries()]
    assert len(set(slugs)) == len(slugs)
    assert len({slug.lower() for slug in slugs}) == len(slugs)
    assert all(len(slug) < 200 and "/" not in slug and not slug.startswith(".") for slug in slugs)
    first = resolve_saes(["gemma-scope-2b-pt-res:layer_12/width_16k/average_l0_82"])[0]
    assert first.slug == "gemma-scope-2b-pt-res__layer_12_width_16k_average_l0_82-" + first.slug[-8:]
    assert replace(first, path="elsewhere", site="blocks.1.hook_resid_pre").slug == first.slug


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("gemma-scope-2b-pt-re", "Unknown SAE release 'gemma-scope-2b-pt-re'.*nearest: gemma-scope-2b-pt-res"),
        ("gemma-scope-2b-pt-res:layer_12/width_16k/average_l0_83", "nearest: .*layer_12/width_16k/average_l0_82"),
        ("./no/such/folder", "no file or folder ./no/such/folder"),
        ("no/list.json", "no file or folder"),
    ],
)
def test_unknown_names_get_the_nearest(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve_saes([spec])


def test_a_folder_without_saes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no SAE in .* or below it; what is looked for: cfg.json"):
        resolve_saes([str(tmp_path)])


def test_a_folder_of_many(tmp_path: Path) -> None:
    for layer in (0, 1):
        for k in (4, 8):
            hook = f"blocks.{layer}.hook_resid_post"
            write_saelens(tmp_path / "mine" / hook / f"l0_{k}", hook=hook, seed=k)
    sources = resolve_saes([str(tmp_path / "mine")])
    assert [s.sae_id for s in sources] == [f"blocks.{layer}.hook_resid_post/l0_{k}" for layer in (0, 1) for k in (4, 8)]
    assert {s.release for s in sources} == {"mine"}
    assert [s.average_l0 for s in sources] == [4, 8, 4, 8]
    assert all(s.neuronpedia_id is None for s in sources)
    alone = resolve_saes([str(tmp_path / "mine" / "blocks.1.hook_resid_post" / "l0_8")])
    assert (alone[0].sae_id, alone[0].site) == ("l0_8", "blocks.1.hook_resid_post")


def test_the_same_sae_twice_is_one(tmp_path: Path) -> None:
    write_saelens(tmp_path / "sae")
    assert len(resolve_saes([str(tmp_path), str(tmp_path)])) == 1


def test_two_saes_of_one_name_are_refused(tmp_path: Path) -> None:
    for parent in ("a", "b"):
        write_saelens(tmp_path / parent / "saes" / "l0_4")
    with pytest.raises(InputError, match="would both be called saes/l0_4"):
        resolve_saes([str(tmp_path / "a" / "saes"), str(tmp_path / "b" / "saes")])


def test_organism(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_saelens(tmp_path / "blocks.0.hook_resid_post" / "l0_12", hook="blocks.0.hook_resid_post")
    monkeypatch.setattr("conceptatlas.subjects.organism.saes_path", lambda: tmp_path)
    (source,) = resolve_saes(["organism"])
    assert (source.release, source.sae_id) == ("organism", "blocks.0.hook_resid_post/l0_12")
    assert source.average_l0 == 12.0


# ---- JSON lists --------------------------------------------------------------------------------------------------


def write_list(path: Path, rows: Any) -> str:
    path.write_text(json.dumps(rows))
    return str(path)


def test_json_list_of_local_folders(tmp_path: Path) -> None:
    write_saelens(tmp_path / "a", hook="blocks.3.hook_resid_post")
    write_gemma_scope(tmp_path / "plain")
    given = [
        {"layer": 3, "average_l0": 17.5, "path": "a"},
        {"layer": 6, "average_l0": 40, "path": "plain/params.npz"},
    ]
    first, second = resolve_saes([write_list(tmp_path / "mine.json", given)])
    assert (first.average_l0, first.site, first.release, first.sae_id) == (
        17.5,
        "blocks.3.hook_resid_post",
        "mine",
        "a",
    )
    assert (second.average_l0, second.site, second.config_status) == (40.0, "blocks.6.hook_resid_post", "inferred")
    assert second.load_encoder().d_sae == 64


def test_json_list_of_published_paths(tmp_path: Path) -> None:
    path = "layer_12/width_16k/average_l0_82/params.npz"
    listing = write_list(
        tmp_path / "l.json", [{"layer": 12, "average_l0": 82, "path": path, "release": "gemma-scope-2b-pt-res"}]
    )
    (source,) = resolve_saes([listing])
    assert (source.release, source.repo_id) == ("gemma-scope-2b-pt-res", "google/gemma-scope-2b-pt-res")
    without = write_list(tmp_path / "m.json", [{"layer": 12, "average_l0": 82, "path": path}])
    assert resolve_saes([without], "google/gemma-2-2b") == [source]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "at least one entry"),
        ({}, "must be a JSON list"),
        ([{"layer": 1}], "entry 1: an entry needs"),
        ([{"layer": "1", "path": "a"}], "entry 1: layer is '1'"),
        ([{"layer": 1, "path": "a", "average_l0": -3}], "average_l0 is -3"),
        ([{"layer": 2, "path": "a"}], "layer is 2 and the SAE at a belongs to blocks.1.hook_resid_post"),
        ([{"layer": 1, "path": "a"}, {"layer": 1, "path": "nowhere"}], "entry 2: nowhere is neither a path"),
        ([{"layer": 1, "path": "."}], "holds 2 SAEs"),
    ],
)
def test_bad_json_lists(tmp_path: Path, rows: Any, message: str) -> None:
    write_saelens(tmp_path / "a")
    write_saelens(tmp_path / "b")
    with pytest.raises(InputError, match=message):
        resolve_saes([write_list(tmp_path / "l.json", rows)])


# ---- what turns out different -------------------------------------------------------------------------------------


def test_width_that_is_not_the_models(tmp_path: Path) -> None:
    write_saelens(tmp_path / "sae")
    (source,) = resolve_saes([str(tmp_path)])
    require_width(source, 16)
    with pytest.raises(InputError, match=r"takes rows of width 16 .* the model's width is 128"):
        require_width(source, 128)
    require_width(replace(source, site="blocks.1.attn.hook_z"), 128)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metadata": {"hook_name": "blocks.8.hook_resid_post"}}, "expected to have site 'blocks.8.hook_resid_pre'"),
        ({"d_in": 12}, "expected to have d_in 768 and its configuration says 12"),
    ],
)
def test_a_configuration_that_differs_from_its_name(change: dict[str, Any], message: str) -> None:
    entry = next(e for e in registry()["gpt2-small-res-jb"] if e.sae_id == "blocks.8.hook_resid_pre")
    source = replace(registry_source(entry), d_in=768)
    assert source.config_status == "inferred"
    config, _ = tiny_parts("standard", d_in=768, hook="blocks.8.hook_resid_pre")
    assert with_config(source, config).config_status == "known"
    with pytest.raises(InputError, match=message):
        with_config(source, config | change)


def test_a_transcoder_that_writes_elsewhere_than_its_name_says() -> None:
    entry = next(e for e in registry()["mwhanna-qwen3-4b-transcoders"] if e.sae_id == "layer_2")
    source = registry_source(entry)
    assert source.site_out == "blocks.2.hook_mlp_out"
    config, _ = tiny_parts("transcoder", hook="blocks.2.mlp.hook_in", hook_out="blocks.2.hook_mlp_out")
    assert with_config(source, config).site_out == "blocks.2.hook_mlp_out"
    silent, _ = tiny_parts("transcoder", hook="blocks.2.mlp.hook_in")
    assert with_config(source, silent).site_out == "blocks.2.hook_mlp_out"
    config["metadata"]["hook_name_out"] = "blocks.3.hook_mlp_out"
    with pytest.raises(InputError, match=r"expected to have site_out 'blocks\.2\.hook_mlp_out'"):
        with_config(source, config)


def test_where_a_transcoder_writes_may_stand_beside_the_metadata(tmp_path: Path) -> None:
    """As in configurations of SAELens 5."""
    folder = write_saelens(tmp_path / "sae", "transcoder")
    config = json.loads((folder / "cfg.json").read_text())
    (folder / "cfg.json").write_text(json.dumps(config | {"hook_name_out": "blocks.1.hook_mlp_out"}))
    (source,) = resolve_saes([str(folder)])
    assert source.site_out == "blocks.1.hook_mlp_out"
    assert source.reconstructs


def test_without_a_network_the_error_says_what_to_fetch() -> None:
    with pytest.raises(InputError, match=r"jbloom/GPT2-Small-SAEs-Reformatted at blocks.8.hook_resid_pre.*hf download"):
        resolve_saes(["gpt2-small-res-jb:blocks.8.hook_resid_pre"])


def test_known_weights_that_are_not_there() -> None:
    source = resolve_saes(["gemma-scope-2b-pt-res:layer_12/width_16k/average_l0_82"])[0]
    with pytest.raises(InputError, match="google/gemma-scope-2b-pt-res at layer_12/width_16k/average_l0_82"):
        source.load_encoder()


def test_resolving_imports_no_saelens(tmp_path: Path) -> None:
    write_saelens(tmp_path / "sae")
    code = (
        "import sys; from conceptatlas.saes import resolve_saes;"
        f"[s.load_encoder() for s in resolve_saes([{str(tmp_path)!r}])];"
        f"resolve_saes([{GEMMA_SCOPE_135!r}]); sys.exit('sae_lens' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
