from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from conceptatlas.concepts import load_concept
from conceptatlas.subjects import LanguageSubject, load_subject
from conceptatlas.training import TrainOptions

torch.set_num_threads(1)

SITES = ("blocks.1.hook_resid_post", "blocks.2.hook_resid_post")


def small(**options: Any) -> TrainOptions:
    """Three buffers of a few steps each, and one SAE a site unless more is asked for."""
    few: dict[str, Any] = {
        "sites": SITES, "widths": (64,), "k": (6,), "tokens": 1280, "batch": 64, "buffer_rows": 512, "context": 32,
        "eval_contexts": 3, "checkpoint_minutes": 0.0,
    }  # fmt: skip
    return TrainOptions(**(few | options))


@pytest.fixture(scope="session")
def organism() -> LanguageSubject:
    return load_subject("organism", device="cpu")


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return load_concept("builtin:dishonesty-small").texts


@pytest.fixture(scope="session")
def trained(
    organism: LanguageSubject, texts: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Train with `small` options, once for each set of them, and return the folder."""
    from conceptatlas.training import train

    done: dict[str, Path] = {}

    def run(**options: Any) -> Path:
        key = repr(sorted(options.items()))
        if key not in done:
            done[key] = tmp_path_factory.mktemp("trained") / "saes"
            train(organism, texts, done[key], small(**options))
        return done[key]

    return run


def weights(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every SAE's weights below a folder."""
    return {
        path.parent.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.safetensors"))
    }
