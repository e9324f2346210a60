"""A tiny model, its loaded subject and a few items."""

from __future__ import annotations

import pytest
import torch

from conceptatlas.concepts import build_concept
from conceptatlas.subjects import load_subject
from tests.helpers.tiny_models import tiny_model
from tests.recording.standins import MadeSAE

TEXTS = [
    "I lied to my friend about the money.",
    "She told him that the bag was new when it was old; he believed her.",
    "Hi 🎉 you",
    "no",
    "They carried the stranger home through the rain without a word.",
    "What would you have done?",
    "The quick brown fox",
]
LABELS = [3, 2, 1, 0, 0, 1, 2]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def gemma_path(models):
    return tiny_model("gemma2", models)


@pytest.fixture(scope="session")
def gemma(gemma_path):
    return load_subject(str(gemma_path), device="cpu")


@pytest.fixture
def concept():
    return build_concept("tiny", TEXTS, LABELS, groups=["x", None, None, "x", None, None, None])


@pytest.fixture
def saes():
    return [
        MadeSAE("low", "blocks.0.hook_resid_post", 0, seed=1, threshold=0.5),
        MadeSAE("high", "blocks.2.hook_resid_post", 2, seed=2, threshold=2.0, d_sae=70),
        MadeSAE("again", "blocks.0.hook_resid_post", 0, seed=3, threshold=9.0, average_l0=71.0, neuronpedia_id="m/0"),
    ]
