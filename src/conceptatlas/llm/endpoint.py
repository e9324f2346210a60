"""Any OpenAI-compatible endpoint, over the ``openai`` package: one attempt, every failure sorted into its kind."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from conceptatlas.llm.keys import Secret, without_credentials
from conceptatlas.llm.model import BadAnswer, ChatRequest, Reply, Stop, TryAgain

if TYPE_CHECKING:
    import openai

DEFAULT_URL = "https://api.openai.com/v1"
_TRANSIENT = {408, 409, 425, 429}
# What some endpoints do not take -> the words by which they say so. Each is then left out, and the request sent again.
_OPTIONAL = {
    "system": ("system role", "system message", "system prompt", "role system", "roles must alternate"),
    "response_format": ("response_format", "json_schema", "json schema", "structured", "guided", "grammar"),
    "temperature": ("temperature",),
    "seed": ("seed",),
    # Newer models of OpenAI take the longer name only, everybody else the shorter; some take no more than they can hold.
    "max_tokens": ("max_tokens", "max_completion_tokens"),
    "max_completion_tokens": ("max_tokens", "max_completion_tokens"),
}


class OpenAIEndpoint:
    """A model behind an OpenAI-compatible address. Safe to call from several threads."""

    at_once = 1
    fills_forms = False

    def __init__(self, model: str, *, key: Secret, base_url: str | None = None, timeout: float = 120.0) -> None:
        import openai

        self.name = model
        self.endpoint = without_credentials(base_url or DEFAULT_URL)
        self._secret = key
        self._password = Secret(_password_of(base_url or ""))
        self._left_out: set[str] = set()
        self._answered = False
        self._client = openai.OpenAI(
            api_key=key.reveal(), base_url=base_url or DEFAULT_URL, timeout=timeout, max_retries=0
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def answer(self, requests: Sequence[ChatRequest]) -> list[Reply | BadAnswer]:
        """Answer each request once; see ``ChatModel.answer`` for the errors."""
        return [self._complete(request) for request in requests]

    def _complete(self, request: ChatRequest) -> Reply | BadAnswer:
        while True:
            left_out = frozenset(self._left_out)
            try:
                return self._send(request, left_out)
            except _NotTaken as refused:
                # Another thread may have learnt the same meanwhile; a second refusal of the same is a real one.
                if refused.parameter in left_out:
                    return BadAnswer(self._hide(f"the endpoint refused the request: {refused}"))
                self._left_out.add(refused.parameter)
            except BadAnswer as reason:
                return reason

    def _hide(self, text: str) -> str:
        return self._password.hide_in(self._secret.hide_in(text))

    def _send(self, request: ChatRequest, left_out: frozenset[str]) -> Reply:
        import openai

        try:
            answer = self._client.chat.completions.create(**_body(self.name, request, left_out))
        except openai.APITimeoutError:
            raise TryAgain("the endpoint did not answer in time") from None
        except openai.APIConnectionError as error:
            cause = f" ({error.__cause__})" if error.__cause__ else ""
            raise TryAgain(self._hide(f"no connection to {self.endpoint}{cause}")) from None
        except openai.APIStatusError as error:
            raise self._sorted(error, request, left_out) from None
        except (openai.APIResponseValidationError, json.JSONDecodeError):
            raise TryAgain("the endpoint's reply was cut off or is not JSON") from None
        except openai.OpenAIError as error:
            raise TryAgain(self._hide(f"the endpoint failed: {error}")) from None
        return self._read(answer)

    def _sorted(self, error: openai.APIStatusError, request: ChatRequest, left_out: frozenset[str]) -> Exception:
        """Return the exception that stands for an HTTP error."""
        status = error.status_code
        said = self._hide(_message_of(error))
        if status in {401, 403}:
            return Stop(f"{self.endpoint} refused the key ({status}: {said}); check OPENAI_API_KEY")
        if status == 404:
            return Stop(f"{self.endpoint} does not know the model {self.name!r} or the path ({said})")
        if status == 429 and "quota" in said.lower():
            return Stop(f"the quota at {self.endpoint} is spent ({said})")
        if status == 500 and not self._answered:
            # A chat template without a system turn (Gemma's) makes some servers fail without a word of why; if that is
            # not it, nothing is lost: the retry has the instructions in the user's turn.
            self._left_out.add("system")
        if status in _TRANSIENT or status >= 500:
            return TryAgain(f"the endpoint answered {status} ({said})", wait=_retry_after(error))
        body = _body(self.name, request, left_out)
        for parameter, words in _OPTIONAL.items():
            sent = parameter in body or (parameter == "system" and parameter not in left_out)
            if sent and any(word in said.lower() for word in words):
                return _NotTaken(parameter, said)
        return BadAnswer(f"the endpoint refused the request ({status}: {said})")

    def _read(self, answer: object) -> Reply:
        """Take the text out of an answer, whatever a half-compatible endpoint may have left out of it."""
        self._answered = True
        choices = getattr(answer, "choices", None)
        if not choices:
            raise BadAnswer("the endpoint's reply holds no answer")
        message = choices[0].message
        refusal = getattr(message, "refusal", None)
        if refusal:
            raise BadAnswer(self._hide(f"the model refused: {' '.join(str(refusal).split())[:120]}"))
        if choices[0].finish_reason == "content_filter":
            raise BadAnswer("the endpoint's content filter withheld the answer")
        if choices[0].finish_reason == "length":
            raise BadAnswer("the answer was cut off at the longest allowed")
        text = getattr(message, "content", None)
        if not isinstance(text, str) or not text.strip():
            raise BadAnswer("the answer is empty")
        usage = getattr(answer, "usage", None)
        return Reply(
            self._hide(text),
            prompt_tokens=getattr(usage, "prompt_tokens", 0) or 0,
            completion_tokens=getattr(usage, "completion_tokens", 0) or 0,
        )


class _NotTaken(Exception):
    """The endpoint does not take a parameter that can be done without."""

    def __init__(self, parameter: str, said: str) -> None:
        super().__init__(said)
        self.parameter = parameter


def _body(model: str, request: ChatRequest, left_out: frozenset[str]) -> dict[str, Any]:
    messages = [{"role": "system", "content": request.system}, {"role": "user", "content": request.user}]
    if "system" in left_out:
        messages = [{"role": "user", "content": f"{request.system}\n\n{request.user}"}]
    body: dict[str, Any] = {"model": model, "messages": messages}
    if "temperature" not in left_out:
        body["temperature"] = request.temperature
    if "seed" not in left_out:
        body["seed"] = request.sample
    length = next((name for name in ("max_tokens", "max_completion_tokens") if name not in left_out), None)
    if length is not None:
        body[length] = request.max_tokens
    if request.schema is not None and "response_format" not in left_out:
        form = {"name": request.schema_name, "schema": request.schema, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": form}
    return body


def _message_of(error: openai.APIStatusError) -> str:
    """Return what the endpoint said, on one line and short."""
    body = error.body
    if isinstance(body, dict):
        inner = body.get("error", body)
        text = str(inner.get("message") or inner.get("detail") or inner) if isinstance(inner, dict) else str(inner)
    else:
        text = str(body or error.message)
    return " ".join(text.split())[:200]


def _retry_after(error: openai.APIStatusError) -> float | None:
    value = error.response.headers.get("retry-after")
    try:
        return max(0.0, float(value)) if value else None
    except ValueError:  # a date, which nobody sends for seconds
        return None


def _password_of(url: str) -> str:
    from urllib.parse import urlsplit

    return urlsplit(url).password or ""
