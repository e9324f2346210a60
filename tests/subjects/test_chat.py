"""Token types of chat templates, against positions counted by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from conceptatlas.base.errors import InputError
from conceptatlas.subjects.chat import FAMILIES, ChatFormat, HeaderFamily, register_family
from tests.helpers.tiny_models import gemma_tokenizer, gpt2_tokenizer, llama_tokenizer, qwen_tokenizer

CONTENTS = {
    "plain": "What would you have done?",
    "control": "I type <|im_start|>assistant\n and <start_of_turn>model and "
    "<|start_header_id|>assistant<|end_header_id|>\n\n here",
    "emoji": "A brave 👩‍🚒🔥 child — naïve café",
    "rtl": "שלום עולם، مرحبا بالعالم",
    "newlines": "\n\nline\n\n\nline\n",
    "role": "assistant\n\nmodel\nassistant",
}
TOKENIZERS: dict[str, Callable[[], Any]] = {
    "llama3": llama_tokenizer,
    "chatml": qwen_tokenizer,
    "gemma": gemma_tokenizer,
}
QWEN_SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."


def header_ids(tokenizer: Any, family: str) -> list[int]:
    return list(tokenizer(FAMILIES[family].header, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("family", TOKENIZERS)
@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS.keys())
def test_positions_are_those_counted_by_hand(family: str, content: str) -> None:
    tokenizer = TOKENIZERS[family]()
    chat = ChatFormat(tokenizer, name=family)
    assert chat.family is FAMILIES[family]
    prompt = chat.encode(content, chat.token_types)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    assert prompt.ids.tolist() == tokenizer(text, add_special_tokens=False)["input_ids"]
    tail = header_ids(tokenizer, family)
    assert prompt.ids[-len(tail) :].tolist() == tail
    for kind, part in FAMILIES[family].tokens.items():
        # By hand: the header's tokens decoded one more at a time until the part is complete.
        known = FAMILIES[family].header
        end = (known.rindex(part) if kind == "newline" else known.index(part)) + len(part)
        count = next(n for n in range(1, len(tail) + 1) if len(tokenizer.decode(tail[:n])) >= end)
        assert prompt.positions[kind] == len(prompt.ids) - len(tail) + count - 1
    assert prompt.positions["last"] == len(prompt.ids) - 1
    specials = [token for token in tokenizer.all_special_tokens if token in content]
    assert set(prompt.control) >= set(specials)


def test_llama_positions_spelt_out() -> None:
    tokenizer = llama_tokenizer()
    chat = ChatFormat(tokenizer, name="llama")
    prompt = chat.encode("The fox", ["asst", "endheader", "newline"])
    tokens = tokenizer.convert_ids_to_tokens(prompt.ids)
    ends = [index for index, token in enumerate(tokens) if token == "<|end_header_id|>"]
    assert prompt.positions["endheader"] == ends[-1]
    assert prompt.positions["asst"] == ends[-1] - 1
    assert prompt.positions["newline"] == len(tokens) - 1
    assert tokens.count("<|begin_of_text|>") == 1


def test_system_prompts() -> None:
    tokenizer = qwen_tokenizer()
    plain = ChatFormat(tokenizer, name="qwen")
    told = ChatFormat(tokenizer, name="qwen", system="Be brave.")
    short, long = plain.encode("Hello", ["asst"]), told.encode("Hello", ["asst"])
    added = tokenizer("<|im_start|>system\nBe brave.<|im_end|>\n", add_special_tokens=False)["input_ids"]
    assert long.ids.tolist() == [*added, *short.ids.tolist()]
    assert long.positions["asst"] == short.positions["asst"] + len(added)
    assert plain.default_system == ""


def test_a_default_system_prompt_is_reported() -> None:
    tokenizer = qwen_tokenizer()
    tokenizer.chat_template = (
        "{% if messages[0]['role'] != 'system' %}<|im_start|>system\n" + QWEN_SYSTEM + "<|im_end|>\n{% endif %}"
    ) + tokenizer.chat_template
    assert ChatFormat(tokenizer, name="qwen").default_system == QWEN_SYSTEM
    assert ChatFormat(tokenizer, name="qwen", system="Mine.").default_system == ""


def test_a_template_that_takes_no_system_prompt() -> None:
    tokenizer = gemma_tokenizer()
    tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        + tokenizer.chat_template
    )
    assert ChatFormat(tokenizer, name="gemma").family is FAMILIES["gemma"]
    with pytest.raises(InputError, match="takes no system prompt"):
        ChatFormat(tokenizer, name="gemma", system="Be brave.")


def test_escaped_control_strings_are_plain_text() -> None:
    tokenizer = qwen_tokenizer()
    content = "I type <|im_start|>assistant here"
    as_control = ChatFormat(tokenizer, name="qwen").encode(content, ["asst"])
    escaped = ChatFormat(tokenizer, name="qwen", escape_control=True).encode(content, ["asst"])
    start = tokenizer.convert_tokens_to_ids("<|im_start|>")
    assert (as_control.ids == start).sum() == 3
    assert (escaped.ids == start).sum() == 2
    assert tokenizer.decode(escaped.ids) == tokenizer.decode(as_control.ids)
    tail = header_ids(tokenizer, "chatml")
    assert escaped.ids[-len(tail) :].tolist() == tail
    assert escaped.positions["asst"] - len(escaped.ids) == as_control.positions["asst"] - len(as_control.ids)
    plain = ChatFormat(tokenizer, name="qwen", escape_control=True).encode("nothing special", ["asst"])
    assert np.array_equal(plain.ids, ChatFormat(tokenizer, name="qwen").encode("nothing special", ["asst"]).ids)


def test_long_prompts_are_errors_or_right() -> None:
    tokenizer = llama_tokenizer()
    chat = ChatFormat(tokenizer, name="llama")
    content = "x " * 4000
    prompt = chat.encode(content, ["newline"])
    assert len(prompt.ids) > 4000
    assert prompt.positions["newline"] == len(prompt.ids) - 1
    with pytest.raises(InputError, match=r"at most 4000 are allowed.*raise --max-tokens"):
        chat.encode(content, ["newline"], max_tokens=4000)


def test_types_that_a_template_does_not_have() -> None:
    chat = ChatFormat(gemma_tokenizer(), name="gemma", extra={"before": -3})
    assert chat.check_types([]) == ["model", "newline", "before"]
    with pytest.raises(InputError, match="It has: model, newline, before, last"):
        chat.check_types(["endheader"])
    prompt = chat.encode("Hi", ["before", "last"])
    assert prompt.positions == {"before": len(prompt.ids) - 3, "last": len(prompt.ids) - 1}
    with pytest.raises(InputError, match="outside a prompt"):
        ChatFormat(gemma_tokenizer(), name="gemma", extra={"far": -999}).encode("Hi", ["far"])


def test_templates_that_cannot_serve() -> None:
    with pytest.raises(InputError, match="has no chat template"):
        ChatFormat(gpt2_tokenizer(), name="gpt2")
    tokenizer = qwen_tokenizer()
    tokenizer.chat_template = (
        "{% if add_generation_prompt %}A{% endif %}{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    with pytest.raises(InputError, match="does not append its generation prompt"):
        ChatFormat(tokenizer, name="odd")


def test_a_template_without_a_header_has_the_last_token() -> None:
    tokenizer = qwen_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}[INST] {{ m.content }} [/INST]{% endfor %}"
    chat = ChatFormat(tokenizer, name="mistral")
    assert chat.default_types == ["last"]
    prompt = chat.encode("The fox", ["last"])
    assert prompt.positions["last"] == len(prompt.ids) - 1


def test_families_refuse_duplicates_and_nonsense() -> None:
    with pytest.raises(ValueError, match="already"):
        register_family(HeaderFamily("chatml", "<x>", {}))
    with pytest.raises(ValueError, match="not in its header"):
        register_family(HeaderFamily("new", "<x>", {"asst": "assistant"}))
