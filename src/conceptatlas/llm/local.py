"""A model on this machine as the language model: several questions in a batch, and of a form only the blank is left to it.

What the questions of a batch begin with alike is run once, and its keys and values are kept for all of them.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from conceptatlas.llm.model import BadAnswer, ChatRequest, Reply, Stop

if TYPE_CHECKING:
    import torch

TOKENS_AT_ONCE = 4096  # padded, in one batch: enough for large products, few enough for a small memory
_QUOTE = re.compile(r'(?<!\\)["\n]')


class LoadedModel(Protocol):
    """What is needed of a model that has been loaded."""

    @property
    def hf_model(self) -> Any:
        """The Hugging Face model."""

    @property
    def tokenizer(self) -> Any:
        """Its Hugging Face tokenizer."""


@dataclass(frozen=True)
class _Prompt:
    """A request as the model reads it.

    Attributes:
        place: Which of the requests.
        request: The request.
        ids: The question's tokens, up to the blank where there is a form.
        choices: The token by which each option of the form goes on.
        new_tokens: The longest answer.
    """

    place: int
    request: ChatRequest
    ids: list[int]
    choices: list[int]
    new_tokens: int

    @property
    def kind(self) -> tuple[object, ...]:
        """The same for prompts that can be answered in one batch: a sampled answer has a seed of its own."""
        alone = self.place if self.request.temperature > 0 else -1
        return bool(self.choices), self.request.form is None, self.new_tokens, alone


class LocalModel:
    """A causal language model, loaded on the first question.

    Attributes:
        name: Its name in artefacts.
        endpoint: Where it comes from.
    """

    at_once = 32
    fills_forms = True

    def __init__(self, name: str, endpoint: str, load: Callable[[], LoadedModel]) -> None:
        """Take a model.

        Args:
            name: Its name in artefacts.
            endpoint: Where it comes from.
            load: Loads it; called once, on the first question.
        """
        self.name = name
        self.endpoint = endpoint
        self._load = load
        self._lock = threading.Lock()
        self._loaded: LoadedModel | None = None

    def close(self) -> None:
        """Let go of the model."""
        self._loaded = None

    def answer(self, requests: Sequence[ChatRequest]) -> list[Reply | BadAnswer]:
        """Answer each once: greedily at temperature 0, else sampled with the request's number as the seed.

        ``BadAnswer`` stands where the prompt leaves no room for an answer, or the answer is empty or cut off.

        Raises:
            InputError: The model cannot be loaded.
            Stop: It is no model that continues a text.
        """
        with self._lock:
            if self._loaded is None:
                self._loaded = self._load()
            model, tokenizer = self._loaded.hf_model, self._loaded.tokenizer
            if not model.can_generate():
                raise Stop(f"{self.name} ({type(model).__name__}) continues no text; take a causal language model")
            limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
            prompts = [_prompt(tokenizer, place, request, limit) for place, request in enumerate(requests)]
            found: dict[int, Reply | BadAnswer] = {
                prompt.place: BadAnswer(f"the prompt's {len(prompt.ids)} tokens leave no room for an answer")
                for prompt in prompts
                if prompt.new_tokens < 1
            }
            left = [prompt for prompt in prompts if prompt.place not in found]
            for batch in _batches(left, one_by_one=bool(getattr(model, "_is_stateful", False))):
                for prompt, reply in zip(batch, _answers(model, tokenizer, batch), strict=True):
                    found[prompt.place] = reply
            return [found[place] for place in range(len(requests))]


# Prompts -------------------------------------------------------------------------------------------------------------


def _prompt(tokenizer: Any, place: int, request: ChatRequest, limit: int | None) -> _Prompt:
    """Return the prompt with the beginning of its form, cut where the form's options part."""

    def made(ids: Sequence[int], longest: int, choices: Sequence[int] = ()) -> _Prompt:
        room = longest if limit is None else min(longest, limit - len(ids))
        return _Prompt(place, request, list(ids), list(choices), room)

    form = request.form
    text = render(tokenizer, request) + (form.begin if form else "")
    if form is None or not form.options:
        longest = min(request.max_tokens, form.max_tokens) if form else request.max_tokens
        return made(_encoded(tokenizer, text), longest)
    # Whole texts are tokenised, since a token may reach from one part into the next.
    whole = [_encoded(tokenizer, text + option) for option in form.options]
    n_shared = _n_shared(whole)
    choices = [ids[n_shared] for ids in whole if len(ids) > n_shared]
    if len(set(choices)) < len(form.options):
        raise ValueError(f"the options {form.options} are not told apart by one token")
    return made(whole[0][:n_shared], 1, choices)


def _encoded(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _n_shared(prompts: Sequence[Sequence[int]]) -> int:
    """Return how many tokens all prompts begin with alike."""
    return next(
        (i for i, column in enumerate(zip(*prompts, strict=False)) if len(set(column)) > 1), min(map(len, prompts))
    )


def render(tokenizer: Any, request: ChatRequest) -> str:
    """Return the question up to where the answer begins.

    Under the model's chat template; instructions join the user's turn if the template has no system. A model without a
    template only goes on with texts, so it is shown the form's examples as such a text.
    """
    form = request.form
    if not tokenizer.chat_template:
        shown = [f"{user}\n\n{form.begin}{blank}{form.end}\n\n\n" for user, blank in form.examples] if form else []
        return f"{tokenizer.bos_token or ''}{request.system}\n\n\n{''.join(shown)}{request.user}\n\n"
    from jinja2 import TemplateError

    def turns(*messages: tuple[str, str]) -> str:
        said = [{"role": role, "content": content} for role, content in messages]
        # Where a template knows thoughts, an answer that is begun has none before it.
        more = {} if form is None else {"enable_thinking": False}
        return str(tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True, **more))

    try:
        return turns(("system", request.system), ("user", request.user))
    except TemplateError:
        return turns(("user", f"{request.system}\n\n{request.user}"))


