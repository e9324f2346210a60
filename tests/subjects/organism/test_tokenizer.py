"""The tokenizer: a token per word, round trips, Gemma's chat form."""

import random

import pytest

from conceptatlas.subjects.organism import VERDICT_WORDS, build_tokenizer, draw_any_story, grammar_words


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def test_every_word_is_one_token(tokenizer):
    wrong = [word for word in grammar_words() if len(tokenizer(word, add_special_tokens=False)["input_ids"]) != 1]
    assert wrong == []
    assert len({tokenizer.convert_tokens_to_ids("▁" + word) for word in VERDICT_WORDS}) == len(VERDICT_WORDS)


@pytest.mark.parametrize("split", ["training", "held-out"])
def test_a_story_is_one_token_per_word_and_comes_back(tokenizer, split):
    rng = random.Random(1)
    for _ in range(100):
        story = draw_any_story(rng, split=split)
        encoded = tokenizer(story.text, return_offsets_mapping=True)
        assert len(encoded["input_ids"]) == len(story.words) + 1
        assert encoded["input_ids"][0] == tokenizer.bos_token_id
        assert tokenizer.decode(encoded["input_ids"], skip_special_tokens=True) == story.text
        ends = [end for _, end in encoded["offset_mapping"][1:]]
        assert ends == sorted(ends)
        assert ends[-1] == len(story.text)


@pytest.mark.parametrize("text", ["Héllo wörld! it's 42", "日本語", "\U0001f600 ok", "zzzz", "a b  c", "Nun, so: (x)?"])
def test_any_text_comes_back_without_unknown_tokens(tokenizer, text):
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_chat_template_puts_the_story_in_the_users_turn_with_one_bos(tokenizer):
    text = "Ann lied to Ben about the bag."
    messages = [{"role": "user", "content": text}]
    rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert rendered == f"<bos><start_of_turn>user\n{text}<end_of_turn>\n<start_of_turn>model\n"
    ids = tokenizer(rendered, add_special_tokens=False)["input_ids"]
    assert ids.count(tokenizer.bos_token_id) == 1
    assert tokenizer.convert_ids_to_tokens(ids)[-3:] == ["<start_of_turn>", "▁model", "\n"]
    again = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert again == ids


def test_a_verdict_is_the_models_turn_and_a_system_turn_is_refused(tokenizer):
    turns = [{"role": "user", "content": "Ann met Ben."}, {"role": "assistant", "content": "ordinary."}]
    rendered = tokenizer.apply_chat_template(turns, tokenize=False)
    assert rendered.endswith("<start_of_turn>model\nordinary.<end_of_turn>\n")
    with pytest.raises(Exception, match="System role"):
        tokenizer.apply_chat_template([{"role": "system", "content": "x"}], tokenize=False)
