from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conceptatlas.base.errors import InputError
from conceptatlas.subjects.sites import BLOCK_HOOKS, BRIDGE_HOOKS, Site, parse_sites


@given(layer=st.integers(0, 200), hook=st.sampled_from([*BLOCK_HOOKS, *BRIDGE_HOOKS]))
def test_a_name_survives_the_round_trip(layer: int, hook: str) -> None:
    site = Site.parse(f"blocks.{layer}.{hook}")
    assert (site.layer, site.hook) == (layer, hook)
    assert Site.parse(str(site)) == site == Site.parse(site.hook_name)


@pytest.mark.parametrize("name", ["embed", "hook_embed", "model.embed_tokens", "transformer.wte.output"])
def test_the_embedding_has_one_site(name: str) -> None:
    site = Site.parse(name)
    assert str(site) == "embed"
    assert site.hook_name == "hook_embed"
    assert Site.parse(str(site)) == site


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.layers.12", "blocks.12.hook_resid_post"),
        ("model.layers.12.output", "blocks.12.hook_resid_post"),
        ("model.layers.12.input", "blocks.12.hook_resid_pre"),
        ("model.language_model.layers.3.output", "blocks.3.hook_resid_post"),
        ("layers.5", "blocks.5.hook_resid_post"),
        ("layers.5.mlp", "blocks.5.mlp.hook_out"),
        ("transformer.h.0", "blocks.0.hook_resid_post"),
        ("h.7.mlp", "blocks.7.mlp.hook_out"),
        ("gpt_neox.layers.2.attention.dense.input", "blocks.2.attn.hook_z"),
        ("model.layers.9.self_attn.o_proj.input", "blocks.9.attn.hook_z"),
        ("model.layers.9.pre_feedforward_layernorm.output", "blocks.9.mlp.hook_in"),
        ("model.layers.9.post_feedforward_layernorm.output", "blocks.9.hook_mlp_out"),
    ],
)
def test_module_names_are_sites_too(name: str, expected: str) -> None:
    assert str(Site.parse(name)) == expected


def test_an_unknown_hook_names_the_nearest_first() -> None:
    with pytest.raises(InputError) as caught:
        Site.parse("blocks.3.hook_resid_pots")
    message = str(caught.value)
    assert message.startswith(
        "Unknown site 'blocks.3.hook_resid_pots'; valid are 'embed' and blocks.N. followed by one of (nearest first) "
        "hook_resid_post, "
    )
    assert all(hook in message for hook in BLOCK_HOOKS)


@pytest.mark.parametrize(
    "name", ["", "blocks.x.hook_resid_post", "hook_resid_post", "blocks.-1.hook_resid_post", "mlp"]
)
def test_what_is_not_a_site_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="Unknown site"):
        Site.parse(name)


def test_a_hook_needs_its_block() -> None:
    with pytest.raises(InputError, match=r"needs a block, such as blocks\.12\.hook_resid_post"):
        Site("hook_resid_post")
    with pytest.raises(InputError, match="stands in no block"):
        Site("embed", 0)


def test_sites_come_in_the_order_of_the_forward_pass() -> None:
    names = ["blocks.1.hook_resid_pre", "blocks.0.hook_resid_post", "embed", "blocks.0.attn.hook_z", "hook_embed"]
    assert [str(s) for s in parse_sites(names)] == [
        "embed",
        "blocks.0.attn.hook_z",
        "blocks.0.hook_resid_post",
        "blocks.1.hook_resid_pre",
    ]
