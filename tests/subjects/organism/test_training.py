"""What the model is trained on is what the tokenizer gives users."""

import random

import pytest
import torch

from conceptatlas.subjects.organism import REMARKS, draw_story
from conceptatlas.subjects.organism.verdicts import remark_weights
from tools.organism_training.batches import PLAIN, SENTENCE_END, VERDICT, Vocabulary, collate, document_of


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
        assert document.ids[place + 1] in {vocabulary.of_word[word] for word in REMARKS}
        level = story.levels[-1]
        assert document.weights[document.states[place]] == remark_weights(
            level.degrees, level.likeness, set(story.words)
        )
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
    assert len(batch.targets) == sum(len(story.sentences) for story in stories)
    torch.testing.assert_close(batch.targets.sum(dim=1), torch.ones(len(batch.targets)))
    assert batch.states.max() == len(batch.targets) - 1