def _batches(prompts: Sequence[_Prompt], *, one_by_one: bool) -> Iterator[list[_Prompt]]:
    """Yield the prompts in batches of one kind and of like length."""
    batch: list[_Prompt] = []
    for prompt in sorted(prompts, key=lambda one: (*one.kind, len(one.ids), one.place)):
        padded = (len(batch) + 1) * (len(prompt.ids) + prompt.new_tokens)
        if batch and (one_by_one or prompt.kind != batch[0].kind or padded > TOKENS_AT_ONCE):
            yield batch
            batch = []
        batch.append(prompt)
    if batch:
        yield batch


# Answers -------------------------------------------------------------------------------------------------------------


def _answers(model: Any, tokenizer: Any, batch: Sequence[_Prompt]) -> Iterator[Reply | BadAnswer]:
    """Yield the reply to each prompt of a batch."""
    new, logits = _generate(model, tokenizer, batch)
    ends = _end_ids(model, tokenizer)
    for prompt, ids, first in zip(batch, new.tolist(), logits, strict=True):
        form = prompt.request.form
        if form is not None and prompt.choices:
            best = int(first[prompt.choices].argmax())
            yield Reply(f"{form.begin}{form.options[best]}{form.end}", len(prompt.ids), 1)
            continue
        written = ids[: next((i for i, token in enumerate(ids) if token in ends), len(ids))]
        text = tokenizer.decode(written, skip_special_tokens=True)
        closed = form is not None and _QUOTE.search(text)
        if not closed and len(written) >= prompt.new_tokens:
            yield BadAnswer("the answer was cut off at the longest allowed")
            continue
        text = (text[: closed.start()] if closed else text).rstrip()
        text = text if form else text.lstrip()
        if not text.strip():
            yield BadAnswer("the answer is empty")
        elif form and not tokenizer.chat_template and any(text == blank for _, blank in form.examples):
            yield BadAnswer(f"the answer {text!r} only repeats an example")
        else:
            yield Reply(f"{form.begin}{text}{form.end}" if form else text, len(prompt.ids), len(written))


def _end_ids(model: Any, tokenizer: Any) -> set[int]:
    given = model.generation_config.eos_token_id
    return {*(given if isinstance(given, list) else [given]), tokenizer.eos_token_id} - {None}


def _generate(model: Any, tokenizer: Any, batch: Sequence[_Prompt]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the tokens that the model adds to each prompt, int64 [B, S], and the first one's logits, [B, V]."""
    import torch

    request = batch[0].request
    ends = sorted(_end_ids(model, tokenizer))
    pad = next((i for i in (tokenizer.pad_token_id, *ends) if i is not None), 0)
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.inference_mode():
        torch.manual_seed(request.sample)
        shared, cache = _shared_start(model, [prompt.ids for prompt in batch])
        longest = max(len(prompt.ids) for prompt in batch)
        ids = torch.full((len(batch), longest), pad, device=model.device)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(batch):
            own = len(prompt.ids) - shared
            for columns, part in (
                (slice(shared), prompt.ids[:shared]),
                (slice(longest - own, None), prompt.ids[shared:]),
            ):
                ids[row, columns] = torch.tensor(part, dtype=torch.int64, device=model.device)
                mask[row, columns] = 1
        output = model.generate(
            input_ids=ids,
            attention_mask=mask,
            past_key_values=cache,
            max_new_tokens=batch[0].new_tokens,
            do_sample=request.temperature > 0,
            temperature=request.temperature if request.temperature > 0 else None,
            eos_token_id=ends or None,
            pad_token_id=pad,
            stopping_criteria=[_Closed(tokenizer, longest)] if request.form and not request.form.options else None,
            output_logits=True,
            return_dict_in_generate=True,
        )
    return output.sequences[:, longest:], output.logits[0].float()


def _shared_start(model: Any, prompts: Sequence[list[int]]) -> tuple[int, Any]:
    """Run what all prompts begin with; return its length and its keys and values for each (0 and None where unshared).

    Padding follows what is shared, so that positions in the cache are no longer those in the text: fine where attention
    goes by the mask alone, and not where a window counts positions.
    """
    import torch
    from transformers.cache_utils import DynamicCache, DynamicLayer

    shared = min(_n_shared(prompts), min(map(len, prompts)) - 1)
    if len(prompts) < 2 or shared < 1:
        return 0, None
    start = torch.tensor([prompts[0][:shared]], device=model.device)
    cache = DynamicCache(config=model.config)
    if any(type(layer) is not DynamicLayer for layer in cache.layers):
        return 0, None
    cache = model.base_model(input_ids=start, past_key_values=cache, use_cache=True).past_key_values
    cache.batch_repeat_interleave(len(prompts))
    return shared, cache


class _Closed:
    """Stops a row once what it has written holds a quote or a line's end."""

    def __init__(self, tokenizer: Any, n_prompt: int) -> None:
        self._tokenizer = tokenizer
        self._n_prompt = n_prompt

    def __call__(self, input_ids: torch.Tensor, scores: object, **_: object) -> torch.Tensor:  # noqa: ARG002
        import torch

        texts = self._tokenizer.batch_decode(input_ids[:, self._n_prompt :], skip_special_tokens=True)
        return torch.tensor([bool(_QUOTE.search(text)) for text in texts], device=input_ids.device)
