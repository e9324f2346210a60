"""The client against a scripted server: every failure has its kind, and the key is seen nowhere."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from pydantic import BaseModel

from conceptatlas.base.errors import InputError
from conceptatlas.llm import (
    LLM,
    AnswerCache,
    Ask,
    BadAnswer,
    ChatRequest,
    EndpointFailed,
    Form,
    ItemCache,
    LLMOptions,
    LocalModel,
    NoAnswer,
    Price,
    Reply,
    RetryPolicy,
    Stop,
    open_llm,
    read_answer,
    read_json_answer,
    schema_of,
)
from tests.llm.scripted_server import Answer, Request, Script, ScriptedServer, in_order

KEY = "sk-very-secret-0123456789"
GOOD = Answer('{"word": "yes"}')


class Word(BaseModel, extra="forbid"):
    word: str


def read(text: str) -> str:
    return read_answer(text, Word).word


def request(user: str = "say yes", **more: object) -> ChatRequest:
    return ChatRequest("be brief", user, "word", schema_of(Word), **more)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., tuple[ScriptedServer, LLM]]]:
    opened: list[ScriptedServer] = []
    clients: list[LLM] = []

    def _serve(script: Script, **options: object) -> tuple[ScriptedServer, LLM]:
        server = ScriptedServer(script)
        server.__enter__()
        opened.append(server)
        settings = {"model": "m", "base_url": server.url, "first_wait": 0.001, "retries": 2, "timeout": 5.0}
        llm = open_llm(LLMOptions(**{**settings, "cache_folder": tmp_path / "cache", **options}))  # type: ignore[arg-type]
        clients.append(llm)
        return server, llm

    yield _serve
    for llm in clients:
        llm.close()
    for server in opened:
        server.__exit__()


def test_a_good_answer_is_asked_for_as_documented_and_cached(serve, tmp_path: Path) -> None:
    server, llm = serve(lambda _: GOOD, price="2,10")
    assert llm.ask(request(), read) == "yes"
    sent = server.requests[0]
    assert sent.path == "/v1/chat/completions"
    assert sent.headers["authorization"] == f"Bearer {KEY}"
    assert sent.body["response_format"]["json_schema"]["strict"] is True
    assert sent.body["response_format"]["json_schema"]["schema"]["additionalProperties"] is False
    assert (sent.body["temperature"], sent.body["seed"]) == (0.0, 0)
    assert llm.ask(request(), read) == "yes"
    assert len(server.requests) == 1
    assert (llm.usage.calls, llm.usage.cached, llm.usage.prompt_tokens, llm.usage.completion_tokens) == (1, 1, 100, 10)
    assert llm.usage.cost(Price(2, 10)) == pytest.approx((200 + 100) / 1e6)
    assert "$0.0003" in llm.summary()
    other = open_llm(LLMOptions(model="m", base_url=server.url, cache_folder=tmp_path / "cache"))
    assert other.ask(request(), read) == "yes"
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "change",
    [{"temperature": 0.5}, {"sample": 1}, {"max_tokens": 5}, {"user": "say no"}, {"schema": None}, {"system": "x"}],
)
def test_the_cache_key_holds_the_whole_request(serve, change: dict[str, object]) -> None:
    from dataclasses import replace

    server, llm = serve(lambda _: GOOD)
    llm.ask(request(), read)
    llm.ask(replace(request(), **change), read)
    assert len(server.requests) == 2


def test_another_model_or_endpoint_is_another_key(serve) -> None:
    _, llm = serve(lambda _: GOOD)
    _, elsewhere = serve(lambda _: GOOD)
    _, other_model = serve(lambda _: GOOD, model="n")
    assert len({request().key(one.model) for one in (llm, elsewhere, other_model)}) == 3


@pytest.mark.parametrize(
    "fault",
    [
        Answer(status=429, error="slow down"),
        Answer(status=429, error="slow down", headers={"Retry-After": "0.01"}),
        Answer(status=500, error="oops"),
        Answer(status=503, raw=b"<html>busy</html>"),
        Answer('{"word": "yes"}', cut_after=40),
        Answer('{"word": "yes"}', cut_after=0),
        Answer(raw=b'{"id": "x", "choices": [{"ind'),
    ],
)
def test_a_passing_failure_is_tried_again(serve, fault: Answer) -> None:
    server, llm = serve(in_order([fault, GOOD]))
    assert llm.ask(request(), read) == "yes"
    assert len(server.requests) == 2
    assert llm.usage.retries == 1


def test_a_time_out_is_tried_again(serve) -> None:
    server, llm = serve(in_order([Answer(delay=2.0), GOOD]), timeout=0.3)
    assert llm.ask(request(), read) == "yes"
    assert len(server.requests) == 2


def test_failing_again_and_again_ends_with_the_reason_and_then_stops_asking(serve) -> None:
    server, llm = serve(lambda _: Answer(status=500, error="oops"))
    with pytest.raises(EndpointFailed, match=r"answered 500 \(oops\), 3 times"):
        llm.ask(request("a"), read)
    for user in "bc":
        with pytest.raises(EndpointFailed):
            llm.ask(request(user), read)
    assert len(server.requests) == 9
    with pytest.raises(EndpointFailed, match="the endpoint keeps failing"):
        llm.ask(request("d"), read)
    assert len(server.requests) == 9


def test_nobody_listening_is_an_endpoint_failure(tmp_path: Path) -> None:
    options = LLMOptions(model="m", base_url="http://127.0.0.1:9/v1", retries=1, first_wait=0.0, cache_folder=tmp_path)
    with open_llm(options) as llm, pytest.raises(EndpointFailed, match=r"no connection to http://127.0.0.1:9/v1"):
        llm.ask(request(), read)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Answer(status=401, error=f"bad key {KEY}"), r"refused the key \(401: bad key \*\*\*\)"),
        (Answer(status=403, error="no"), "refused the key"),
        (Answer(status=404, error="no such model"), "does not know the model 'm'"),
        (Answer(status=429, error="You exceeded your current quota"), "quota"),
    ],
)
def test_what_cannot_succeed_stops_everything(serve, fault: Answer, says: str) -> None:
    server, llm = serve(lambda _: fault)
    with pytest.raises(Stop, match=says):
        llm.ask(request(), read)
    with pytest.raises(Stop):
        llm.ask(request("another"), read)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Answer("yes"), "not JSON: 'yes'"),
        (Answer('Sure: {"word": "yes"}'), "not JSON"),
        (Answer('{"word": "yes"} {"word": "no"}'), "not JSON"),
        (Answer('{"word": NaN}'), "not JSON"),
        (Answer('{"word": 3}'), "not of the form asked for"),
        (Answer('{"word": "yes", "more": 1}'), "not of the form"),
        (Answer('["yes"]'), "not of the form"),
        (Answer(""), "the answer is empty"),
        (Answer(None), "the answer is empty"),
        (Answer("<think>hm</think>\n"), "the answer is empty"),
        (Answer(None, refusal="I cannot help with that."), "the model refused: I cannot help"),
        (Answer('{"word": "ye', finish_reason="length"), "cut off"),
        (Answer("", finish_reason="content_filter"), "content filter"),
        (Answer(raw=b'{"id": "x", "choices": []}'), "holds no answer"),
        (Answer(raw=b'"hello"'), "holds no answer"),
        (Answer(status=400, error="this prompt is too long"), r"refused the request \(400: this prompt is too long\)"),
    ],
)
def test_an_answer_of_no_use_is_asked_again_once_and_never_cached(serve, fault: Answer, says: str) -> None:
    server, llm = serve(in_order([fault, fault, GOOD]))
    with pytest.raises(BadAnswer, match=says):
        llm.ask(request(), read)
    assert len(server.requests) == 2
    assert "could not be used" in server.requests[1].user
    assert llm.ask(request(), read) == "yes"
    assert llm.ask(request(), read) == "yes"
    assert len(server.requests) == 3


def test_a_fence_and_thoughts_are_taken_off() -> None:
    assert read_json_answer('<think>{"a": 1}</think>\n```json\n{"b": 2}\n```\n') == {"b": 2}
    with pytest.raises(BadAnswer):
        read_json_answer("[" * 100_000)


@pytest.mark.parametrize(
    ("parameter", "complaint"),
    [
        ("response_format", "'response_format' of type 'json_schema' is not supported"),
        ("temperature", "Unsupported value: 'temperature' does not support 0.0 with this model."),
        ("seed", "unexpected field: seed"),
        ("max_tokens", "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."),
    ],
)
def test_what_an_endpoint_does_not_take_is_left_out(serve, parameter: str, complaint: str) -> None:
    def script(asked: Request) -> Answer:
        return Answer(status=400, error=complaint) if parameter in asked.body else GOOD

    server, llm = serve(script)
    assert llm.ask(request(), read) == "yes"
    assert llm.ask(request("again"), read) == "yes"
    assert len(server.requests) == 3
    if parameter == "max_tokens":
        assert server.requests[-1].body["max_completion_tokens"] == 2048


@pytest.mark.parametrize("fault", [Answer(status=400, error="System role not supported"), Answer(status=500)])
def test_a_template_without_a_system_turn_gets_the_instructions_in_the_users_turn(serve, fault: Answer) -> None:
    def script(asked: Request) -> Answer:
        return fault if asked.body["messages"][0]["role"] == "system" else GOOD

    server, llm = serve(script)
    assert llm.ask(request(), read) == "yes"
    assert llm.ask(request("again"), read) == "yes"
    assert [m["content"] for m in server.requests[-1].body["messages"]] == ["be brief\n\nagain"]
    assert len(server.requests) == 3


def test_all_are_asked_with_bounded_concurrency_and_each_comes_once(serve) -> None:
    running, peak, lock = [0], [0], threading.Lock()

    def script(asked: Request) -> Answer:
        with lock:
            running[0] += 1
            peak[0] = max(peak[0], running[0])
        time.sleep(0.02)
        with lock:
            running[0] -= 1
        return Answer(status=400, error="odd") if asked.user == "3" else Answer(json.dumps({"word": asked.user}))

    _, llm = serve(script, concurrency=3)
    results = dict(llm.ask_all([Ask(request(str(i)), read) for i in range(12)]))
    assert sorted(results) == list(range(12))
    assert peak[0] <= 3
    assert isinstance(results.pop(3), NoAnswer)
    assert results == {i: str(i) for i in range(12) if i != 3}


def test_after_a_wrong_key_the_rest_come_back_without_having_been_asked(serve) -> None:
    server, llm = serve(lambda _: Answer(status=401, error="who?"), concurrency=1)
    results = dict(llm.ask_all([Ask(request(str(i)), read) for i in range(10)]))
    assert len(results) == 10
    assert all(isinstance(result, Stop) for result in results.values())
    assert len(server.requests) == 1


def test_the_key_reaches_no_file_and_no_error(serve, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def script(asked: Request) -> Answer:
        return Answer(json.dumps({"word": f"your key is {KEY}"})) if asked.number else Answer(status=500, error=KEY)

    _, llm = serve(script, retries=0)
    with pytest.raises(EndpointFailed) as caught:
        llm.ask(request(), read)
    import traceback

    assert KEY not in "".join(traceback.format_exception(caught.value))
    assert llm.ask(request(), read) == "your key is ***"
    assert KEY not in repr(llm) + repr(vars(llm.model))
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes()
    out, err = capfd.readouterr()
    assert KEY not in out + err


def test_credentials_in_the_address_are_shown_nowhere(tmp_path: Path) -> None:
    options = LLMOptions(
        model="m", base_url="http://me:longpassword1@127.0.0.1:9/v1?k=v", retries=0, cache_folder=tmp_path
    )
    with open_llm(options) as llm:
        assert llm.model.endpoint == "http://127.0.0.1:9/v1"
        with pytest.raises(EndpointFailed) as caught:
            llm.ask(request(), read)
    assert "longpassword1" not in str(caught.value)


def test_keys_come_from_dotenv_too_and_the_environment_wins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, serve
) -> None:
    (tmp_path / ".env").write_text("OPENAI_API_KEY=sk-from-the-file\n")
    server, llm = serve(lambda _: GOOD)
    llm.ask(request("1"), read)
    monkeypatch.delenv("OPENAI_API_KEY")
    server2, llm2 = serve(lambda _: GOOD)
    llm2.ask(request("2"), read)
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert server2.requests[0].headers["authorization"] == "Bearer sk-from-the-file"


def test_options_that_cannot_work_are_input_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(says: str, **options: object) -> None:
        with pytest.raises(InputError, match=says):
            open_llm(LLMOptions(**options))  # type: ignore[arg-type]

    refused("No language model named")
    refused("not both", model="m", local_model=LocalModel("x", "local", lambda: None))
    refused("not an http", model="m", base_url="localhost:8000")
    refused("not two numbers", model="m", base_url="http://h/v1", price="1")
    refused("above 0", model="m", base_url="http://h/v1", concurrency=0)
    monkeypatch.setenv("OPENAI_API_KEY", "sk with space")
    refused("OPENAI_API_KEY holds a space", model="m")
    monkeypatch.delenv("OPENAI_API_KEY")
    refused("set OPENAI_API_KEY", model="m")
    open_llm(LLMOptions(model="m", base_url="http://h/v1")).close()


def test_the_longest_answer_can_be_bounded(serve) -> None:
    server, llm = serve(lambda _: GOOD, max_tokens=50)
    llm.ask(request(), read)
    assert server.requests[0].body["max_tokens"] == 50
    with pytest.raises(InputError, match="--llm-max-tokens"):
        serve(lambda _: GOOD, max_tokens=0)


def test_waits_double_are_capped_and_honour_the_endpoint() -> None:
    import random

    policy = RetryPolicy(first_wait=1.0, longest_wait=10.0, jitter=0.0)
    rng = random.Random(0)
    assert [policy.wait(n, None, rng) for n in range(5)] == [1, 2, 4, 8, 10]
    assert policy.wait(0, 7.0, rng) == 7
    assert policy.wait(0, 700.0, rng) == 10


def test_a_damaged_cache_file_is_asked_again(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path)
    cache.put("ab" * 32, "text", {})
    assert cache.get("ab" * 32) == "text"
    (path,) = (p for p in tmp_path.rglob("*.json"))
    path.write_bytes(b'{"format"')
    assert cache.get("ab" * 32) is None


def test_items_are_known_to_a_later_run_of_the_same_scope_only(tmp_path: Path) -> None:
    first = ItemCache(tmp_path, {"model": "m", "rubric": "r"})
    first.put({"a": 1, "b": 2})
    first.put({"c": 3})
    assert ItemCache(tmp_path, {"rubric": "r", "model": "m"}).known == {"a": 1, "b": 2, "c": 3}
    assert ItemCache(tmp_path, {"model": "m", "rubric": "other"}).known == {}


# Several questions together, and giving up --------------------------------------------------------------------------


class Together:
    """A model that takes four questions at once, and answers each with its first word as JSON."""

    name, endpoint, at_once, fills_forms = "t", "here", 4, True

    def __init__(self) -> None:
        self.given: list[list[str]] = []

    def answer(self, requests: Sequence[ChatRequest]) -> list[Reply | BadAnswer]:
        self.given.append([request.user for request in requests])
        words = [request.user.split()[0] for request in requests]
        return [
            BadAnswer("lost") if w == "lost" else Reply(json.dumps({"word": w}) if w != "bad" else w) for w in words
        ]

    def close(self) -> None:
        pass


def test_questions_are_put_together_as_the_model_takes_them(tmp_path: Path) -> None:
    model = Together()
    llm = LLM(model, cache=AnswerCache(tmp_path))
    users = ["a", "bad", "c", "d", "e", "lost", "g", "h", "i"]
    results = dict(llm.ask_all([Ask(request(user), read) for user in users], tries=2))
    assert [results[i] for i in (0, 2, 3, 4, 6, 7, 8)] == ["a", "c", "d", "e", "g", "h", "i"]
    assert "not JSON: 'bad'" in str(results[1])
    assert str(results[5]) == "lost"
    again = [[user.split("\n")[0] for user in group] for group in model.given]
    assert again == [["a", "bad", "c", "d"], ["bad"], ["e", "lost", "g", "h"], ["lost"], ["i"]]
    assert (llm.usage.calls, llm.usage.invalid, llm.usage.cached) == (11, 4, 0)
    model.given.clear()
    dict(llm.ask_all([Ask(request(user), read) for user in users]))
    assert model.given == [["bad"], ["lost"]]
    assert llm.usage.cached == 7


def test_the_client_gives_up_on_a_model_that_gives_no_valid_answer(serve) -> None:
    server, llm = serve(lambda asked: Answer("no") if asked.user[0] != "v" else GOOD, concurrency=1)
    users = ["1", "2", "valid", "3", "4", "5", "6", "7"]
    results = dict(llm.ask_all([Ask(request(user), read) for user in users], tries=2, give_up=3))
    assert results[2] == "yes"
    asked = [sent.user.split("\n")[0] for sent in server.requests]
    assert asked == ["1", "1", "2", "2", "valid", "3", "3", "4", "4", "5", "5"]
    assert isinstance(results[6], Stop)
    assert str(results[7]) == (
        "m gave no valid answer to 3 questions in a row (the last: the answer is not JSON: 'no'); take a larger model"
    )


def test_a_form_counts_only_where_it_is_filled_in(serve) -> None:
    _, llm = serve(lambda _: GOOD)
    plain, formed = request(), request(form=Form("{", "}"))
    assert plain.key(llm.model) == formed.key(llm.model)
    assert "form" not in formed.as_dict(llm.model)
    assert plain.key(Together()) != formed.key(Together())
