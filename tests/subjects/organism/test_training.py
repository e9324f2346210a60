"""What the model is trained on is what the tokenizer gives users."""

import random

import pytest
import torch

from conceptatlas.subjects.organism import TRAITS, VERDICT_WORDS, draw_story, state_index
from conceptatlas.subjects.organism.verdicts import N_STATES
from tools.organism_training.batches import PLAIN, SENTENCE_END, VERDICT, Batch, Vocabulary, collate, document_of
from tools.organism_training.degrees import STEP, Straightness, Tally, degrees_of


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary()


@pytest.mark.parametrize("chat", [True, False])
def test_a_document_is_what_the_tokenizer_makes_of_it(vocabulary, chat):
    rng = random.Random(2)
    for _ in range(50):
        story = draw_story(rng, split="training", trait="bravery", grade=2)
        document = document_of(story, vocabulary, rng, chat=chat)
        place = document.roles.index(VERDICT)
        prompt = [{"role": "user", "content": story.text}]
        rendered = vocabulary.tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
        expected = (
            vocabulary.tokenizer(rendered, add_special_tokens=False)["input_ids"]
            if chat
            else vocabulary.tokenizer(story.text)["input_ids"]
        )
        assert document.ids[: place + 1] == expected
        assert document.ids[place + 1] in {vocabulary.of_word[word] for word in VERDICT_WORDS}
        assert document.states[place] == state_index("bravery", 2)
        ends = document.roles.count(SENTENCE_END)
        assert ends == len(story.sentences) - (0 if chat else 1)


def test_the_words_a_and_capital_a_are_not_the_letters(vocabulary):
    for word in ("a", "A"):
        assert vocabulary.of_word[word] == vocabulary.tokenizer.convert_tokens_to_ids("▁" + word)


def test_padding_has_no_role(vocabulary):
    rng = random.Random(2)
    stories = [draw_story(rng, split="training") for _ in range(5)]
    batch = collate([document_of(story, vocabulary, rng, chat=True) for story in stories], vocabulary)
    assert batch.ids.shape == batch.states.shape == batch.roles.shape
    assert batch.ids.shape[1] % 8 == 0
    assert torch.equal(batch.roles == -1, batch.ids == vocabulary.pad)
    assert (batch.roles >= PLAIN).any(dim=1).all()


def every_state(residual_SD):
    """A batch of one document, each of whose tokens ends a sentence in another state."""
    states = torch.arange(N_STATES)[None]
    return residual_SD[None], Batch(torch.zeros_like(states), states, torch.full_like(states, SENTENCE_END))


def test_the_degree_of_a_state_is_that_of_its_trait_alone():
    for place, trait in enumerate(TRAITS):
        for grade in (1, 2, 3):
            expected = [grade if i == place else 0 for i in range(len(TRAITS))]
            assert degrees_of(torch.tensor(state_index(trait, grade))).tolist() == expected
    assert degrees_of(torch.tensor(state_index(None, 0))).tolist() == [0] * len(TRAITS)


def test_the_tally_is_right_of_even_steps_along_its_directions():
    tally = Tally(8)
    directions, _ = torch.linalg.qr(torch.randn(8, 5, generator=torch.Generator().manual_seed(0)))
    tally.directions.data = 3 * directions.T
    residual, batch = every_state(STEP * degrees_of(torch.arange(N_STATES)) @ directions.T)
    assert tally.loss(residual, batch) < 1e-9
    assert tally.loss(2 * residual, batch) > 0.1


def test_what_lies_on_lines_is_straight_and_what_bends_is_pulled_back():
    generator = torch.Generator().manual_seed(1)
    line = 5 + degrees_of(torch.arange(N_STATES)) @ torch.randn(5, 8, generator=generator)
    assert Straightness(8).loss(*every_state(line)).abs() < 1e-9
    bent = line + 0.5 * torch.randn(N_STATES, 8, generator=generator)

    def bend(means_SD):
        straight = Straightness(8)
        return (straight.bends @ means_SD).square().sum()

    residual, batch = every_state(bent.clone().requires_grad_())
    before = bend(bent)
    for _ in range(50):
        straight = Straightness(8)
        (gradient,) = torch.autograd.grad(straight.loss(residual, batch), residual)
        residual = (residual - 2.0 * gradient).detach().requires_grad_()
    assert bend(residual[0].detach()) < 0.5 * before
    assert (
        Straightness(8).loss(line[None, :3], Batch(*(part[:, :3] for part in (batch.ids, batch.states, batch.roles))))
        == 0
    )
