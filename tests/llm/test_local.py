"""A model on this machine as the language model: the blank of a form, batches, seeds, and honesty about cut answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from conceptatlas.llm import BadAnswer, ChatRequest, Form, LLMOptions, LocalModel, Reply, Stop, open_llm
from conceptatlas.llm.local import render
from tests.helpers.tiny_models import build_model

WORDS = Form('{"label": "', '"}')
CHOICE = Form('{"fits":', "}", options=(" true", " false"))


def local(family: str, **options: Any) -> tuple[LocalModel, Any, Any]:
    """Return a tiny random model as a labeller, and the model and tokenizer themselves."""
    model, tokenizer = build_model(family, **options)
    loaded = SimpleNamespace(hf_model=model, tokenizer=tokenizer)
    return LocalModel("tiny", "local:tiny", lambda: loaded), model, tokenizer


def following(model: Any, successors: Mapping[int, int]) -> None:
    """Make a Llama say after each token of ``successors`` the token that it names, whatever stood before."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.model.norm.weight.fill_(1.0)
        embed = model.model.embed_tokens.weight
        embed.copy_(torch.nn.functional.normalize(torch.randn(embed.shape, generator=generator), dim=1))
        model.lm_head.weight.zero_()
        for token, successor in successors.items():
            model.lm_head.weight[successor] += embed[token]


def ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def outcome(model: LocalModel, **more: Any) -> Reply | str:
    (reply,) = model.answer([ChatRequest("be brief", "say yes", **{"max_tokens": 6, **more})])
    return reply if isinstance(reply, Reply) else str(reply)


# Forms ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ['"', "\n"])
def test_words_end_at_the_closing_quote_or_with_the_line(end: str) -> None:
    labeller, model, tokenizer = local("llama", hidden_size=128)
    start = ids(tokenizer, WORDS.begin)[-1]
    chain = [start, *ids(tokenizer, "brown fox"), *ids(tokenizer, end)]
    following(model, {chain[-1]: start, **dict(pairwise(chain))})  # and so on from the start, if it is let
    reply = outcome(labeller, form=WORDS, max_tokens=30)
    assert isinstance(reply, Reply)
    assert reply.text == '{"label": "brown fox"}'
    assert reply.completion_tokens == len(ids(tokenizer, "brown fox")) + len(ids(tokenizer, end))


def test_words_without_an_end_are_cut_off_and_no_answer() -> None:
    labeller, model, tokenizer = local("llama", hidden_size=128)
    start, (word, *_) = ids(tokenizer, WORDS.begin)[-1], ids(tokenizer, " the")
    following(model, {start: word, word: word})
    assert outcome(labeller, form=WORDS, max_tokens=100) == "the answer was cut off at the longest allowed"
    assert outcome(labeller, form=replace(WORDS, max_tokens=4), max_tokens=100) == (
        "the answer was cut off at the longest allowed"
    )


@pytest.mark.parametrize("wanted", [0, 1])
def test_an_option_is_chosen_by_its_logit(wanted: int) -> None:
    labeller, model, tokenizer = local("llama", hidden_size=128)
    both = [ids(tokenizer, CHOICE.begin + option) for option in CHOICE.options]
    parted = next(i for i, (a, b) in enumerate(zip(*both, strict=False)) if a != b)
    following(model, {both[0][parted - 1]: both[wanted][parted]})
    reply = outcome(labeller, form=CHOICE)
    assert isinstance(reply, Reply)
    assert (reply.text, reply.completion_tokens) == (('{"fits": true}', '{"fits": false}')[wanted], 1)


