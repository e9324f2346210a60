"""Asking a language model: one client for any OpenAI-compatible endpoint or a model on this machine."""

from conceptatlas.llm.cache import AnswerCache, ItemCache, default_cache_folder
from conceptatlas.llm.client import LLM, Ask, Price, RetryPolicy, Usage
from conceptatlas.llm.local import LoadedModel, LocalModel
from conceptatlas.llm.model import (
    BadAnswer,
    ChatModel,
    ChatRequest,
    EndpointFailed,
    Form,
    NoAnswer,
    Reply,
    Stop,
    TryAgain,
)
from conceptatlas.llm.options import LLMOptions, open_llm
from conceptatlas.llm.structured import read_answer, read_json_answer, schema_of

__all__ = [
    "LLM",
    "AnswerCache",
    "Ask",
    "BadAnswer",
    "ChatModel",
    "ChatRequest",
    "EndpointFailed",
    "Form",
    "ItemCache",
    "LLMOptions",
    "LoadedModel",
    "LocalModel",
    "NoAnswer",
    "Price",
    "Reply",
    "RetryPolicy",
    "Stop",
    "TryAgain",
    "Usage",
    "default_cache_folder",
    "open_llm",
    "read_answer",
    "read_json_answer",
    "schema_of",
]
