"""A model on this machine as the labeller: whatever can be studied can label."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from conceptatlas.llm import LocalModel


def local_model(model: str | Path, *, device: str = "auto", dtype: str = "auto") -> LocalModel:
    """Return a model on this machine for `LLMOptions`; it is loaded on the first question.

    Args:
        model: As for `load_subject`: ``organism``, a folder, a GGUF file, a hub id or ``smollm2``.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        dtype: ``auto``, ``float32``, ``bfloat16`` or ``float16``.

    Raises:
        InputError: There is no such folder or file, or it holds no model.
    """
    from conceptatlas.subjects import load_subject, resolve_source

    source = resolve_source(model)
    endpoint = f"local:{Path(source.location).resolve()}" if source.local else "local"
    return LocalModel(source.id, endpoint, partial(load_subject, model, device=device, dtype=dtype))
