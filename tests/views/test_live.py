"""Trying a text on a real (tiny, random) model: the figures are those that a recording of the same text holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import conceptatlas as ca
from conceptatlas.base.errors import InputError
from conceptatlas.concepts import build_concept
from conceptatlas.evidence import FeatureRef, column_of_rows
from conceptatlas.recording import Recording
from conceptatlas.views.explorer.live import Engine, Live, first_turn
from conceptatlas.views.study_folder import Study
from tests.helpers.tiny_models import tiny_model
from tests.helpers.tiny_saes import write_saelens

TEXTS = ["He told her the plain truth .", "She hid the bill from her friend .", "They had tea ."]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    folder = tmp_path_factory.mktemp("live")
    model = tiny_model("gemma2", folder / "model")
    sae = write_saelens(folder / "sae", "jumprelu", d_in=32, d_sae=24)
    return ca.record(build_concept("c", TEXTS, [0, 3, 1]), str(model), str(sae), folder / "rec", device="cpu")


def features(recording: Recording) -> tuple[FeatureRef, ...]:
    (sae,) = recording.saes
    counts = recording.columns(sae.slug).counts()
    chosen = [int(i) for i in np.argsort(-counts)[:3]] + [int(np.argmin(counts))]
    return tuple(FeatureRef(sae.slug, sae.sae_id, sae.layer, sae.average_l0, index) for index in chosen)


def test_a_text_fires_as_it_did_when_it_was_recorded(recording: Recording) -> None:
    said: list[str] = []
    chosen = features(recording)
    engine = Engine(Study.open(recording.path))
    for item, text in enumerate(TEXTS):
        tried = engine.activations(text, chosen, said.append)
        rows = recording.row_slice(item)
        assert "".join(tried.pieces) == text
        for acts, feature in zip(tried.acts_KP, chosen, strict=True):
            np.testing.assert_allclose(acts, column_of_rows(recording, feature)[rows], atol=1e-5)
    assert any(status.startswith("loading the model") for status in said)
    assert sum(status.startswith("loading the model") for status in said) == 1  # once, then kept


def test_a_dose_of_zero_changes_nothing_and_a_large_one_does(recording: Recording) -> None:
    engine = Engine(Study.open(recording.path))
    feature = features(recording)[0]
    still = engine.steered(TEXTS[0], feature, 0.0, lambda _: None)
    assert still.before == still.after
    assert any(engine.steered(TEXTS[0], feature, dose, lambda _: None).after != still.before for dose in (-8.0, 8.0))


def test_a_text_of_no_tokens_and_a_model_that_is_gone_are_said(recording: Recording, tmp_path: Path) -> None:
    live = Live(Study.open(recording.path))
    with pytest.raises(InputError, match="type a sentence"):
        live.try_text("   ", features(recording))
    with pytest.raises(InputError, match="No feature is chosen"):
        live.try_text("He lied.", ())
    job = live.try_text("He lied.", features(recording))
    live._worker.shutdown(wait=True)
    assert job.done
    assert job.error is None


def test_a_turn_ends_where_the_model_ends_it() -> None:
    assert first_turn(" unusual.<end_of_turn>\n<start_of_turn> model") == " unusual."
    assert first_turn("yes<|eot_id|>no") == "yes"
    assert first_turn("plain") == "plain"
