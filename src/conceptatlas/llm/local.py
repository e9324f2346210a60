"""A Hugging Face model on this machine, standing in for an endpoint."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from conceptatlas.base.errors import InputError
from conceptatlas.llm.model import BadAnswer, ChatRequest, Reply


class LocalModel:
    """A causal language model from a folder or hub id; loaded on the first question, one answer at a time."""

    def __init__(self, path: str, *, device: str = "auto") -> None:
        self.name = Path(path).name if Path(path).is_dir() else path
        self.endpoint = f"local:{Path(path).resolve()}" if Path(path).is_dir() else "local"
        self._path = path
        self._device = device
        self._lock = threading.Lock()
        self._loaded: tuple[Any, Any] | None = None

    def close(self) -> None:
        """Let go of the model."""
        self._loaded = None

    def complete(self, request: ChatRequest) -> Reply:
        """Answer once; greedy at temperature 0, else sampled with the request's number as the seed.

        Raises:
            BadAnswer: The prompt is longer than the model takes, or the answer is empty or cut off.
            InputError: The model cannot be loaded.
        """
        with self._lock:
            return self._generate(request)

    def _load(self) -> tuple[Any, Any]:
        if self._loaded is None:
            import torch
            from transformers import AutoModelForCausalLM, AutoTokenizer

            try:
                with _quiet():
                    tokenizer = AutoTokenizer.from_pretrained(self._path)
                    model = AutoModelForCausalLM.from_pretrained(self._path, dtype="auto")
            except (OSError, ValueError) as error:
                raise InputError(
                    f"Cannot load the model {self._path!r} ({str(error).splitlines()[0]}); name a folder or a hub id."
                ) from error
            device = self._device
            if device == "auto":
                device = "cuda" if torch.cuda.is_available() else "cpu"
            self._loaded = (tokenizer, model.to(device).eval())
        return self._loaded

    def _generate(self, request: ChatRequest) -> Reply:
        import torch

        tokenizer, model = self._load()
        ids = tokenizer(_prompt(tokenizer, request), return_tensors="pt", add_special_tokens=False).to(model.device)
        n_prompt = int(ids["input_ids"].shape[1])
        room = int(getattr(model.config.get_text_config(), "max_position_embeddings", 1 << 30)) - n_prompt
        if room < 1:
            raise BadAnswer(f"the prompt's {n_prompt} tokens leave no room for an answer")
        sampling = (
            {"do_sample": True, "temperature": request.temperature} if request.temperature > 0 else {"do_sample": False}
        )
        with torch.random.fork_rng(devices=_devices(model)), torch.inference_mode():
            torch.manual_seed(request.sample)
            output = model.generate(
                input_ids=ids["input_ids"],
                attention_mask=ids["attention_mask"],
                max_new_tokens=min(room, request.max_tokens),
                pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
                **sampling,
            )
        new = output[0, n_prompt:]
        text = tokenizer.decode(new, skip_special_tokens=True).strip()
        if not text:
            raise BadAnswer("the answer is empty")
        if len(new) >= min(room, request.max_tokens):
            raise BadAnswer("the answer was cut off at the longest allowed")
        return Reply(text, prompt_tokens=n_prompt, completion_tokens=len(new))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Show the library's loading bar to people only."""
    from transformers.utils import logging

    hide = logging.is_progress_bar_enabled() and not sys.stderr.isatty()
    if hide:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if hide:
            logging.enable_progress_bar()


def _devices(model: Any) -> list[Any]:
    return [model.device] if model.device.type == "cuda" else []


def _prompt(tokenizer: Any, request: ChatRequest) -> str:
    """Return the prompt under the model's chat template; instructions join the user's turn if it has no system."""
    user = f"{request.system}\n\n{request.user}"
    if not tokenizer.chat_template:
        return f"{tokenizer.bos_token or ''}{user}\n\n"
    from jinja2 import TemplateError

    turns = [{"role": "system", "content": request.system}, {"role": "user", "content": request.user}]
    try:
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
    except TemplateError:
        turns = [{"role": "user", "content": user}]
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
