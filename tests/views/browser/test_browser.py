"""A user's way through the explorer and the report, in headless Chromium."""

from __future__ import annotations

import json
import re
from pathlib import Path

import axe_playwright_python
import pytest
from playwright.sync_api import Page, expect

import conceptatlas as ca
from tests.views.browser.conftest import Served, Watched

pytestmark = pytest.mark.browser
BOTH = pytest.mark.parametrize("watched", ["light", "dark"], indirect=True)

SLUG = "blocks.2.hook_resid_post__l0_12"
AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")


def faults(page: Page) -> list[str]:
    """Return what axe finds serious or critical."""
    page.evaluate(AXE)
    found = page.evaluate("async () => (await axe.run(document, {resultTypes: ['violations']})).violations")
    return [
        f"{fault['id']}: {node['target']} {node['failureSummary']}"
        for fault in found
        if fault["impact"] in ("serious", "critical")
        for node in fault["nodes"][:3]
    ]


def fits(page: Page) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


@BOTH
def test_every_page_is_accessible_and_fits_a_phone(watched: Watched, served: Served) -> None:
    page = watched.page
    feature = f"feature/{SLUG}"
    addresses = ["", "s/plain/", "s/plain/features", f"s/plain/{feature}/3", "s/plain/sentences", "s/plain/sentence/3",
                 "s/plain/try", f"compare?a=plain/{SLUG}/3&b=plain/{SLUG}/20", "s/nasty/", "s/nasty/sentence/2",
                 f"s/nasty/{feature}/3", "s/nasty/sentence/3"]  # fmt: skip
    for address in addresses:
        page.set_viewport_size({"width": 1280, "height": 900})
        page.goto(served.url + address)
        assert faults(page) == [], address
        assert fits(page), address
        page.set_viewport_size({"width": 375, "height": 800})
        assert fits(page), f"{address} at 375 px"


@BOTH
def test_the_page_of_several_concepts_is_accessible_and_fits_a_phone(
    watched: Watched, together: Path, tmp_path: Path
) -> None:
    page = watched.page
    explorer = ca.explore(together)
    for address in (explorer.url, ca.report(together, out=tmp_path / "set.html").as_uri()):
        page.set_viewport_size({"width": 1280, "height": 900})
        page.goto(address)
        page.get_by_text("As a picture").click()
        assert page.locator("img.plot").evaluate("image => image.naturalWidth") > 0
        assert faults(page) == [], address
        assert fits(page), address
        page.set_viewport_size({"width": 375, "height": 800})
        assert fits(page), address
    page.goto(explorer.url)
    page.get_by_role("link", name="anger").first.click()
    page.get_by_role("link", name="three <i>").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("three <i>")
    explorer.stop()
    watched.elsewhere = [url for url in watched.elsewhere if not url.startswith(explorer.url)]


