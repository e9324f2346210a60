"""Cards and the explorer from a notebook."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest

import conceptatlas as ca
from conceptatlas.base.errors import InputError
from tests.views.test_report import Page


def test_a_card_shows_a_feature_in_a_frame_that_runs_nothing(study: Path) -> None:
    card = ca.Ranking.open(study / "rank").card(2)
    assert card.feature.rank == 2
    frame = Page(card._repr_html_())
    (_, attrs) = frame.tags[0]
    assert attrs["sandbox"] == ""
    inner = Page(attrs["srcdoc"] or "")
    assert not inner.open
    assert "Distribution by grade" in inner.text
    assert "script" not in {tag for tag, _ in inner.tags}
    assert "srcdoc" not in repr(card)


def test_a_card_of_hostile_text_stays_in_its_frame(nasty_study: Path) -> None:
    frame = Page(ca.card(nasty_study)._repr_html_())
    assert [tag for tag, _ in frame.tags] == ["iframe"]


def test_a_rank_that_is_not_shown_is_refused(study: Path, strict_study: Path) -> None:
    with pytest.raises(InputError, match="There is no rank 99 among the 50 features shown"):
        ca.card(study, 99)
    assert ca.card(strict_study).feature.rank == 1  # the table is never empty
    with pytest.raises(InputError, match="in memory only"):
        ca.rank(study / "rec", permutations=0, resplits=0, baselines=False).card()


def test_the_explorer_is_served_until_it_is_stopped(study: Path) -> None:
    explorer = ca.Ranking.open(study / "rank").explore()
    try:
        with urllib.request.urlopen(explorer.url, timeout=20) as reply:
            assert reply.status == 200
            assert b"conceptatlas" in reply.read()
        assert explorer.url in explorer._repr_html_()
    finally:
        explorer.stop()
