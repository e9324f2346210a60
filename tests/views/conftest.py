"""Studies that several tests of the views share; made once, read only."""

from __future__ import annotations

from pathlib import Path

import pytest

from conceptatlas.ranking import rank
from tests.ranking.synthetic import planted
from tests.views.studies import write_study, write_study_set

NASTY = {
    0: "<script>alert(1)</script> sold the bag",
    1: "{{7*7}} {% raw %} sold the bag",
    2: 'javascript:alert(1) " onmouseover="alert(1) \' <img src=x onerror=alert(1)>',
    3: "long " + "x" * 10_000,
}


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of 120 sentences with nine features that pass."""
    return write_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="session")
def nasty_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose texts and names try to be markup."""
    slugs = {
        f"blocks.{layer}.hook_resid_post__l0_12": {"sae_id": f"<b>sae</b>{{{{7*7}}}} {layer}", "neuronpedia_id": "x"}
        for layer in range(4)
    }
    return write_study(
        tmp_path_factory.mktemp("nasty"), texts=NASTY, saes=slugs, name="<script>alert(2)</script>", baselines=False
    )


@pytest.fixture(scope="session")
def strict_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study in which no feature passes the classic filters, and the best stand in the table all the same."""
    return write_study(tmp_path_factory.mktemp("strict"), min_pearson=0.999, baselines=False)


@pytest.fixture(scope="session")
def noise_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of nothing but noise: 60 items, no feature follows the grade; with baselines."""
    path = tmp_path_factory.mktemp("noise")
    rank(planted(path / "rec", n=60, n_features=60, seed=4, strengths=(), hidden=True), path / "rank", permutations=200)
    return path


@pytest.fixture(scope="session")
def final_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose recording kept final rows only."""
    return write_study(tmp_path_factory.mktemp("final"), keep="final", baselines=False)


@pytest.fixture(scope="session")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of three concepts, compared."""
    return write_study_set(tmp_path_factory.mktemp("together") / "all")
