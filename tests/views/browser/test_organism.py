"""The explorer over the built-in model: a sentence of one's own, steering, and the pictures of the docs.

With CONCEPTATLAS_SCREENSHOTS=docs/images the pictures become those of the docs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

import conceptatlas as ca
from tests.views.browser.conftest import Watched

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def explorer(organism_study: Path) -> Iterator[str]:
    served = ca.explore(organism_study)
    yield served.url
    served.stop()


@pytest.fixture
def at_home(watched: Watched, explorer: str) -> Watched:
    watched.elsewhere.clear()
    watched.page.goto(explorer)
    return watched


def test_a_sentence_of_ones_own_and_a_steered_verdict(at_home: Watched) -> None:
    page = at_home.page
    page.set_default_timeout(120_000)
    page.get_by_role("link", name="Try", exact=True).click()
    page.get_by_label("A sentence").fill("At school, Olga deceived a tourist with a false story.")
    page.get_by_role("button", name="Show activations").click()
    page.get_by_role("heading", name="Where they fire").wait_for()
    assert page.locator(".tried").count() >= 1
    assert page.locator(".tried .toks span[class^=w]").count() > 0
    page.locator(".tried a").first.click()
    page.get_by_label("Text to continue").fill("Dan put the clock on the shelf. Then he weighed the drum.")
    page.get_by_role("slider").fill("1.5")
    page.get_by_role("button", name="Write with and without").click()
    page.get_by_role("heading", name="With and without").wait_for()
    without, steered = (page.locator("p.quote").nth(place).inner_text() for place in (0, 1))
    assert "<end_of_turn>" not in without
    assert without != steered
    at_home.elsewhere = [url for url in at_home.elsewhere if not url.startswith("http://127.0.0.1:")]


def test_the_main_pages_have_their_picture_taken(
    at_home: Watched, explorer: str, organism_study: Path, tmp_path: Path
) -> None:
    folder = Path(os.environ.get("CONCEPTATLAS_SCREENSHOTS") or tmp_path)
    page = at_home.page
    study = explorer + "s/dishonesty/"
    page.goto(study + "features")
    page.screenshot(path=folder / "explorer-features.png")
    page.locator("tr[data-row] a").first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("feature")
    page.screenshot(path=folder / "explorer-feature.png")
    page.goto(study + "sentence/80")
    page.screenshot(path=folder / "explorer-sentence.png")
    page.goto(ca.report(organism_study, out=tmp_path / "report.html").as_uri())
    page.screenshot(path=folder / "report.png")
    for name in ("explorer-features", "explorer-feature", "explorer-sentence", "report"):
        assert (folder / f"{name}.png").stat().st_size > 10_000, name
    at_home.elsewhere = [url for url in at_home.elsewhere if not url.startswith("http://127.0.0.1:")]
