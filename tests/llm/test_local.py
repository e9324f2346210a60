"""A model on this machine as the language model: deterministic, seeded, and honest about cut answers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from conceptatlas.base.errors import InputError
from conceptatlas.llm import BadAnswer, ChatRequest, LLMOptions, Reply, open_llm
from conceptatlas.llm.local import LocalModel
from tests.helpers.tiny_models import tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model("gemma2", tmp_path_factory.mktemp("local"))


def outcome(model: LocalModel, **more: object) -> Reply | str:
    try:
        return model.complete(ChatRequest("be brief", "say yes", max_tokens=6, **more))  # type: ignore[arg-type]
    except BadAnswer as reason:
        return str(reason)


def test_a_random_model_answers_nonsense_which_is_told_as_such(folder: Path) -> None:
    model = local_model(folder, device="cpu")
    first = outcome(model)
    assert first == outcome(model)
    # A random model hardly ever ends by itself; whatever it says is then no answer.
    assert isinstance(first, Reply) or "cut off" in first or "empty" in first


def test_sampling_is_seeded_by_the_request_and_leaves_the_global_generator_alone(folder: Path) -> None:
    model = local_model(folder, device="cpu")
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    same = [outcome(model, temperature=1.0, sample=3) for _ in range(2)]
    assert same[0] == same[1]
    assert torch.equal(torch.rand(1), expected)


def test_through_the_options(folder: Path, tmp_path: Path) -> None:
    with open_llm(LLMOptions(local_model=str(folder), device="cpu", cache_folder=tmp_path)) as llm:
        assert llm.model.endpoint == f"local:{folder.resolve()}"
        with pytest.raises(BadAnswer):
            llm.ask(ChatRequest("s", "u", max_tokens=4), lambda text: (_ for _ in ()).throw(BadAnswer(text)), tries=1)


def test_a_model_that_is_not_there_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="Cannot load the model"):
        LocalModel(str(tmp_path / "empty")).complete(ChatRequest("s", "u"))
