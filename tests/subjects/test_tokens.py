from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conceptatlas.base.errors import InputError
from conceptatlas.subjects import tokens
from conceptatlas.subjects.language import LanguageSubject
from conceptatlas.subjects.tokens import TokenRules
from tests.helpers import tiny_models
from tests.helpers.tiny_models import FAMILIES

SubjectOf = Callable[..., LanguageSubject]
TEXT = "She told him that the bag was new."

BOS = {
    "gemma2": ("added by the tokenizer", 2),
    "llama": ("added by the tokenizer", 1),
    "mistral": ("added by the tokenizer", 1),
    "qwen2": ("none", None),
    "phi3": ("none", None),
    "gpt2": ("prepended", 400),
    "gpt_neox": ("prepended", 0),
}


@pytest.mark.parametrize("family", BOS)
def test_bos_stands_first_exactly_once_where_the_model_was_trained_with_one(family: str, subject_of: SubjectOf) -> None:
    subject = subject_of(family)
    how, bos = BOS[family]
    assert subject.bos == how
    items = subject.tokenize([TEXT, " leading space", "x"])
    for ids, rows in zip(items.token_ids, items.rows, strict=True):
        assert ids.dtype == np.int32
        if bos is None:
            assert rows.all()
        else:
            assert ids[0] == bos
            assert (ids == bos).sum() == 1
            assert not rows[0]
            assert rows[1:].all()


@pytest.mark.parametrize("family", ["gemma2", "llama", "gpt2", "gpt_neox"])
@pytest.mark.parametrize("times", [1, 2])
def test_a_text_that_spells_the_bos_gets_no_second_one(family: str, times: int, subject_of: SubjectOf) -> None:
    subject = subject_of(family)
    plain = subject.tokenize([TEXT])
    spelled = subject.tokenize([subject.tokenizer.bos_token * times + TEXT])
    np.testing.assert_array_equal(spelled.token_ids[0], plain.token_ids[0])
    np.testing.assert_array_equal(spelled.rows[0], plain.rows[0])


@pytest.mark.parametrize("family", ["gemma2", "llama", "qwen2"])
def test_a_chat_template_goes_through_unharmed(family: str, subject_of: SubjectOf) -> None:
    subject = subject_of(family)
    messages = [{"role": "user", "content": TEXT}]
    text = subject.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = subject.tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    items = subject.tokenize([text])
    assert items.token_ids[0].tolist() == list(ids)
    kept = [subject.tokenizer.convert_ids_to_tokens(int(i)) for i in items.token_ids[0][items.rows[0]]]
    assert not any(token.startswith(("<|", "<start", "<end", "<bos")) for token in kept)


def test_special_tokens_are_masked_by_id_wherever_they_stand(subject_of: SubjectOf) -> None:
    subject = subject_of("gemma2")
    items = subject.tokenize(["one<eos>two<end_of_turn>three"])
    tokens = subject.tokenizer.convert_ids_to_tokens(items.token_ids[0].tolist())
    masked = [token for token, row in zip(tokens, items.rows[0], strict=True) if not row]
    assert masked == ["<bos>", "<eos>", "<end_of_turn>"]
    assert items.positions[0][items.rows[0]].tolist() == list(range(int(items.n_rows[0])))
    assert set(items.positions[0][~items.rows[0]].tolist()) == {-1}


def test_control_tokens_that_are_not_marked_special_are_no_rows() -> None:
    tokenizer = tiny_models.llama_tokenizer()
    tokenizer.add_tokens(["<|reserved_special_token_3|>", "<unused7>", "<tool_call>", "ordinaryword"])
    rules = TokenRules(tokenizer, limit=None, name="m")
    items = rules.tokenize(["a<|reserved_special_token_3|>b<unused7><tool_call>ordinaryword"])
    tokens = tokenizer.convert_ids_to_tokens(items.token_ids[0][items.rows[0]].tolist())
    assert tokens == ["a", "b", "ordinaryword"]


def test_an_unknown_word_is_a_row_unless_its_token_has_another_role(subject_of: SubjectOf) -> None:
    bert = subject_of("bert")
    items = bert.tokenize(["she ж him"])
    assert bert.tokenizer.unk_token_id in items.token_ids[0][items.rows[0]]
    gpt2 = subject_of("gpt2")
    assert gpt2.tokenizer.unk_token_id in gpt2.token_rules.special_ids


