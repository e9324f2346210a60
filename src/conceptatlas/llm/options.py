"""From the options of a command to a ready client."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from conceptatlas.base.errors import InputError
from conceptatlas.llm.cache import AnswerCache, default_cache_folder
from conceptatlas.llm.client import LLM, Price, RetryPolicy
from conceptatlas.llm.endpoint import DEFAULT_URL, OpenAIEndpoint
from conceptatlas.llm.keys import URL_VARIABLE, check_url, find_key, setting, without_credentials
from conceptatlas.llm.local import LocalModel
from conceptatlas.llm.model import BadAnswer, ChatModel, ChatRequest, Reply, Stop


@dataclass(frozen=True)
class LLMOptions:
    """How to reach a language model.

    Attributes:
        model: The model's name at the endpoint.
        base_url: The OpenAI-compatible endpoint; ``OPENAI_BASE_URL`` or OpenAI's own where None.
        local_model: A model on this machine instead of an endpoint, as ``conceptatlas.local_model`` gives it.
        timeout: Seconds for one answer.
        retries: Further attempts after a passing failure.
        first_wait: Seconds before the first retry; later waits double.
        concurrency: Requests under way at once.
        cache_folder: Where answers are kept; the user's cache folder where None.
        price: US dollars per million prompt and answer tokens, as ``0.15,0.60``.
        max_tokens: The longest answer in tokens; by default it depends on the question.
    """

    model: str | None = None
    base_url: str | None = None
    local_model: LocalModel | None = None
    timeout: float = 120.0
    retries: int = 5
    first_wait: float = 1.0
    concurrency: int = 4
    cache_folder: Path | None = None
    price: str | None = None
    max_tokens: int | None = None

    @property
    def folder(self) -> Path:
        """The folder of the cache."""
        return self.cache_folder or default_cache_folder()


class _DryModel:
    """Stands in for a model of which only the name is needed."""

    at_once = 1

    def __init__(self, name: str, endpoint: str, *, fills_forms: bool) -> None:
        self.name, self.endpoint, self.fills_forms = name, endpoint, fills_forms

    def answer(self, requests: Sequence[ChatRequest]) -> list[Reply | BadAnswer]:  # noqa: ARG002
        raise Stop("this is a dry run: nothing is asked")

    def close(self) -> None:
        pass


def open_llm(options: LLMOptions, *, dry_run: bool = False) -> LLM:
    """Return a client for ``options``; nothing is sent yet.

    Args:
        options: The model, and how to reach it.
        dry_run: Never send anything; neither a model nor a key is then needed.

    Raises:
        InputError: The options contradict each other, or a model, key or address is missing or malformed.
    """
    if options.max_tokens is not None and options.max_tokens < 1:
        raise InputError(f"--llm-max-tokens is {options.max_tokens}; it must be 1 or more.")
    if options.concurrency < 1 or options.retries < 0 or options.timeout <= 0 or options.first_wait < 0:
        raise InputError("--concurrency and --llm-timeout must be above 0, --llm-retries and --llm-wait 0 or above.")
    return LLM(
        _dry_model(options) if dry_run else _model(options),
        cache=AnswerCache(options.folder),
        retry=RetryPolicy(retries=options.retries, first_wait=options.first_wait),
        concurrency=options.concurrency,
        price=_price(options.price),
        max_tokens=options.max_tokens,
    )


def _model(options: LLMOptions) -> ChatModel:
    if options.local_model is not None:
        if options.base_url is not None or options.model is not None:
            raise InputError("--label-model runs a model here; give it, or --llm-model and --llm-base-url, not both.")
        return options.local_model
    if not options.model:
        raise InputError("No language model named: give --llm-model NAME (and --llm-base-url for your own endpoint).")
    base_url = options.base_url or setting(URL_VARIABLE)
    return OpenAIEndpoint(
        options.model,
        key=find_key(needed=base_url is None),
        base_url=check_url(base_url) if base_url else None,
        timeout=options.timeout,
    )


def _dry_model(options: LLMOptions) -> ChatModel:
    if options.local_model is not None:
        return _DryModel(options.local_model.name, options.local_model.endpoint, fills_forms=True)
    base_url = options.base_url or setting(URL_VARIABLE)
    endpoint = without_credentials(check_url(base_url)) if base_url else DEFAULT_URL
    return _DryModel(options.model or "(no model named)", endpoint, fills_forms=False)


def _price(text: str | None) -> Price | None:
    if text is None:
        return None
    try:
        prompt, completion = (float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(
            f"--llm-price {text!r} is not two numbers; write 0.15,0.60 (US dollars per million)."
        ) from error
    return Price(prompt, completion)
