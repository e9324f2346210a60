"""Pictures of the main pages. With CONCEPTATLAS_SCREENSHOTS=docs/images they become those of the docs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import conceptatlas as ca
from tests.views.browser.conftest import Served, Watched

pytestmark = pytest.mark.browser

SLUG = "blocks.2.hook_resid_post__l0_12"
PAGES = {
    "explorer-study": "s/plain/",
    "explorer-features": "s/plain/features",
    "explorer-feature": f"s/plain/feature/{SLUG}/3",
    "explorer-sentence": "s/plain/sentence/3",
    "explorer-compare": f"compare?a=plain/{SLUG}/3&b=plain/{SLUG}/20",
}


def test_the_main_pages_have_their_picture_taken(watched: Watched, served: Served, study: Path, tmp_path: Path) -> None:
    folder = Path(os.environ.get("CONCEPTATLAS_SCREENSHOTS") or tmp_path)
    page = watched.page
    for name, address in PAGES.items():
        page.goto(served.url + address)
        page.screenshot(path=folder / f"{name}.png")
    page.goto(ca.report(study, out=tmp_path / "report.html").as_uri())
    page.screenshot(path=folder / "report.png")
    for name in (*PAGES, "report"):
        assert (folder / f"{name}.png").stat().st_size > 10_000, name