def test_options_that_one_token_does_not_part_are_an_error() -> None:
    labeller, _, _ = local("llama")
    with pytest.raises(ValueError, match="not told apart"):
        outcome(labeller, form=replace(CHOICE, options=(" true", " true")))


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_a_batch_chooses_as_the_model_itself_does_for_each_question_alone(family: str) -> None:
    """Shared start, padding and positions: 40 questions of many lengths, against the plain forward pass of each."""
    labeller, model, tokenizer = local(family, max_position_embeddings=256, n_positions=256)
    words = ["the", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog", "and", "nobody", "minds", "when"]
    requests = [ChatRequest("judge", " ".join(words[i % 7 : 3 + i % 13]), form=CHOICE) for i in range(40)]
    replies = labeller.answer(requests)
    sides = set()
    for request, reply in zip(requests, replies, strict=True):
        both = [ids(tokenizer, render(tokenizer, request) + CHOICE.begin + option) for option in CHOICE.options]
        parted = next(i for i, (a, b) in enumerate(zip(*both, strict=False)) if a != b)
        with torch.no_grad():
            logits = model(torch.tensor([both[0][:parted]])).logits[0, -1]
        true, false = (float(logits[one[parted]]) for one in both)
        assert isinstance(reply, Reply)
        if abs(true - false) > 1e-3:  # what rounding cannot turn
            sides.add(true > false)
            assert reply.text == ('{"fits": true}' if true > false else '{"fits": false}')
    assert sides


# Free text -----------------------------------------------------------------------------------------------------------


def test_a_random_model_answers_nonsense_which_is_told_as_such() -> None:
    labeller, _, _ = local("gemma2")
    first = outcome(labeller)
    assert first == outcome(labeller)
    # A random model hardly ever ends by itself; whatever it says is then no answer.
    assert isinstance(first, Reply) or "cut off" in first or "empty" in first


def test_sampling_is_seeded_by_the_request_and_leaves_the_global_generator_alone() -> None:
    labeller, _, _ = local("gemma2")
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    same = [outcome(labeller, temperature=1.0, sample=3) for _ in range(2)]
    assert same[0] == same[1]
    assert torch.equal(torch.rand(1), expected)


def test_a_prompt_that_fills_the_context_is_told_and_the_others_are_answered() -> None:
    labeller, _, _ = local("llama")
    long = ChatRequest("s", "the quick brown fox " * 100, form=CHOICE)
    replies = labeller.answer([long, replace(long, user="fox")])
    assert isinstance(replies[0], BadAnswer)
    assert "leave no room" in str(replies[0])
    assert isinstance(replies[1], Reply)


def test_a_model_that_continues_no_text_is_refused() -> None:
    labeller, _, _ = local("bert")
    with pytest.raises(Stop, match="continues no text"):
        outcome(labeller)


# Prompts -------------------------------------------------------------------------------------------------------------


def test_a_template_has_turns_and_a_model_without_one_is_shown_examples() -> None:
    request = ChatRequest("judge", "And this?", form=replace(CHOICE, examples=(("Is it?", " true"),)))
    _, qwen = build_model("qwen2")
    assert render(qwen, request) == (
        "<|im_start|>system\njudge<|im_end|>\n<|im_start|>user\nAnd this?<|im_end|>\n<|im_start|>assistant\n"
    )
    _, gpt2 = build_model("gpt2")
    assert render(gpt2, request) == '<|endoftext|>judge\n\n\nIs it?\n\n{"fits": true}\n\n\nAnd this?\n\n'


def test_instructions_join_the_users_turn_where_a_template_has_no_system() -> None:
    _, tokenizer = build_model("qwen2")
    refuse = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    tokenizer.chat_template = refuse + tokenizer.chat_template
    assert render(tokenizer, ChatRequest("judge", "And this?")).startswith(
        "<|im_start|>user\njudge\n\nAnd this?<|im_end|>\n"
    )


def test_words_that_repeat_an_example_are_no_answer() -> None:
    labeller, model, tokenizer = local("llama", hidden_size=128)
    tokenizer.chat_template = None
    chain = [ids(tokenizer, WORDS.begin)[-1], *ids(tokenizer, "fox"), *ids(tokenizer, "\n")]
    following(model, dict(pairwise(chain)))
    reply = outcome(labeller, form=WORDS, max_tokens=30)
    assert isinstance(reply, Reply)
    assert reply.text == '{"label": "fox"}'
    shown = replace(WORDS, examples=(("What?", "fox"),))
    assert outcome(labeller, form=shown, max_tokens=30) == "the answer 'fox' only repeats an example"


def test_through_the_options(tmp_path: Any) -> None:
    labeller, _, _ = local("gemma2")
    with open_llm(LLMOptions(local_model=labeller, cache_folder=tmp_path)) as llm:
        assert llm.model is labeller
        with pytest.raises(BadAnswer):
            llm.ask(ChatRequest("s", "u", max_tokens=4), lambda text: (_ for _ in ()).throw(BadAnswer(text)), tries=1)
    with open_llm(LLMOptions(local_model=labeller), dry_run=True) as llm, pytest.raises(Stop, match="dry run"):
        llm.ask(ChatRequest("s", "u"), str)