def test_from_the_list_to_a_feature_and_back(watched: Watched, served: Served) -> None:
    page = watched.page
    page.goto(served.url)
    page.get_by_role("link", name="dishonesty", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("dishonesty")
    page.get_by_role("link", name="Features", exact=True).click()
    page.get_by_role("link", name="AUROC hold-out").click()
    expect(page).to_have_url(re.compile("sort=auroc_holdout"))
    column = page.locator("tbody tr[data-row] td:nth-child(6)").all_inner_texts()
    figures = [float(text) for text in column if text != "–"]
    assert figures == sorted(figures, reverse=True)
    page.locator("select[name=layer]").select_option("2")
    page.get_by_role("button", name="Show").click()
    assert set(page.locator("tbody tr[data-row] td:nth-child(2)").all_inner_texts()) == {"2"}
    expect(page).to_have_url(re.compile(r"\?(?!.*min_).*layer=2"))  # empty fields stay out of the address
    page.locator("tbody tr[data-row] a").first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Layer 2, feature")
    page.get_by_role("link", name="next →").click()
    expect(page.locator(".crumbs")).to_contain_text("· 2 of")
    page.get_by_role("link", name="Features", exact=True).last.click()
    expect(page).to_have_url(re.compile("layer=2"))


def test_the_keyboard_goes_through_the_table(watched: Watched, served: Served) -> None:
    page = watched.page
    page.goto(served.url + "s/plain/features")
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.type("jks")  # letters, not commands, while typing
    expect(page.get_by_role("searchbox")).to_have_value("jks")
    page.keyboard.press("Escape")
    for _ in range(3):
        page.keyboard.press("j")
    page.keyboard.press("k")
    selected = page.locator("tr.sel")
    expect(selected).to_have_count(1)
    chosen = selected.locator("a").inner_text()
    assert chosen == page.locator("tr[data-row] a").nth(1).inner_text()
    page.keyboard.press("o")
    expect(page.get_by_role("heading", level=1)).to_contain_text(f"feature {chosen.lstrip('#')}")
    page.keyboard.press("j")
    expect(page.locator(".crumbs")).to_contain_text("· 3 of")
    page.keyboard.press("k")
    expect(page.locator(".crumbs")).to_contain_text("· 2 of")


def test_a_star_and_a_note_are_kept(watched: Watched, served: Served) -> None:
    page = watched.page
    address = f"{served.url}s/plain/feature/{SLUG}/11"
    page.goto(address)
    star = page.get_by_role("button", name="Star this feature")
    pressed = star.get_attribute("aria-pressed") == "true"
    page.keyboard.press("s")
    expect(star).to_have_attribute("aria-pressed", "false" if pressed else "true")
    if pressed:
        star.click()
        expect(star).to_have_attribute("aria-pressed", "true")
    page.get_by_label("Notes").fill("<script>alert('note')</script>")
    page.get_by_role("button", name="Save note").click()
    page.reload()
    expect(page.get_by_label("Notes")).to_have_value("<script>alert('note')</script>")
    expect(page.get_by_role("button", name="Star this feature")).to_have_attribute("aria-pressed", "true")
    kept = json.loads((served.folder / "plain/notes.json").read_text())
    assert kept["features"][f"{SLUG}/11"]["star"] is True
    page.goto(served.url + "s/plain/features?starred=1")
    expect(page.locator("tr[data-row] a")).to_have_text(["#11"])


def test_a_table_is_exported(watched: Watched, served: Served) -> None:
    page = watched.page
    page.goto(served.url + "s/plain/features?layer=1")
    with page.expect_download() as download:
        page.get_by_role("link", name="Export as CSV").click()
    text = Path(download.value.path()).read_text()
    assert text.startswith("layer,average_l0,feature_id,")
    assert {line.split(",")[0] for line in text.splitlines()[1:]} == {"1"}


def test_a_sentence_of_ones_own_heats_up_and_a_feature_is_steered(watched: Watched, served: Served) -> None:
    page = watched.page
    page.goto(served.url + f"s/plain/feature/{SLUG}/3")
    page.get_by_role("link", name="Try it on your own text").click()
    page.get_by_label("A sentence").fill("She said {{7*7}} <b>things</b> that were not so")
    page.get_by_role("button", name="Show activations").click()
    expect(page.get_by_role("heading", name="Where they fire")).to_be_visible()
    expect(page.locator(".tried .toks")).to_have_text("She said {{7*7}} <b>things</b> that were not so")
    assert page.locator(".tried .toks span[class^=w]").count() == 8
    page.goto(served.url + f"s/plain/feature/{SLUG}/3")
    page.get_by_label("Text to continue").fill("He said")
    page.get_by_role("slider").fill("-1.5")
    expect(page.locator("output")).to_have_text("-1.5")
    page.get_by_role("button", name="Write with and without").click()
    expect(page.get_by_text("after -1.5")).to_be_visible()
    expect(page.get_by_text("→ before")).to_be_visible()


@BOTH
def test_the_report_opens_from_disk_without_a_network(watched: Watched, study: Path, tmp_path: Path) -> None:
    path = ca.report(study, out=tmp_path / "report.html")
    page = watched.page
    page.context.set_offline(True)
    page.goto(path.as_uri())
    expect(page.get_by_role("heading", level=1)).to_have_text("dishonesty")
    page.locator("details.feature").evaluate_all("all => all.forEach((one) => { one.open = true; })")
    assert faults(page) == []
    assert fits(page)
    page.get_by_role("link", name="What was run").click()
    expect(page.get_by_role("heading", name="What was run")).to_be_in_viewport()
    page.set_viewport_size({"width": 375, "height": 800})
    assert fits(page)


def test_a_report_of_hostile_text_runs_nothing(watched: Watched, nasty_study: Path, tmp_path: Path) -> None:
    page = watched.page
    page.goto(ca.report(nasty_study, out=tmp_path / "report.html").as_uri())
    page.locator("details.feature").evaluate_all("all => all.forEach((one) => { one.open = true; })")
    page.wait_for_timeout(100)
    page.set_viewport_size({"width": 375, "height": 800})
    assert fits(page)
