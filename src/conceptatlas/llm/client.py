"""The client: asks a ``ChatModel`` with bounded concurrency, retries, a cache, and a count of what it cost."""

from __future__ import annotations

import contextlib
import queue
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from conceptatlas.llm.cache import AnswerCache
from conceptatlas.llm.model import BadAnswer, ChatModel, ChatRequest, EndpointFailed, NoAnswer, Reply, Stop, TryAgain

T = TypeVar("T")
_POLL = 0.2  # seconds
_FAILURES_IN_A_ROW = 3  # requests whose retries were all spent, before the endpoint counts as gone


@dataclass(frozen=True)
class RetryPolicy:
    """When to try again after a passing failure.

    Attributes:
        retries: Further attempts after the first.
        first_wait: Seconds before the first of them; every later wait is twice as long.
        longest_wait: No wait is longer, whatever the endpoint asks for.
        jitter: Each wait is lengthened by up to this share, so that parallel requests do not come back together.
    """

    retries: int = 5
    first_wait: float = 1.0
    longest_wait: float = 60.0
    jitter: float = 0.25

    def wait(self, attempt: int, asked: float | None, rng: random.Random) -> float:
        """Return the seconds to wait before retry number ``attempt`` (from 0)."""
        wanted = max(self.first_wait * 2.0**attempt, asked or 0.0)
        return min(wanted * (1 + self.jitter * rng.random()), self.longest_wait)


@dataclass(frozen=True)
class Price:
    """US dollars for a million tokens."""

    prompt: float
    completion: float


@dataclass
class Usage:
    """What was asked and what it took."""

    calls: int = 0
    cached: int = 0
    retries: int = 0
    invalid: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def cost(self, price: Price) -> float:
        """Return the cost in US dollars."""
        return (self.prompt_tokens * price.prompt + self.completion_tokens * price.completion) / 1e6

    def summary(self, price: Price | None = None) -> str:
        """Return one line for a person."""
        parts = [f"{self.calls} calls", f"{self.cached} answers from the cache"]
        parts += [f"{self.retries} retries"] if self.retries else []
        parts += [f"{self.invalid} invalid answers"] if self.invalid else []
        parts += [f"{self.prompt_tokens:,} prompt tokens", f"{self.completion_tokens:,} answer tokens"]
        parts += [f"${self.cost(price):.4f}"] if price else ["cost unknown (give --llm-price)"]
        return "Language model: " + ", ".join(parts) + "."


@dataclass(frozen=True)
class Ask(Generic[T]):
    """A request and the function that reads its answer (raising ``BadAnswer`` where it is not valid)."""

    request: ChatRequest
    read: Callable[[str], T]
    cached: bool = True


