"""Attributions over tokens: complete, and equal to explicit computations on a tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conceptatlas.base.errors import InputError
from conceptatlas.evidence.tensors import SAETensors
from conceptatlas.evidence.token_attribution import attribute_tokens
from conceptatlas.saes import resolve_saes
from conceptatlas.subjects import LanguageSubject, load_subject
from tests.helpers.tiny_models import tiny_model
from tests.helpers.tiny_saes import write_saelens

SITE = "blocks.1.hook_resid_post"
TEXT = "She told him that the bag was new"


@pytest.fixture(scope="module", params=["gemma2", "qwen2"])
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[LanguageSubject, SAETensors]:
    folder: Path = tmp_path_factory.mktemp(request.param)
    subject = load_subject(str(tiny_model(request.param, folder / "model")), device="cpu")
    write_saelens(folder / "sae", "jumprelu", d_in=32, d_sae=24)
    (source,) = resolve_saes([str(folder / "sae")])
    return subject, SAETensors(source.load_encoder("cpu"), source.load_decoder("cpu"))


def test_integrated_gradients_are_complete(world: tuple[LanguageSubject, SAETensors]) -> None:
    subject, sae = world
    ids = subject.tokenize([TEXT]).token_ids[0]
    for feature in (0, 7):
        found = attribute_tokens(subject, sae, SITE, feature, ids, steps=128)
        difference = found.score - found.baseline
        assert sum(found.integrated_gradients) == pytest.approx(difference, rel=0.01, abs=0.01 * abs(found.score))
        assert len(found.tokens) == len(ids) == len(found.input_times_gradient) == len(found.leave_one_out)


def test_leaving_one_out_and_the_score_are_explicit_runs(world: tuple[LanguageSubject, SAETensors]) -> None:
    subject, sae = world
    ids = subject.tokenize([TEXT]).token_ids[0]
    feature = 3

    def score(tokens: Any) -> float:
        with torch.no_grad():
            hidden = subject.hf_model(
                torch.tensor(np.asarray(tokens, dtype=np.int64))[None], output_hidden_states=True
            ).hidden_states[2]
        return float(sae.preactivation(hidden[0, -1:], feature)[0])

    found = attribute_tokens(subject, sae, SITE, feature, ids, steps=4)
    assert found.score == pytest.approx(score(ids), abs=1e-4)
    first = 1 if subject.bos != "none" else 0
    for place in range(first, len(ids) - 1):
        assert found.leave_one_out[place] == pytest.approx(score(ids) - score(np.delete(ids, place)), abs=1e-4)
    assert found.leave_one_out[-1] == 0


def test_input_times_gradient_is_the_slope_along_each_embedding(world: tuple[LanguageSubject, SAETensors]) -> None:
    subject, sae = world
    ids = subject.tokenize([TEXT]).token_ids[0]
    from conceptatlas.evidence.token_attribution import _embeddings, _score

    found = attribute_tokens(subject, sae, SITE, 5, ids, steps=2)
    base = _embeddings(subject, ids)
    step = 1e-3
    for place in (1, len(ids) - 1):
        up, down = base.clone(), base.clone()
        up[0, place] *= 1 + step
        down[0, place] *= 1 - step
        with torch.no_grad():
            pair = _score(subject, sae, SITE, 5, ids, torch.cat([up, down]))
        slope = float(pair[0] - pair[1]) / (2 * step)
        assert found.input_times_gradient[place] == pytest.approx(slope, abs=5e-3)


def test_one_token_has_nothing_to_attribute_to(world: tuple[LanguageSubject, SAETensors]) -> None:
    subject, sae = world
    with pytest.raises(InputError, match="nothing to attribute to"):
        attribute_tokens(subject, sae, SITE, 0, np.array([5], dtype=np.int32))
