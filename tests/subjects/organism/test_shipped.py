"""The shipped model and SAEs: they load as what they claim to be, are right, and are small."""

import json
import random

import pytest
import torch

from conceptatlas.base.errors import WorkError
from conceptatlas.subjects.organism import (
    TRAITS,
    VERDICT_WORDS,
    build_tokenizer,
    card_path,
    draw_any_story,
    organism_path,
    paths,
    prompts_path,
    saes_path,
)

MEGABYTE = 1e6


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(organism_path())


@pytest.fixture(scope="module")
def model():
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        organism_path(), dtype=torch.float32, attn_implementation="eager"
    ).eval()


def size_of(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_model_and_saes_are_under_eight_megabytes_together():
    assert size_of(organism_path()) + size_of(saes_path()) < 8 * MEGABYTE


def test_the_model_is_gemma_2_of_about_a_million_parameters(model):
    assert type(model).__name__ == "Gemma2ForCausalLM"
    assert 5e5 < sum(parameter.numel() for parameter in model.parameters()) < 1.5e6
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


def test_the_shipped_tokenizer_is_the_one_that_the_grammar_gives(tokenizer):
    built = build_tokenizer()
    assert tokenizer.get_vocab() == built.get_vocab()
    assert tokenizer.chat_template == built.chat_template
    texts = ["Ann lied to Ben about the bag.", "Héllo 42", "x\ny"]
    assert [tokenizer(t)["input_ids"] for t in texts] == [built(t)["input_ids"] for t in texts]


@torch.no_grad()
def test_the_narrator_shows_the_degree_on_held_out_stories(model, tokenizer):
    torch.set_num_threads(1)
    rng = random.Random(123)
    words = torch.tensor([tokenizer.convert_tokens_to_ids("▁" + word) for word in VERDICT_WORDS])
    said, degrees = [], []
    for _ in range(200):
        story = draw_any_story(rng, split="held-out")
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": story.text}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )["input_ids"]
        log_p = model(input_ids=ids).logits[0, -1].log_softmax(-1)[words][3:].reshape(len(TRAITS), 3)
        said.append(log_p @ torch.tensor([1.0, 2.0, 3.0]))
        degrees.append(torch.tensor(story.levels[-1].degrees))
    for own, degree in zip(torch.stack(said, 1), torch.stack(degrees, 1), strict=True):
        assert torch.corrcoef(torch.stack([own, degree]))[0, 1] >= 0.75


def test_every_sae_loads_in_saelens_with_unit_decoder_rows_and_its_measured_l0():
    from sae_lens import SAE

    folders = sorted(path.parent for path in saes_path().rglob("cfg.json"))
    assert len(folders) == 8
    for folder in folders:
        sae = SAE.load_from_disk(folder)
        assert sae.cfg.architecture() == "jumprelu"
        assert sae.cfg.metadata.hook_name == folder.parent.name
        assert sae.cfg.metadata.model_name == "organism"
        assert sae.cfg.metadata.l0 > 0
        torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(sae.cfg.d_sae), atol=2e-3, rtol=0)


def test_the_card_says_that_the_targets_are_met():
    figures = json.loads(card_path().with_suffix(".json").read_text())
    assert all(figures["verdict"][trait] >= 0.8 for trait in TRAITS)
    assert figures["verdict"]["relational"] >= 0.8
    for sae_id, quality in figures["saes"].items():
        if not sae_id.startswith("blocks.0."):
            assert quality["fvu"] <= 0.2
    for trait, methods in figures["methods"].items():
        assert methods["the truth"]["auroc"] == 1.0
        assert methods["trained feature"] == figures["final"][trait]["reading"]
        assert methods["trained feature"]["concordance"] > methods["random directions"]["concordance"]
    effects = [entry["effect"] for entry in figures["effects"].values()]
    bars = [max(e["random_features_p95"], e["random_directions_p95"]) for e in effects]
    assert sum(e["rise"] >= 1 and e["rise"] >= 2 * bar for e, bar in zip(effects, bars, strict=True)) >= 3


def test_the_prompts_have_content_and_label():
    rows = [json.loads(line) for line in prompts_path().read_text().splitlines()]
    assert len(rows) == 60
    assert all(set(row) == {"content", "label"} and row["content"] for row in rows)
    assert len({row["label"] for row in rows}) == 6


def test_a_missing_file_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "DATA", tmp_path)
    with pytest.raises(WorkError, match="train_organism"):
        organism_path()
