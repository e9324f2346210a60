"""``record`` against a slow loop over fragments, and every option."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from conceptatlas.base.errors import InputError, WorkError
from conceptatlas.concepts import build_concept
from conceptatlas.recording import record, verify
from conceptatlas.recording.recorder import Recording
from conceptatlas.saes.encode import encode_dense, tile_size
from conceptatlas.subjects import Site, load_subject
from tests.helpers.tiny_models import tiny_model
from tests.recording.standins import MadeSAE


def files_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def slow_states(subject, text, site):
    """Every fragment on its own: the hidden state at its last token, [rows, D]."""
    tokens = subject.tokenize([text])
    ids, mask = tokens.token_ids[0], tokens.rows[0]
    tail = len(ids) - 1 - int(np.flatnonzero(mask)[-1])
    closing = ids[len(ids) - tail :]
    found = []
    for place in np.flatnonzero(mask):
        fragment = np.concatenate([ids[: place + 1], closing])
        only = np.arange(len(fragment)) == place
        found.append(subject.hidden_states([fragment], [Site.parse(site)], [only])[site])
    return np.concatenate([part.numpy() for part in found])


@pytest.mark.parametrize("family", ["gemma2", "gpt2", "bert"])
def test_equals_every_fragment_on_its_own(family, models, concept, saes, tmp_path):
    subject = load_subject(str(tiny_model(family, models)), device="cpu")
    rec = record(concept, subject, saes, tmp_path / "rec", hidden="all", shard_rows=20)
    assert len(rec.manifest.plan.shards) > 2
    for sae in saes:
        slow = np.concatenate([slow_states(subject, text, sae.site) for text in concept.texts])
        np.testing.assert_allclose(rec.hidden(sae.site), slow, atol=2e-4, rtol=1e-4)
        dense = encode_dense(torch.from_numpy(slow), sae.load_encoder()).numpy()
        found = rec.columns(sae.slug).to_dense(rec.n_rows)
        differs = (found != 0) != (dense != 0)
        assert (np.abs(found + dense - sae.threshold)[differs] < 1e-3).all()
        np.testing.assert_allclose(np.where(differs, 0, found), np.where(differs, 0, dense), atol=1e-3)
    assert verify(rec) == []


def test_rows_are_the_tokens_of_the_text(gemma, concept, saes, tmp_path):
    rec = record(concept, gemma, saes, tmp_path / "rec", shard_rows=16)
    texts = concept.texts
    for item, row, token, end, final in rec.rows.select("item", "row", "token", "fragment_end", "is_final").iter_rows():
        assert texts[item][:end].endswith(token) or token == "�"
        assert final == (row == rec.final_rows[item])
    whole = rec.rows.filter(rec.rows["is_final"])
    assert whole["fragment_end"].to_list() == [len(text) for text in texts]
    assert not np.isin(rec.rows["token_id"].to_numpy(), gemma.token_rules.special_ids).any()


def test_shards_change_nothing_but_rounding(gemma, concept, saes, tmp_path):
    one = record(concept, gemma, saes, tmp_path / "one")
    many = record(concept, gemma, saes, tmp_path / "many", shard_rows=16)
    assert len(one.manifest.plan.shards) == 1
    for sae in saes:
        np.testing.assert_allclose(
            one.columns(sae.slug).to_dense(one.n_rows), many.columns(sae.slug).to_dense(many.n_rows), atol=1e-4
        )
    assert one.rows.equals(many.rows)


def test_keep_final(gemma, concept, saes, tmp_path):
    everything = record(concept, gemma, saes, tmp_path / "all", shard_rows=16)
    final = record(concept, gemma, saes, tmp_path / "final", keep="final", shard_rows=16)
    assert final.n_rows == everything.n_rows
    for sae in saes:
        found = final.columns(sae.slug).to_dense(final.n_rows)
        other = np.ones(final.n_rows, dtype=bool)
        other[final.final_rows] = False
        assert not found[other].any()
        expected = everything.columns(sae.slug).to_dense(final.n_rows)[final.final_rows]
        np.testing.assert_allclose(found[final.final_rows], expected, atol=1e-4)


def test_some_features_only(gemma, concept, saes, tmp_path):
    everything = record(concept, gemma, saes, tmp_path / "all")
    some = record(concept, gemma, saes, tmp_path / "some", features=[69, 3])
    for sae in saes:
        found = some.columns(sae.slug).to_dense(some.n_rows)
        expected = everything.columns(sae.slug).to_dense(some.n_rows)
        np.testing.assert_allclose(found[:, [3, 69]], expected[:, [3, 69]], atol=1e-4)
        assert found.shape == expected.shape
        assert not np.delete(found, [3, 69], axis=1).any()


def test_features_of_a_topk_like_sae_say_that_all_were_encoded(gemma, concept, saes, tmp_path):
    saes[0].architecture = "topk"
    rec = record(concept, gemma, saes, tmp_path / "rec", features=[3])
    assert any(warning.startswith("1 SAEs (low) are TopK-like") for warning in rec.manifest.warnings)


def test_words(gemma, concept, saes, tmp_path):
    rec = record(concept, gemma, saes, tmp_path / "rec", fragments="word")
    assert rec.items["n_rows"].to_list() == [len(text.split()) for text in concept.texts]
    assert [token.strip() for token in rec.rows["token"]] == " ".join(concept.texts).split()


@pytest.mark.parametrize(
    ("sites", "expected"),
    [
        ("saes", ["embed", "blocks.0.hook_resid_post", "blocks.2.hook_resid_post"]),
        ("all", ["embed", *(f"blocks.{layer}.hook_resid_post" for layer in range(3))]),
        ("blocks.1.hook_resid_pre", ["embed", "blocks.1.hook_resid_pre"]),
    ],
)
def test_hidden_sites(gemma, concept, saes, tmp_path, sites, expected):
    rec = record(concept, gemma, saes, tmp_path / "rec", hidden_sites=sites)
    assert rec.hidden_sites == expected
    for site in expected:
        slow = np.stack([slow_states(gemma, text, site)[-1] for text in concept.texts])
        np.testing.assert_allclose(rec.hidden(site), slow, atol=2e-4, rtol=1e-4)
        assert np.array_equal(rec.hidden_final(site), rec.hidden(site))


def test_no_hidden(gemma, concept, saes, tmp_path):
    rec = record(concept, gemma, saes, tmp_path / "rec", hidden="none")
    assert rec.hidden_sites == []
    assert not (rec.path / "hidden").exists()


def test_without_saes(gemma, concept, tmp_path):
    rec = record(concept, gemma, [], tmp_path / "rec", hidden_sites="all")
    assert rec.saes == []
    assert rec.hidden("blocks.2.hook_resid_post").shape == (7, 32)


def test_manifest_says_where_it_came_from(gemma, concept, saes, tmp_path):
    rec = record(concept, gemma, saes, tmp_path / "rec")
    found = rec.manifest
    assert found.subject.id == gemma.id
    assert found.subject.revision == gemma.revision
    assert found.subject.attention == "eager"
    assert found.options.device == "cpu"
    assert found.options.dtype == "float32"
    assert found.plan.shards == [(0, 7)]
    assert found.plan.tile_features == [tile_size(rec.n_rows, torch.device("cpu"))]
    assert found.concept.data_hash == concept.data_hash
    again = rec.sae("again")
    assert again.average_l0 == 71.0
    assert not again.l0_measured
    assert again.short_name == "layer_0_l0_71"
    assert again.neuronpedia_url(5) == "https://www.neuronpedia.org/m/0/5"
    low = rec.sae("low")
    assert low.l0_measured
    assert low.neuronpedia_url(5) == ""
    run = json.loads((rec.path / "run.json").read_text())
    assert run["command"] == "record"
    assert "written" in run
    text = (rec.path / "manifest.json").read_text()
    assert run["host"] not in text or not run["host"]


def test_attention_sinks_are_flagged(gemma, concept, saes, tmp_path, monkeypatch):
    from conceptatlas.recording import shard

    def planted(states, step=4096):
        norms = np.full(len(states), 2.0, np.float32)
        norms[1] = 20.1
        norms[2] = 19.9
        return norms

    monkeypatch.setattr(shard, "row_norms", planted)
    rec = record(concept, gemma, saes, tmp_path / "rec")
    assert np.flatnonzero(rec.sinks).tolist() == [1]
    assert rec.manifest.sites["blocks.0.hook_resid_post"].sinks == 1


def test_states_that_are_not_finite(gemma, concept, saes, tmp_path, monkeypatch):
    from conceptatlas.recording import shard

    def broken(*arguments, **options):
        states = plain(*arguments, **options)
        states["blocks.2.hook_resid_post"][10, 3] = float("inf")
        return states

    plain = shard.shard_states
    monkeypatch.setattr(shard, "shard_states", broken)
    with pytest.raises(WorkError, match=r"item 1 at blocks\.2\.hook_resid_post .* is not finite in float32; .*--dtype"):
        record(concept, gemma, saes, tmp_path / "rec")


# Again, and not the same ----------------------------------------------------------------------------------------------


def test_a_second_call_does_nothing_and_says_so(gemma, concept, saes, tmp_path, capsys):
    record(concept, gemma, saes, tmp_path / "rec")
    before = {name: (tmp_path / "rec" / name).stat().st_mtime_ns for name in files_of(tmp_path / "rec")}
    loads = sum(len(sae.loads) for sae in saes)
    capsys.readouterr()
    record(concept, gemma, saes, tmp_path / "rec")
    assert "nothing to do" in capsys.readouterr().err
    assert {name: (tmp_path / "rec" / name).stat().st_mtime_ns for name in before} == before
    assert sum(len(sae.loads) for sae in saes) == loads


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": "final"}, "--keep all, and now --keep is final"),
        ({"hidden": "none"}, "--hidden final, and now --hidden is none"),
        ({"fragments": "word"}, "--fragments token, and now --fragments is word"),
        ({"features": [1, 2]}, "--features not set, and now --features is 1,2"),
        ({"shard_rows": 9}, "--shard-rows not set, and now --shard-rows is 9"),
    ],
)
@pytest.mark.parametrize("state", ["finished", "begun"])
def test_another_option_is_named(gemma, concept, saes, tmp_path, options, message, state, monkeypatch):
    if state == "begun":
        from conceptatlas.recording import recorder

        monkeypatch.setattr(recorder, "write_run", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            record(concept, gemma, saes, tmp_path / "rec")
        with pytest.raises(InputError, match="not finished"):
            Recording.open(tmp_path / "rec")
    else:
        record(concept, gemma, saes, tmp_path / "rec")
    with pytest.raises(InputError, match=message):
        record(concept, gemma, saes, tmp_path / "rec", **options)


def test_other_data_is_named(gemma, concept, saes, tmp_path):
    record(concept, gemma, saes, tmp_path / "rec")
    other = build_concept("tiny", ["one", "two"], [0, 3])
    with pytest.raises(InputError, match="was recorded from other data"):
        record(other, gemma, saes, tmp_path / "rec")


def test_other_files_are_left_alone(gemma, concept, saes, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"holds other files \(thesis\.tex\)"):
        record(concept, gemma, saes, tmp_path)


# Bad input ------------------------------------------------------------------------------------------------------------


def test_sae_of_another_width(gemma, concept, tmp_path):
    sae = MadeSAE("wide", "blocks.0.hook_resid_post", 0, d_in=48)
    with pytest.raises(InputError, match=r"'wide' takes rows of width 48 \(its d_in\), and the model's width is 32"):
        record(concept, gemma, [sae], tmp_path / "rec")


def test_site_that_is_not_there(gemma, concept, tmp_path):
    with pytest.raises(InputError, match=r"blocks\.7\.hook_resid_post.*3 blocks"):
        record(concept, gemma, [MadeSAE("deep", "blocks.7.hook_resid_post", 7)], tmp_path / "rec")


def test_feature_out_of_range(gemma, concept, saes, tmp_path):
    with pytest.raises(InputError, match="--features has 90, and the features of 'high' count from 0 to 69"):
        record(concept, gemma, saes, tmp_path / "rec", features=[1, 90])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": "some"}, "Unknown value of --keep 'some'"),
        ({"hidden": "some"}, "Unknown value of --hidden 'some'"),
        ({"device": "tpu"}, "Unknown value of --device 'tpu'"),
        ({"engine": "warp"}, "Unknown engine 'warp'"),
        ({"truncate": True}, "--truncate needs --max-tokens"),
        ({"per_feature": 5}, "--per-feature belongs to --keep top"),
        ({"max_tokens": 0}, "--max-tokens is 0"),
        ({"features": [-1]}, "count from 0"),
        ({"hidden_sites": "blocks.0.hook_nowhere"}, "Unknown site"),
    ],
)
def test_bad_options(gemma, concept, saes, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        record(concept, gemma, saes, tmp_path / "rec", **options)


def test_nothing_to_record(gemma, concept, tmp_path):
    with pytest.raises(InputError, match="nothing to record"):
        record(concept, gemma, [], tmp_path / "rec", hidden="none")


def test_item_of_special_tokens_only(gemma, saes, tmp_path):
    bad = build_concept("bad", ["fine", "<bos><eos>"], [0, 3])
    with pytest.raises(InputError, match=r"Item 1 .*only special tokens"):
        record(bad, gemma, saes, tmp_path / "rec")


def test_too_long_an_item(gemma, concept, saes, tmp_path):
    with pytest.raises(InputError, match=r"Item 0 .* tokens and the limit .* 6; .*--truncate"):
        record(concept, gemma, saes, tmp_path / "rec", max_tokens=6)
    rec = record(concept, gemma, saes, tmp_path / "cut", max_tokens=6, truncate=True)
    assert rec.manifest.plan.truncated > 0
    assert any("were cut to 6 tokens" in warning for warning in rec.manifest.warnings)
    assert max(rec.items["n_rows"]) == 5


def test_folder_that_is_a_file(gemma, concept, saes, tmp_path):
    (tmp_path / "rec").write_text("a file")
    with pytest.raises(InputError, match="is a file, and a folder is needed"):
        record(concept, gemma, saes, tmp_path / "rec")


def test_unknown_model(concept, saes, tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        record(concept, str(tmp_path / "nowhere"), saes, tmp_path / "rec")


def test_near_duplicates_are_joined_counted_and_kept_in_the_options(gemma, saes, tmp_path):
    story = "she told him that the bag was new and that the door of the house was old and that he had said nothing"
    concept = build_concept("near", [story, story.replace("bag", "dog"), "she went home", "the rain"], [3, 0, 0, 3])
    rec = record(concept, gemma, saes, tmp_path / "rec")
    assert rec.items["split_hash"][0] == rec.items["split_hash"][1]
    assert rec.manifest.options.group_near_duplicates
    assert any("2 items in 2 groups are near-duplicates" in warning for warning in rec.manifest.warnings)
    with pytest.raises(InputError, match="was recorded with --group-near-duplicates True, and now"):
        record(concept, gemma, saes, tmp_path / "rec", group_near_duplicates=False)
    apart = record(concept, gemma, saes, tmp_path / "apart", group_near_duplicates=False)
    assert apart.items["group"].n_unique() == 4
    assert not apart.manifest.warnings
