"""What any language model must offer, what is asked of it, and the ways in which it can fail to answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from conceptatlas.base.errors import WorkError


@dataclass(frozen=True)
class Form:
    """An answer with one blank. A model on this machine fills in the blank and nothing else; an endpoint has the schema.

    Attributes:
        begin: What stands before the blank, without white space at its end (tokens begin with it).
        end: What stands after it.
        options: What may stand in the blank; the one whose first own token has the largest logit is taken. Where there
            are none: words, which end at a quote or with the line.
        max_tokens: The longest words.
        examples: Questions of this kind, each with its blank filled in: shown to a model without a chat template, whose
            words must then not repeat one of them.
    """

    begin: str
    end: str
    options: tuple[str, ...] = ()
    max_tokens: int = 30
    examples: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class ChatRequest:
    """One question.

    Attributes:
        system: The standing instructions.
        user: The question itself.
        schema_name: A name for the form of the answer (letters and underscores).
        schema: JSON schema of the answer, or None for free text.
        temperature: 0 for the likeliest answer.
        max_tokens: The longest answer.
        sample: Which of several independent answers to the same question this is; also sent as the seed.
        form: What a model that fills in forms fills in; None for free text.
    """

    system: str
    user: str
    schema_name: str = "answer"
    schema: dict[str, Any] | None = None
    temperature: float = 0.0
    max_tokens: int = 2048
    sample: int = 0
    form: Form | None = None

    def key(self, model: ChatModel) -> str:
        """Return the SHA-256 of everything that decides the answer: model, endpoint and the whole request."""
        return hashlib.sha256(json.dumps(self.as_dict(model), sort_keys=True).encode()).hexdigest()

    def as_dict(self, model: ChatModel) -> dict[str, Any]:
        """Return the request with model and endpoint, as it is kept beside a cached answer; a form where it counts."""
        whole = {"model": model.name, "endpoint": model.endpoint, **asdict(self)}
        if self.form is None or not model.fills_forms:
            del whole["form"]
        return whole


@dataclass(frozen=True)
class Reply:
    """The text of an answer, and the tokens it took (0 where the endpoint does not say)."""

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0


class ChatModel(Protocol):
    """A language model, wherever it runs. ``answer`` is called from several threads at once."""

    @property
    def name(self) -> str:
        """The model's name."""

    @property
    def endpoint(self) -> str:
        """Where it is, without credentials."""

    @property
    def at_once(self) -> int:
        """How many requests it is best given together: 1 for an endpoint, which is asked in threads instead."""

    @property
    def fills_forms(self) -> bool:
        """Whether it fills in the blank of a request's form, and nothing else."""

    def answer(self, requests: Sequence[ChatRequest]) -> list[Reply | BadAnswer]:
        """Answer each request once, in their order; ``BadAnswer`` where an answer is of no use (refused, cut off, empty).

        Raises:
            TryAgain: A passing failure; the same requests may succeed later.
            Stop: Nothing that is asked here can succeed (wrong key, unknown model).
        """

    def close(self) -> None:
        """Release what is held."""


class NoAnswer(WorkError):
    """A question got no valid answer; the message is the reason, without any secret."""


class BadAnswer(NoAnswer):
    """An answer came, and it is malformed, refused, cut off or empty."""


class EndpointFailed(NoAnswer):
    """The endpoint failed again and again (429, 5xx, time-outs, broken connections)."""


class Stop(NoAnswer):
    """No question can succeed: the key is refused, the model is unknown, the quota is spent, no answer is ever valid."""


class TryAgain(Exception):
    """A passing failure inside one attempt; the client retries it.

    Attributes:
        wait: Seconds that the endpoint asked to wait, or None.
    """

    def __init__(self, reason: str, *, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait
