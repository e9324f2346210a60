"""Contradictions are refused in a sentence; what is wanted is every combination, each once."""

from __future__ import annotations

from typing import Any

import pytest

from conceptatlas.base.errors import InputError
from conceptatlas.training import TrainOptions
from conceptatlas.training.options import ARCHITECTURES
from tests.training.conftest import small

SITE = ("blocks.1.hook_resid_post",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sites": ()}, r"no site to train at; give --layers or --sites"),
        ({"sites": ("blocks.1.hook_resid_pots",)}, r"Unknown site .*hook_resid_post"),
        ({"architecture": "batchtopkk"}, r"Unknown architecture 'batchtopkk'; nearest: batchtopk"),
        ({"architecture": "skip_transcoder"}, r"SAELens has no training class for skip_transcoder; train one of"),
        ({"architecture": "standard"}, r"L1 penalty; give its weight with --l1"),
        ({"architecture": "gated", "k": (3,), "l1": (1,)}, r"--k does not belong to gated, which takes --l1"),
        ({"k": (64,), "widths": (64,)}, r"--k is 64, not less than the width 64"),
        ({"k": (2.5,), "architecture": "topk"}, r"--k is 2\.5; topk takes whole numbers"),
        ({"k": (-1,)}, r"--k is -1; it must be more than 0"),
        ({"widths": (1,)}, r"--width is 1; an SAE needs at least 2"),
        ({"tokens": 100, "batch": 200}, r"--tokens is 100, less than one batch of 200"),
        ({"buffer_rows": 100, "batch": 64}, r"--buffer-rows is 100, and must be at least 4 batches of 64"),
        ({"buffer_dtype": "float16"}, r"Unknown value of --buffer-dtype 'float16'"),
        ({"context": 1}, r"--context is 1; give a whole number from 4"),
        ({"lr": 3.0}, r"--lr is 3\.0; give a number between 0 and 1"),
    ],
)  # fmt: skip
def test_contradictions(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainOptions(**({"sites": SITE} | options))


def test_every_combination_once() -> None:
    options = small(widths=(64, 128, 64), k=(4, 8), control=True, sites=(*reversed(small().sites), small().sites[0]))
    ids = [wanted.sae_id for wanted in options.wanted()]
    assert len(ids) == len(set(ids)) == 2 * 2 * 2 * 2
    assert ids[:3] == [f"{SITE[0]}/64-k4", f"{SITE[0]}/64-k4-frozen", f"{SITE[0]}/64-k8"]
    assert options.wanted()[1].trained_id == ids[0]


def test_k_has_a_default_and_l1_has_none() -> None:
    assert TrainOptions(sites=SITE).k == (32.0,)
    assert set(ARCHITECTURES.values()) == {"k", "l1"}
