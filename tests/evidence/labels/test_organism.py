"""The built-in model, whose grammar knows which words belong to a trait: are its best features named by them?"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from conceptatlas.evidence.labels import LabelOptions, Prepared, finish_labels, prepare_labels
from conceptatlas.llm import LLMOptions, open_llm
from conceptatlas.ranking import rank
from conceptatlas.recording import record
from conceptatlas.subjects.organism import TRAITS, Mix, draw_any_story, trait_words
from tests.evidence.labels.judges import judge, knows
from tests.llm.scripted_server import Answer, Request, ScriptedServer

N_STORIES = 800
LEXICAL = Mix(relational=0.0, told=0.0)
# Ranking is not what is tested here.
RANK = {"permutations": 0, "resplits": 0, "baselines": False, "top_n": 1}


@pytest.fixture(scope="module")
def best(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Prepared]:
    """The best feature of each trait, with its examples among held-out stories whose acts are lexical and told as facts.

    A relational act has no word of its own, so that no judge of words can see it.
    """
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("organism")
    rng = random.Random(0)
    stories = [draw_any_story(rng, split="held-out", mix=LEXICAL).text for _ in range(N_STORIES)]
    found = {}
    for trait in TRAITS:
        recording = record(
            f"builtin:{trait}",
            "organism",
            "organism",
            folder / f"rec-{trait}",
            keep="final",
            hidden="none",
            device="cpu",
        )
        ranking = rank(recording, folder / f"rank-{trait}", **RANK)  # type: ignore[arg-type]
        found[trait] = prepare_labels(
            ranking, stories, model="organism", saes=["organism"], top_n=1, options=LabelOptions(device="cpu")
        )
    return found


@pytest.mark.parametrize("trait", TRAITS)
def test_search_labels_hold_a_word_of_the_trait(best: dict[str, Prepared], trait: str) -> None:
    (label,) = best[trait].labels
    assert set(label.keywords) & trait_words(trait)  # type: ignore[arg-type]
    assert len((label.label or "").split()) < 10


@pytest.mark.parametrize("trait", TRAITS)
def test_a_judge_that_knows_the_words_detects_the_feature(
    best: dict[str, Prepared], trait: str, tmp_path: Path
) -> None:
    with ScriptedServer(judge(knows(trait_words(trait)))) as server:  # type: ignore[arg-type]
        accuracy = detection(best[trait], server, tmp_path / "one")
        assert accuracy is not None
        assert accuracy >= 0.85
        server.script = always_the_same
        assert detection(best[trait], server, tmp_path / "two") == 0.5


def detection(prepared: Prepared, server: ScriptedServer, folder: Path) -> float | None:
    folder.mkdir()
    with open_llm(LLMOptions(model="m", base_url=server.url, cache_folder=folder / "cache")) as llm:
        (label,) = finish_labels(prepared, folder, options=LabelOptions(device="cpu"), llm=llm).labels
    assert label.detection.n == 40
    return label.detection.accuracy


def always_the_same(request: Request) -> Answer:
    return judge(lambda _text: True)(request)
