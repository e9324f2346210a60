"""The simulations start, and the docs show the figures that were written."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import calibration


def test_the_page_shows_the_figures_of_the_last_run() -> None:
    figures = json.loads(calibration.RESULTS.read_text())
    assert calibration.tables(figures) in calibration.PAGE.read_text(encoding="utf-8")
    assert figures["runs"] == 400
    assert figures["monotone"] is True


def test_the_figures_are_what_is_promised() -> None:
    figures = json.loads(calibration.RESULTS.read_text())
    assert max(max(row["p_max"], row["any_q"]) for row in figures["searches"]) <= 0.08
    assert min(row["coverage"] for row in figures["intervals"]) >= 0.92
    assert max(row["beaten"] for row in figures["beats"]) <= 0.06


@pytest.mark.parametrize("name", calibration.SEARCHES)
def test_a_search_gives_the_same_answer_again(name: str) -> None:
    assert calibration.search(name, 1) == calibration.search(name, 1)


def test_a_short_run() -> None:
    assert 0.8 <= calibration.covered(50, 0.9, 1, 40) <= 1
    assert calibration.beaten(40, 1.0, 1, 5) == 0
    assert calibration.monotone()
    assert not np.isnan(calibration.covered(20, 1.0, 5, 5))
