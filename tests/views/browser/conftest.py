"""A headless Chromium, and the explorer served to it."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, sync_playwright

import conceptatlas as ca
from conceptatlas.views.explorer import Library, NetworkPolicy, create_app
from conceptatlas.views.explorer.server import free_port
from tests.views.test_explorer import FakeEngine


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("Chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Served:
    """The explorer at an address, over a folder that may be written."""

    url: str
    folder: Path


@pytest.fixture(scope="session")
def served(study: Path, nasty_study: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served") / "atlas"
    shutil.copytree(study, folder / "plain")
    shutil.copytree(nasty_study, folder / "nasty")
    library = Library.open(folder)
    for shelf in library.shelves.values():
        shelf.live.engine = FakeEngine()
    policy = NetworkPolicy.local(free_port("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(create_app(library, policy), host=policy.address, port=policy.port, log_level="error")
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    for _ in range(500):
        if server.started:
            break
        time.sleep(0.02)
    assert server.started
    yield Served(policy.url, folder)
    server.should_exit = True
    thread.join(timeout=10)


@pytest.fixture(scope="session")
def organism_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of the built-in model, recorded and ranked."""
    folder = tmp_path_factory.mktemp("organism") / "dishonesty"
    recording = ca.record("builtin:dishonesty", "organism", "organism", folder / "rec", device="cpu")
    ca.rank(recording, folder / "rank", permutations=200)
    return folder


@dataclass
class Watched:
    """A page, and what it complained of or asked for elsewhere."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)


@pytest.fixture
def watched(chromium: Browser, served: Served, request: pytest.FixtureRequest) -> Iterator[Watched]:
    context = chromium.new_context(
        viewport={"width": 1280, "height": 900}, color_scheme=getattr(request, "param", "light")
    )
    page = context.new_page()
    page.set_default_timeout(15_000)
    found = Watched(page)
    page.on("console", lambda m: found.complaints.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: found.complaints.append(str(error)))
    page.on("dialog", lambda dialog: (found.complaints.append("a dialog: " + dialog.message), dialog.dismiss()))
    page.on(
        "request",
        lambda r: None if r.url.startswith((served.url, "data:", "file:")) else found.elsewhere.append(r.url),
    )
    yield found
    context.close()
    assert found.complaints == []
    assert found.elsewhere == []