@pytest.mark.parametrize("family", FAMILIES)
def test_char_ends_cut_the_text_after_each_token(family: str, subject_of: SubjectOf) -> None:
    subject = subject_of(family)
    items = subject.tokenize([TEXT])
    ends = items.char_ends[0][items.rows[0]]
    assert ends[-1] == len(TEXT)
    assert (np.diff(ends) >= 0).all()
    assert TEXT[: ends[0]] == "She"
    texts = subject.token_texts(items.token_ids[0][items.rows[0]])
    if family != "bert":
        assert "".join(texts) == TEXT
    assert texts[1] == " told"


@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=4))
@settings(deadline=None, max_examples=50)
def test_any_text_is_tokenised_as_if_alone(texts: list[str]) -> None:
    rules = RULES
    together = rules.tokenize(texts)
    for i, text in enumerate(texts):
        alone = rules.tokenize([text])
        np.testing.assert_array_equal(together.token_ids[i], alone.token_ids[0])
        assert together.char_ends[i].max() == len(text)


RULES = TokenRules(tiny_models.qwen_tokenizer(), limit=None, name="m")


def test_many_texts_are_tokenised_some_at_a_time(subject_of: SubjectOf, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a tokenizer returns for a text takes many times what is kept of it."""
    rules = subject_of("gemma2").token_rules
    texts = [f"She told him that the bag was {word}." for word in ("new", "old", "hers", "his", "lost")]
    at_once: list[int] = []

    def counted(some: list[str], **options: object) -> object:
        at_once.append(len(some))
        return tokenizer(some, **options)

    whole, tokenizer = rules.tokenize(texts), rules.tokenizer
    monkeypatch.setattr(tokens, "TEXTS_AT_ONCE", 2)
    monkeypatch.setattr(rules, "tokenizer", counted)
    found = rules.tokenize(texts)
    assert at_once == [2, 2, 1]
    for mine, theirs in zip(found.token_ids, whole.token_ids, strict=True):
        assert np.array_equal(mine, theirs)


def test_too_long_an_item_is_named_with_its_length(subject_of: SubjectOf) -> None:
    subject = subject_of("qwen2")
    with pytest.raises(InputError) as caught:
        subject.tokenize(["I lied.", TEXT], max_tokens=8)
    assert str(caught.value) == (
        "Item 1 ('She told him that the bag was new.') has 11 tokens and the limit of qwen2_seed0 here is 8; shorten it, "
        "or cut it with --truncate."
    )


def test_the_models_own_context_is_a_limit_too(subject_of: SubjectOf) -> None:
    with pytest.raises(
        InputError, match=r"^Item 0 \('a a a .*…'\) has 200 tokens and the limit of qwen2_seed0 here is 128;"
    ):
        subject_of("qwen2").tokenize([" ".join("a" * 200)], max_tokens=1000)


def test_truncation_is_counted_and_keeps_what_ends_a_text(subject_of: SubjectOf) -> None:
    qwen = subject_of("qwen2").tokenize([TEXT, "I lied."], max_tokens=8, truncate=True)
    assert qwen.truncated == [0]
    assert qwen.n_truncated == 1
    assert qwen.lengths[0] == 8
    assert len(qwen.rows[0]) == len(qwen.char_ends[0]) == len(qwen.positions[0]) == 8
    bert = subject_of("bert")
    cut = bert.tokenize([TEXT], max_tokens=5, truncate=True)
    assert cut.lengths[0] == 5
    assert cut.token_ids[0][-1] == bert.tokenizer.sep_token_id
    assert cut.n_rows[0] == 3


@pytest.mark.parametrize(("family", "text"), [("gemma2", "<eos><bos>"), ("gpt2", ""), ("bert", "  ")])
def test_an_item_of_only_special_tokens_is_named(family: str, text: str, subject_of: SubjectOf) -> None:
    with pytest.raises(InputError) as caught:
        subject_of(family).tokenize([TEXT, text])
    assert str(caught.value) == (
        f"Item 1 ({text!r}) holds no token that could be a row: there are only special tokens in it; give it words or "
        "remove it."
    )


def test_no_items_are_no_tokens(subject_of: SubjectOf) -> None:
    items = subject_of("llama").tokenize([])
    assert len(items) == 0
    assert items.n_rows.shape == items.lengths.shape == (0,)


def test_a_limit_below_one_is_refused(subject_of: SubjectOf) -> None:
    with pytest.raises(InputError, match="must be at least 1, not 0"):
        subject_of("llama").tokenize([TEXT], max_tokens=0)


def test_a_tokenizer_without_offsets_is_refused() -> None:
    class Slow:
        is_fast = False

    with pytest.raises(InputError, match=r"The tokenizer of m \(Slow\) gives no character offsets; save a fast one"):
        TokenRules(Slow(), limit=None, name="m")
