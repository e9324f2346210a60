"""What ``--features`` and ``--sae-id`` may be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conceptatlas.base.errors import InputError
from conceptatlas.evidence.labels.targets import Asked, pick_sae, place_features, read_features
from conceptatlas.saes import SAESource


def source(sae_id: str, site: str = "blocks.1.hook_resid_post", l0: float | None = None) -> SAESource:
    return SAESource(sae_id, "release", site, "saelens", ".", d_in=8, d_sae=32, average_l0=l0)


A, B, C = source("a"), source("b"), source("c", "blocks.0.hook_resid_post")


def test_indices() -> None:
    assert read_features("11, 313,251,11").indices == (11, 313, 251)
    assert read_features([3, 1], top_n=1) == Asked((3,), (None,))
    for bad, message in (("1,-2", "'-2' is neither"), ("", "no feature to name"), ("one", "'one' is neither")):
        with pytest.raises(InputError, match=message):
            read_features(bad)
    with pytest.raises(InputError, match="-1 is no feature's index"):
        read_features([-1])
    with pytest.raises(InputError, match="--top-n is 0"):
        read_features([1], top_n=0)


def test_a_json_file(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"

    def read(content: object) -> Asked:
        path.write_text(json.dumps(content))
        return read_features(str(path))

    assert read({"feature_indices": [5, 2], "scores": [0.5, None]}) == Asked((5, 2), (0.5, None))
    assert read({"feature_indices": [5]}) == Asked((5,), (None,))
    for content, message in (
        ({"indices": [1]}, r'has no "feature_indices" \(it has: indices\)'),
        ([1, 2], r'has no "feature_indices" \(it has: list\)'),
        ({"feature_indices": [1, 2], "scores": [1]}, "2 feature_indices and 1 scores"),
        ({"feature_indices": ["x"]}, "'x' is no feature's index"),
        ({"feature_indices": [True]}, "True is no feature's index"),
        ({"feature_indices": [1], "scores": ["high"]}, "the score 'high' is no number"),
        ({"feature_indices": []}, "no feature to name"),
    ):
        with pytest.raises(InputError, match=message):
            read(content)
    path.write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        read_features(str(path))
    with pytest.raises(InputError, match="There is no file"):
        read_features(str(tmp_path / "none.json"))


def test_picking_an_sae() -> None:
    assert pick_sae([A, B, C], "a") == pick_sae([A, B, C], "release/a") == [A]
    assert pick_sae([A, B, C], "blocks.0.hook_resid_post") == [C]
    assert pick_sae([A, B, C], "blocks.1.hook_resid_post") == [A, B]
    assert pick_sae([A, B], None) == [A, B]
    with pytest.raises(InputError, match=r"No SAE here is called 'blocks.2.hook_resid_post'; nearest: blocks"):
        pick_sae([A, B, C], "blocks.2.hook_resid_post")


def test_placing() -> None:
    asked = read_features([4, 31])
    assert [(t.source, t.index) for t in place_features(asked, [A])] == [(A, 4), (A, 31)]
    with pytest.raises(InputError, match=r"Feature 4 could belong to any of 2 SAEs \(a, b\); pick one with --sae-id"):
        place_features(asked, [A, B])
    with pytest.raises(InputError, match="no feature 32 in a: it has 32 features, 0 to 31"):
        place_features(read_features([32]), [A])
    ranked = Asked((4, 5), (0.9, 0.8), ((B.slug, "b", 1.0), (None, "a", None)), (1, 2))
    assert [(t.source, t.index, t.score, t.rank) for t in place_features(ranked, [A, B])] == [
        (B, 4, 0.9, 1),
        (A, 5, 0.8, 2),
    ]
    with pytest.raises(InputError, match="the SAE 'b', which --saes does not hold"):
        place_features(ranked, [A])
