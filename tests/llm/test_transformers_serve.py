"""Against a real server: ``transformers serve`` on loopback, with a model that can only answer nonsense."""

from __future__ import annotations

import csv
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from conceptatlas.base.errors import WorkError
from tests.helpers.cli import invoke
from tests.helpers.tiny_models import tiny_model

SENTENCES = ["He lied to the bank.", "She ran into the fire.", "The tea was cold."]
START_LIMIT = 240  # seconds; about ten on an idle machine


def nonsense_model(folder: Path) -> Path:
    """Return the built-in model, or a random one of the same kind where it has not been trained yet."""
    from conceptatlas.subjects.organism.paths import organism_path

    try:
        return organism_path()
    except WorkError:
        return tiny_model("gemma2", folder)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Yield (base URL, model folder)."""
    folder = tmp_path_factory.mktemp("serve")
    model = nonsense_model(folder)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable, "-m", "transformers.cli.transformers", "serve", "--host", "127.0.0.1", "--port", str(port),
        "--device", "cpu", str(model),
    ]  # fmt: skip
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with (folder / "serve.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        try:
            until = time.monotonic() + START_LIMIT
            while not healthy(port):
                assert process.poll() is None, (folder / "serve.log").read_text()[-2000:]
                assert time.monotonic() < until, (folder / "serve.log").read_text()[-2000:]
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}/v1", model
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as reply:
            return reply.status == 200
    except (urllib.error.URLError, OSError):
        return False


@pytest.mark.slow
def test_nonsense_ends_cleanly_with_everything_set_aside(
    server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, model = server
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.txt").write_text("\n".join(SENTENCES))
    done = invoke(
        "annotate", "in.txt", "--concept", "bravery", "--out", "out.csv", "--llm-model", model, "--llm-base-url", url,
        "--llm-cache", tmp_path / "cache", "--llm-max-tokens", "24", "--llm-retries", "1", "--llm-wait", "0.1",
        "--concurrency", "1",
    )  # fmt: skip
    assert done.code == 1, done.stderr
    assert "No sentence got a valid grade" in done.stderr
    assert "out.unlabelled.csv" in done.stderr
    with (tmp_path / "out.unlabelled.csv").open(newline="") as handle:
        aside = list(csv.DictReader(handle))
    assert [row["sentence"] for row in aside] == SENTENCES
    assert all(row["reason"] for row in aside)
    assert (tmp_path / "out.csv").read_text() == "sentence,concept_strength_label\n"