@dataclass
class LLM:
    """Asks one model. Use as a context manager, or call ``close``.

    Attributes:
        model: Where the answers come from.
        cache: Where valid answers are kept, or None.
        retry: When to try again.
        concurrency: Requests under way at once; a model that takes several together is asked in one thread.
        price: For the cost in the summary.
        max_tokens: No answer may be longer, whatever a request allows; None leaves it to the request.
        usage: What has been asked so far.
        stopped: Why nothing more is asked, once the model has refused for good, or has failed or given no valid answer
            again and again.
    """

    model: ChatModel
    cache: AnswerCache | None = None
    retry: RetryPolicy = RetryPolicy()
    concurrency: int = 4
    price: Price | None = None
    max_tokens: int | None = None
    usage: Usage = field(default_factory=Usage)
    stopped: NoAnswer | None = None

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._halt = threading.Event()
        self._failures = 0
        self._invalid = 0

    def __enter__(self) -> LLM:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop waiting threads and release the model."""
        self._halt.set()
        self.model.close()

    def summary(self) -> str:
        """Return what was asked and what it cost, in one line."""
        return self.usage.summary(self.price)

    def ask(self, request: ChatRequest, read: Callable[[str], T], *, tries: int = 2) -> T:
        """Ask, and ask again when the answer is not valid, telling the model so.

        Args:
            request: The question.
            read: Reads and validates the answer.
            tries: How often to ask before giving up.

        Raises:
            NoAnswer: No valid answer came; the message says why.
        """
        (result,) = self._ask([Ask(request, read)], tries=tries)
        if isinstance(result, NoAnswer):
            raise result
        return result

    def ask_all(
        self, asks: Sequence[Ask[T]], *, tries: int = 1, give_up: int | None = None
    ) -> Iterator[tuple[int, T | NoAnswer]]:
        """Ask many, ``concurrency`` at once or so many together as the model takes; yield (index, result or why none).

        ``read`` runs in the thread that asked, before that thread asks the next: what it keeps on disk is safe from an
        interrupt. Every index comes exactly once. Once nothing more is asked (see ``stopped``), the rest come with that
        reason and without having been asked.

        Args:
            asks: The questions.
            tries: How often each is asked until its answer is valid.
            give_up: Ask no more after so many questions in a row without a valid answer.
        """
        results: queue.SimpleQueue[tuple[int, T | Exception]] = queue.SimpleQueue()
        together = self.model.at_once
        todo = iter([range(len(asks))[first : first + together] for first in range(0, len(asks), together)])
        lock, abandoned = threading.Lock(), threading.Event()

        def work() -> None:
            while not abandoned.is_set():
                with lock:
                    following = next(todo, None)
                if following is None:
                    return
                group = [asks[index] for index in following]
                try:
                    found = self._ask(group, tries=tries)
                except Exception as reason:  # noqa: BLE001 - the asking thread raises what is not a NoAnswer
                    for index in following:
                        results.put((index, reason))
                else:
                    self._judge(found, give_up)
                    for index, result in zip(following, found, strict=True):
                        results.put((index, result))

        # Daemons, and not an executor: an interrupt must not wait for answers that are under way.
        for number in range(min(self.concurrency, len(asks)) if together == 1 else 1):
            threading.Thread(target=work, name=f"llm-{number}", daemon=True).start()
        try:
            for _ in asks:
                index, result = _next(results)
                yield index, _or_raise(result)
        except BaseException:
            self._halt.set()  # wakes those that wait for their next attempt
            raise
        finally:
            abandoned.set()

    def _ask(self, asks: Sequence[Ask[T]], *, tries: int) -> list[T | NoAnswer]:
        """Ask together what the cache does not hold, and what got no valid answer again; return all results."""
        if tries < 1:
            raise ValueError(f"tries must be at least 1, not {tries}")
        found: dict[int, T | NoAnswer] = {}
        asked = {place: self._bounded(ask.request) for place, ask in enumerate(asks)}
        for place, ask in enumerate(asks):
            self._from_cache(ask, asked[place], place, found)
        left = {place: request for place, request in asked.items() if place not in found}
        for _ in range(tries):
            if not left:
                break
            try:
                replies = self._attempts(list(left.values()))
            except NoAnswer as reason:
                found |= dict.fromkeys(left, reason)
                break
            for place, reply in zip(list(left), replies, strict=True):
                try:
                    found[place] = self._read(asks[place], reply, asked[place])
                    del left[place]
                except BadAnswer as reason:
                    self._count(invalid=1)
                    found[place] = reason
                    left[place] = replace(asked[place], user=f"{asked[place].user}\n\n{_again(reason)}")
        return [found[place] for place in range(len(asks))]

    def _bounded(self, request: ChatRequest) -> ChatRequest:
        if self.max_tokens is None:
            return request
        return replace(request, max_tokens=min(self.max_tokens, request.max_tokens))

    def _from_cache(self, ask: Ask[T], request: ChatRequest, place: int, found: dict[int, T | NoAnswer]) -> None:
        """Enter the cache's answer into ``found``, if it has one (that an older version found valid, and this one may not)."""
        answer = self.cache.get(request.key(self.model)) if self.cache is not None and ask.cached else None
        if answer is not None:
            with contextlib.suppress(BadAnswer):
                found[place] = ask.read(answer)
                self._count(cached=1)

    def _read(self, ask: Ask[T], reply: Reply | BadAnswer, request: ChatRequest) -> T:
        """Return the reply as read, and keep it if it is valid."""
        if isinstance(reply, BadAnswer):
            raise reply
        value = ask.read(reply.text)
        if self.cache is not None and ask.cached:
            self.cache.put(request.key(self.model), reply.text, request.as_dict(self.model))
        return value

    def _attempts(self, requests: Sequence[ChatRequest]) -> list[Reply | BadAnswer]:
        """Call the model, trying again after passing failures."""
        rng = random.Random(requests[0].sample)
        for attempt in range(self.retry.retries + 1):
            if self.stopped is not None:
                raise self.stopped
            try:
                replies = self.model.answer(requests)
            except TryAgain as failure:
                reason = failure
                self._count(calls=len(requests))
            except Stop as stop:
                self._count(calls=len(requests))
                self.stopped = stop
                raise
            else:
                self._count(calls=len(requests))
                for reply in replies:
                    if isinstance(reply, Reply):
                        self._count(prompt_tokens=reply.prompt_tokens, completion_tokens=reply.completion_tokens)
                self._answered()
                return replies
            if attempt < self.retry.retries:
                self._count(retries=1)
                if self._halt.wait(self.retry.wait(attempt, reason.wait, rng)):
                    raise EndpointFailed("interrupted")
        raise self._gave_up(reason)

    def _judge(self, results: Sequence[object], give_up: int | None) -> None:
        """Stop asking a model that gives no valid answer again and again."""
        with self._lock:
            for result in results:
                if not isinstance(result, NoAnswer):
                    self._invalid = 0
                elif isinstance(result, BadAnswer):
                    self._invalid += 1
                    if give_up is not None and self._invalid >= give_up and self.stopped is None:
                        self.stopped = Stop(
                            f"{self.model.name} gave no valid answer to {self._invalid} questions in a row (the last: "
                            f"{result}); take a larger model"
                        )

    def _answered(self) -> None:
        with self._lock:
            self._failures = 0

    def _gave_up(self, reason: TryAgain) -> EndpointFailed:
        times = self.retry.retries + 1
        failure = EndpointFailed(f"{reason}, {times} times" if times > 1 else str(reason))
        with self._lock:
            self._failures += 1
            if self._failures >= _FAILURES_IN_A_ROW and self.stopped is None:
                self.stopped = EndpointFailed(f"the endpoint keeps failing: {failure}")
        return failure

    def _count(self, **steps: int) -> None:
        with self._lock:
            for name, step in steps.items():
                setattr(self.usage, name, getattr(self.usage, name) + step)


def _next(results: queue.SimpleQueue[T]) -> T:
    # A wait without end may sleep through an interrupt where the system hands the signal to another thread.
    while True:
        with contextlib.suppress(queue.Empty):
            return results.get(timeout=_POLL)


def _or_raise(result: T | Exception) -> T | NoAnswer:
    if isinstance(result, Exception) and not isinstance(result, NoAnswer):
        raise result
    return result


def _again(reason: BadAnswer) -> str:
    return f"Your last answer could not be used ({reason}). Answer again, with the JSON object only."
