"""A tiny model with an SAE whose features each fire on one known word, and texts that hold the words."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from conceptatlas.subjects import LanguageSubject, Site, load_subject
from tests.helpers.tiny_models import tiny_model
from tests.helpers.tiny_saes import SAE_LENS_VERSION

SITE = "blocks.0.hook_resid_pre"
WORDS = ("brave", "bag", "rain", "door")  # features 0 to 3; feature 4 never fires
FILLER = [
    "the",
    "man",
    "said",
    "that",
    "she",
    "went",
    "home",
    "and",
    "he",
    "would",
    "have",
    "done",
    "nothing",
    "about",
    "it",
]


@dataclass(frozen=True)
class Planted:
    """Where everything is."""

    model: Path
    sae: Path
    texts: Path
    folder: Path


def write_texts(path: Path, n: int, seed: int = 0) -> list[str]:
    """Write a text a line: every third one holds one of the words, within filler."""
    rng = np.random.default_rng(seed)
    texts = []
    for i in range(n):
        words = [str(word) for word in rng.choice(FILLER, size=int(rng.integers(6, 14)))]
        if i % 3 == 0:
            words.insert(int(rng.integers(1, len(words))), WORDS[(i // 3) % len(WORDS)])
        texts.append(" ".join(["She", *words]))
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return texts


def write_planted_sae(folder: Path, subject: LanguageSubject, words: tuple[str, ...]) -> Path:
    """Write an SAE whose feature f fires where the token of ``words[f]`` stands (and one that never fires)."""
    states = []
    for word in words:
        tokens = subject.tokenize([f"She {word}"])
        x = subject.hidden_states(tokens.token_ids, [Site.parse(SITE)], tokens.rows)[SITE]
        states.append(x[-1])
    x_FD = torch.stack(states)
    d_sae = len(words) + 1
    encoder = torch.zeros(subject.d_model, d_sae)
    encoder[:, : len(words)] = torch.linalg.pinv(x_FD)  # 1 at its own word's last token, 0 at the others'
    config = {
        "d_in": subject.d_model, "d_sae": d_sae, "dtype": "float32", "device": "cpu", "apply_b_dec_to_input": False,
        "normalize_activations": "none", "reshape_activations": "none", "architecture": "jumprelu",
        "metadata": {"sae_lens_version": SAE_LENS_VERSION, "hook_name": SITE, "model_name": "tiny"},
    }  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "cfg.json").write_text(json.dumps(config))
    tensors = {
        "W_enc": encoder.contiguous(), "W_dec": encoder.T.contiguous(), "b_enc": torch.zeros(d_sae),
        "b_dec": torch.zeros(subject.d_model), "threshold": torch.full((d_sae,), 0.95),
    }  # fmt: skip
    save_file(tensors, folder / "sae_weights.safetensors")
    return folder


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("labels")
    model = tiny_model("gemma2", folder)
    sae = write_planted_sae(folder / "sae", load_subject(str(model), device="cpu"), WORDS)
    write_texts(folder / "texts.txt", 360)
    return Planted(model, sae, folder / "texts.txt", folder)


@pytest.fixture(scope="session")
def subject(planted: Planted) -> LanguageSubject:
    return load_subject(str(planted.model), device="cpu")
