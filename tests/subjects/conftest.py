from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from conceptatlas.subjects.language import LanguageSubject, load_subject
from tests.helpers.tiny_models import tiny_model

torch.set_num_threads(1)

TEXTS = [
    "She told him that the bag was new when it was old.",
    "I lied.",
    "A brave child went back for the cat; the house was already burning! What would you have done?",
]


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tiny-models")


@pytest.fixture(scope="session")
def subject_of(tiny_folder: Path) -> Callable[..., LanguageSubject]:
    """Load a tiny subject of a family, once per session."""
    loaded: dict[Any, LanguageSubject] = {}

    def load(family: str, **options: Any) -> LanguageSubject:
        key = (family, repr(sorted(options.items())))
        if key not in loaded:
            loaded[key] = load_subject(tiny_model(family, tiny_folder, **options), device="cpu")
        return loaded[key]

    return load
