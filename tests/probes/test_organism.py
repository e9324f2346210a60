"""What the probes must show on the built-in model, whose truth is known."""

from __future__ import annotations

import pytest
import torch

from conceptatlas.concepts import TRAITS
from conceptatlas.recording import record
from conceptatlas.subjects import load_subject
from tests.probes.organism_figures import concept_figures, feature_figures


@pytest.fixture(scope="module")
def subject():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield load_subject("organism", device="cpu")
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=TRAITS)
def rec(request, subject, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return record(f"builtin:{request.param}", subject, "organism", folder / "rec", hidden="all", hidden_sites="all")


def test_raw_states_predict_four_grades_and_more_than_words_do(rec, tmp_path):
    found = concept_figures(rec, tmp_path)
    # The grades carry the graders' errors, so that nothing can reach 1; the commonest grade alone reaches about a half.
    assert found.accuracy >= max(0.6, found.majority + 0.1)
    assert found.relational >= found.bag_of_words + 0.15
    assert found.shuffled < 0.55


def test_the_best_feature_is_read_from_the_hidden_state_of_its_layer(rec, tmp_path):
    found = feature_figures(rec, tmp_path)
    assert found.active_auroc >= 0.95
    assert found.r2_shuffled < 0.2  # the size's R² is reported beside it, with no floor of its own
