"""The whole registry, offline: every SAE has a place, and what we call known is what SAELens itself computes."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from conceptatlas.base.errors import InputError
from conceptatlas.saes import read_catalog, site_counts
from conceptatlas.saes.names import named
from conceptatlas.saes.registry import RegistryEntry, all_entries, registry
from conceptatlas.subjects import load_subject
from conceptatlas.subjects.places import find_place
from conceptatlas.subjects.sites import Site
from tests.helpers.cli import invoke
from tests.helpers.tiny_models import tiny_model

# SAELens 6.54. Only a change of the registry may change these.
RELEASES, SAES, KNOWN = 170, 13_857, 3_406
DOCS = Path(__file__).parents[2] / "docs" / "reference" / "saes.md"

# Model of the registry -> the family of its class; any other model has SAEs on its residual stream only.
FAMILIES = {
    r"gemma-2-": "gemma2",
    r"gemma-3-(4|12|27)b": "gemma3_conditional",
    r"gemma-3-": "gemma3",
    r"gpt2": "gpt2",
    r"llama": "llama",
    r"mistral": "mistral",
    r"pythia": "gpt_neox",
    r"qwen2\.5": "qwen2",
    r"qwen3-[\d.]+b(-base)?$": "qwen3",
}
ANY_MODEL = {"hook_resid_pre", "hook_resid_post", "embed"}


def test_the_whole_registry_has_a_place() -> None:
    rows = read_catalog()
    status = Counter(row.config_status for row in rows)
    if len(registry()) == RELEASES:  # the tested version
        assert len(rows) == SAES
        assert status["known"] == KNOWN
    assert status["known"] > 3_000
    assert status["unknown"] < 0.005 * len(rows)
    for row in rows:
        assert (row.site is None) == (row.config_status == "unknown")
        if row.site is not None:
            assert Site.parse(row.site)


def test_every_site_can_be_recorded(tmp_path: Path) -> None:
    """Where the encoder reads, and where a transcoder writes: a plain hook reads it in the family of the model."""
    hooks: dict[str | None, set[str]] = {}
    for entry in all_entries():
        told = named(entry)
        family = next((name for rule, name in FAMILIES.items() if re.search(rule, entry.model.lower())), None)
        for site in (told.site, told.site_out):
            if site is not None:
                hooks.setdefault(family, set()).add(Site.parse(site).hook)
    assert set(hooks) == {*FAMILIES.values(), None}
    assert hooks.pop(None) <= ANY_MODEL
    for family, found in hooks.items():
        subject = load_subject(tiny_model(str(family), tmp_path), device="cpu")
        sites = [Site(hook, None if hook == "embed" else 1) for hook in sorted(found)]
        assert [site for site in sites if find_place(site, subject.stack, subject.config) is None] == [], family
        ids = subject.tokenize(["I lied to my friend."]).token_ids
        values = subject.hidden_states(ids, sites)
        assert {name: len(states) for name, states in values.items()} == {str(site): len(ids[0]) for site in sites}


def test_the_docs_count_sites_as_the_catalogue_does() -> None:
    if len(registry()) != RELEASES:
        pytest.skip("the docs count the registry of the tested version of SAELens")
    text = DOCS.read_text(encoding="utf-8")
    lines = re.findall(r"^\| `?([\w.]+)`? \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|$", text, re.MULTILINE)
    written = [(kind, *(int(figure.replace(",", "")) for figure in figures)) for kind, *figures in lines]
    counts = site_counts(read_catalog())
    assert written == [(c.site_type, c.known, c.inferred, c.unknown, c.total) for c in counts]
    assert f"{SAES:,} in {RELEASES} releases" in text


def test_sites_by_kind() -> None:
    counts = site_counts()
    assert sum(count.total for count in counts) == len(read_catalog())
    assert [count.total for count in counts] == sorted((count.total for count in counts), reverse=True)
    kinds = {count.site_type for count in counts}
    assert {
        "hook_resid_post", "hook_resid_pre", "hook_resid_mid", "hook_mlp_out", "hook_mlp_in", "mlp.hook_in", "attn.hook_z",
        "hook_attn_out", "ln2.hook_normalized", "hook_embed",
    } <= kinds  # fmt: skip


def test_known_is_what_saelens_computes_without_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    from sae_lens.loading import pretrained_sae_loaders as loaders

    class AskedTheHubError(Exception):
        pass

    def refuse(*_: Any, **__: Any) -> None:
        raise AskedTheHubError

    for name in ("hf_hub_download", "get_safetensors_tensor_shapes"):
        monkeypatch.setattr(loaders, name, refuse)
    for entry in all_entries():
        told = named(entry)
        try:
            config = loaders.load_sae_config_from_huggingface(entry.release, entry.sae_id)
        except AskedTheHubError:
            assert told.status != "known", entry
            continue
        metadata = config["metadata"]
        assert told.status == "known", entry
        assert (told.site, told.site_out) == (metadata["hook_name"], metadata.get("hook_name_out")), entry
        assert (told.d_in, told.d_sae, told.architecture) == (
            config["d_in"], config["d_sae"], config["architecture"],
        ), entry  # fmt: skip


@pytest.mark.parametrize(
    ("release", "sae_id", "site", "width"),
    [
        ("gpt2-small-res-jb", "blocks.8.hook_resid_pre", "blocks.8.hook_resid_pre", None),
        ("gpt2-small-res-jb-feature-splitting", "blocks.8.hook_resid_pre_768", "blocks.8.hook_resid_pre", 768),
        ("gpt2-small-mlp-out-v5-32k", "blocks.3.hook_mlp_out", "blocks.3.hook_mlp_out", 32768),
        ("gpt2-small-hook-z-kk", "blocks.5.hook_z", "blocks.5.attn.hook_z", None),
        ("llama_scope_lxm_8x", "l7m_8x", "blocks.7.hook_mlp_out", 32768),
        ("llama-3.1-8b-instruct-andyrdt", "resid_post_layer_15_trainer_1", "blocks.15.hook_resid_post", None),
        ("gemma-scope-2-4b-pt-att", "layer_17_width_16k_l0_big", "blocks.17.attn.hook_z", 16384),
        ("mwhanna-qwen3-4b-transcoders", "layer_30", "blocks.30.mlp.hook_in", None),
        ("mntss-gemma-2-2b-2.5m-clt-as-per-layer", "layer_3", None, None),
    ],
)
def test_names(release: str, sae_id: str, site: str | None, width: int | None) -> None:
    row = next(row for row in read_catalog() if (row.release, row.sae_id) == (release, sae_id))
    assert (row.site, row.d_sae) == (site, width)


def test_an_unknown_format_is_unknown() -> None:
    entry = RegistryEntry("r", "blocks.1.hook_resid_post", "org/repo", "p", "m", loader="new_format")
    assert named(entry).status == "unknown"


def test_models_are_found_with_and_without_their_organisation() -> None:
    assert read_catalog("google/gemma-2-2b") == read_catalog("gemma-2-2b") == read_catalog("Gemma-2-2B")
    with pytest.raises(InputError, match=r"no SAE for the model 'gema-2-2b'; nearest: gemma-2-2b"):
        read_catalog("gema-2-2b")


def test_command() -> None:
    found = invoke("catalog", "--model", "gpt2-small", "--json")
    assert found.code == 0, found.stderr
    rows = json.loads(found.stdout)
    assert {"release", "sae_id", "site", "width", "l0", "neuronpedia_id", "config"} <= rows[0].keys()
    first = next(r for r in rows if r["release"] == "gpt2-small-res-jb")
    assert (first["site"], first["config"]) == ("blocks.0.hook_resid_pre", "inferred")
    assert "SAEs in" in found.stderr


def test_command_prints_a_line_for_each_sae() -> None:
    found = invoke("catalog", "--model", "gemma-2-2b")
    lines = found.stdout.splitlines()
    assert lines[0].split() == ["release", "sae_id", "model", "site", "width", "l0", "neuronpedia_id", "config"]
    assert len(lines) == 1 + len(read_catalog("gemma-2-2b"))
    wanted = "gemma-scope-2b-pt-res layer_12/width_16k/average_l0_82 gemma-2-2b blocks.12.hook_resid_post 16384 82"
    assert any(line.split()[:6] == wanted.split() for line in lines)


def test_command_counts_sites() -> None:
    found = invoke("catalog", "--sites", "--json")
    rows = json.loads(found.stdout)
    assert sum(row["total"] for row in rows) == len(read_catalog())


def test_command_with_an_unknown_model() -> None:
    found = invoke("catalog", "--model", "gema-2-2b")
    assert found.code == 2
    assert "nearest: gemma-2-2b" in found.stderr
