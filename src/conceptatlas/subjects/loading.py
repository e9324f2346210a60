"""From a model's name to its weights: local folders and the cache first, the hub only for what is missing."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from conceptatlas.base.errors import InputError, nearest
from conceptatlas.base.files import sampled_digest
from conceptatlas.subjects.gguf import SUFFIX as GGUF
from conceptatlas.subjects.gguf import as_plain_model, check_gguf, installed_gguf, only_gguf, without_bar

ORGANISM = "organism"

# TransformerLens's names, as SAELens's registry uses them -> hub ids.
ALIASES: dict[str, str] = {
    "gemma-2b": "google/gemma-2b",
    "gemma-2b-it": "google/gemma-2b-it",
    "gemma-2-2b": "google/gemma-2-2b",
    "gemma-2-2b-it": "google/gemma-2-2b-it",
    "gemma-2-9b": "google/gemma-2-9b",
    "gemma-2-9b-it": "google/gemma-2-9b-it",
    "gemma-2-27b": "google/gemma-2-27b",
    "gpt2-small": "openai-community/gpt2",
    "gpt2": "openai-community/gpt2",
    "mistral-7b": "mistralai/Mistral-7B-v0.1",
    "pythia-70m-deduped": "EleutherAI/pythia-70m-deduped",
    "qwen3-0.6b": "Qwen/Qwen3-0.6B",
    "qwen3-1.7b": "Qwen/Qwen3-1.7B",
    "qwen3-4b": "Qwen/Qwen3-4B",
    "qwen3-8b": "Qwen/Qwen3-8B",
    "qwen3-14b": "Qwen/Qwen3-14B",
    "smollm2": "HuggingFaceTB/SmolLM2-135M-Instruct",
}

# Offered as nearest names beside what is in the cache.
_WELL_KNOWN = (
    "google/gemma-3-270m",
    "google/gemma-3-1b-pt",
    "google/gemma-3-1b-it",
    "google/gemma-3-4b-pt",
    "google/gemma-3-4b-it",
    "meta-llama/Llama-3.1-8B",
    "meta-llama/Llama-3.1-8B-Instruct",
    "Qwen/Qwen2.5-7B-Instruct",
    "deepseek-ai/DeepSeek-R1-Distill-Llama-8B",
)

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_WEIGHT_SUFFIXES = (".safetensors", ".bin")
_WHOLE_BELOW = 64 << 20
_ADAPTER = "adapter_config.json"

T = TypeVar("T")


@dataclass(frozen=True)
class Source:
    """Where a model comes from.

    Attributes:
        id: Its name in artefacts: the hub id, a folder's or a GGUF file's own name, or ``organism``.
        location: A folder's path, a GGUF file's path, or the hub id.
        local: Whether it is a folder or a file.
    """

    id: str
    location: str
    local: bool

    @property
    def pretrained(self) -> tuple[str, dict[str, Any]]:
        """What `from_pretrained` takes to find it: where it lies, and further options."""
        path = Path(self.location)
        if self.local and path.suffix.lower() == GGUF:
            return str(path.parent), {"gguf_file": path.name}
        return self.location, {}


def resolve_source(model: str | Path) -> Source:
    """Turn what the user wrote into a source.

    Raises:
        InputError: It is a folder without a model, a file that is no GGUF, or no possible name.
    """
    if model == ORGANISM:
        from conceptatlas.subjects.organism import organism_path

        return Source(ORGANISM, str(organism_path()), local=True)
    path = installed_gguf(str(model)) or Path(model).expanduser()
    if path.is_dir():
        if (path / _ADAPTER).is_file():
            raise InputError(
                f"The folder {path} holds an adapter ({_ADAPTER}), which is not applied here; merge it into its base model "
                "(peft's merge_and_unload) and save that, or take the adapter's files out to read the base model alone."
            )
        if (path / "config.json").is_file():
            return Source(path.resolve().name, str(path), local=True)
        gguf = only_gguf(path)
        if gguf is None:
            raise InputError(
                f"The folder {path} holds no config.json and no GGUF file, so it is no model; give the folder that "
                "save_pretrained or `hf download` wrote."
            )
        path = gguf
    if path.is_file():
        if path.suffix.lower() != GGUF:
            raise InputError(
                f"{path} is a file, and a model is a folder or a GGUF file; give the folder that holds its config.json."
            )
        check_gguf(path)
        return Source(path.stem, str(path), local=True)
    name = str(model)
    if isinstance(model, Path) or name.startswith((".", "~", "/")) or not _HUB_ID.fullmatch(name):
        raise InputError(f"There is no model folder {name}; check the path, or give a hub id such as {_WELL_KNOWN[0]}.")
    hub_id = ALIASES.get(name.lower(), name)
    return Source(hub_id, hub_id, local=False)


def choose_device(device: str | torch.device) -> torch.device:
    """Return the device: ``auto`` is CUDA, else Apple's MPS, else the CPU.

    Raises:
        InputError: The device is unknown, or this machine has none.
    """
    if device == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(name)
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"Unknown device {device!r}; valid are auto, cpu, cuda, cuda:N and mps.") from error
    if chosen.type == "cuda" and not (torch.cuda.is_available() and (chosen.index or 0) < torch.cuda.device_count()):
        raise InputError(f"The device {device!r} was asked for, but torch finds no such GPU here; use --device cpu.")
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise InputError("The device 'mps' was asked for, but this machine has none; use --device cpu.")
    return chosen


def choose_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype | str:
    """Return the dtype to load with: ``auto`` is the checkpoint's on an accelerator and float32 on a CPU.

    Raises:
        InputError: The name is none of auto, float32, bfloat16, float16.
    """
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == "auto":
        return torch.float32 if device.type == "cpu" else "auto"
    if dtype not in _DTYPES:
        raise InputError(f"Unknown dtype {dtype!r}; valid are auto, {', '.join(_DTYPES)}.")
    return _DTYPES[dtype]


@dataclass(frozen=True)
class Loaded:
    """A model with its tokenizer, its text configuration and its revision."""

    model: Any
    tokenizer: Any
    text_config: Any
    revision: str


def load_model(source: Source, *, device: torch.device, dtype: torch.dtype | str) -> Loaded:
    """Load configuration, tokenizer and weights of ``source``.

    Raises:
        InputError: It is missing, gated, damaged, or of a kind that cannot be read.
    """
    import transformers

    where, how = source.pretrained
    with _quiet():
        cached = source.local or _cached_commit(source) is not None
        config = _fetch(source, lambda offline: transformers.AutoConfig.from_pretrained(where, **how, **offline))
        if getattr(config, "is_encoder_decoder", False):
            raise InputError(f"{source.id} is an encoder-decoder model; only decoders and encoders can be read.")
        _refuse_adapter(source, cached=cached)
        tokenizer = _fetch(source, lambda offline: transformers.AutoTokenizer.from_pretrained(where, **how, **offline))
        model_class = _model_class(config)
        options: dict[str, Any] = {"dtype": dtype}
        attention = _attention(config)
        if attention is not None:
            options["attn_implementation"] = attention
        with without_bar() if "gguf_file" in how else nullcontext():
            model, report = _fetch(
                source,
                lambda offline: model_class.from_pretrained(
                    where, config=config, output_loading_info=True, **options, **how, **offline
                ),
            )
    _check_complete(model, report, source)
    if "gguf_file" in how:
        model = as_plain_model(model)
    revision = content_hash(Path(source.location)) if source.local else _cached_commit(source) or "unknown"
    model = model.to(device).eval().requires_grad_(requires_grad=False)
    _check_finite(model, source)
    return Loaded(model, tokenizer, model.config.get_text_config(), revision)


def _cached_commit(source: Source) -> str | None:
    """Return the commit of a hub model in the cache, or None where it is not there."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(source.location, "config.json")
    return Path(found).parent.name if isinstance(found, str) else None


def _refuse_adapter(source: Source, *, cached: bool) -> None:
    """Refuse a repository that holds an adapter: the library applies it, or without peft leaves it out in silence.

    The hub is asked only where the model was not ``cached`` and has to come from there.

    Raises:
        InputError: It holds one.
    """
    from transformers.utils import find_adapter_config_file

    if not source.local and find_adapter_config_file(source.location, local_files_only=cached) is not None:
        raise InputError(
            f"{source.id} comes with an adapter ({_ADAPTER}); merge it into its base model (peft's merge_and_unload), save "
            "that, and give its folder as --model."
        )


def _model_class(config: Any) -> Any:
    """Return the class that the checkpoint names, so that no weight is dropped or made up."""
    import transformers

    for name in config.architectures or ():
        found = getattr(transformers, name, None)
        if found is not None:
            return found
    return transformers.AutoModelForCausalLM


def _attention(config: Any) -> str | None:
    """Return the attention implementation that a configuration needs, or None for the library's choice.

    Soft-capped attention scores (Gemma-2) are computed by the eager implementation alone; others leave the cap out.
    """
    return "eager" if getattr(config.get_text_config(), "attn_logit_softcapping", None) is not None else None


def _check_complete(model: Any, report: dict[str, Any], source: Source) -> None:
    missing = sorted(report["missing_keys"])
    if missing:
        raise InputError(
            f"The checkpoint of {source.id} lacks {len(missing)} weights of {type(model).__name__} (first: "
            f"{missing[0]}), which would be random; take a complete checkpoint, or mend `architectures` in its config."
        )


def _check_finite(model: Any, source: Source) -> None:
    """Refuse weights that hold NaN or infinity: every state after them would.

    Raises:
        InputError: One does; the message has its file, name and count.
    """
    for name, weight in model.named_parameters():
        # One pass in the usual case: a sum is finite only if all its terms are (and may overflow though they are).
        if weight.is_floating_point() and not bool(torch.isfinite(weight.sum())):
            bad = int((~torch.isfinite(weight)).sum())
            if bad:
                raise InputError(
                    f"The weights of {source.id} hold {bad} values that are NaN or infinite in {name} "
                    f"({_file_of(source, name)}); get the checkpoint again, or load it with another --dtype."
                )


def _file_of(source: Source, name: str) -> str:
    """Return the file that holds a parameter, where that is plain; else where the model lies."""
    from safetensors import safe_open

    if source.local:
        for path in sorted(Path(source.location).glob("*.safetensors")):
            with safe_open(path, framework="pt") as handle:
                keys = set(handle.keys())
            if any(key == name or name.endswith(f".{key}") or key.endswith(f".{name}") for key in keys):
                return str(path)
    return source.location


@contextmanager
def _quiet() -> Iterator[None]:
    """Show the library's loading bar to people only, and its notices to nobody: what matters is checked here."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if bars and not sys.stderr.isatty():
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _fetch(source: Source, load: Callable[[dict[str, bool]], T]) -> T:
    """Load from the folder or the cache; only what is not there comes from the hub."""
    from safetensors import SafetensorError

    if source.local:
        try:
            return load({"local_files_only": True})
        except Exception as error:  # A damaged file makes its readers raise anything.
            raise _damaged(source, error) from error
    with suppress(OSError, ValueError, RuntimeError, SafetensorError):
        return load({"local_files_only": True})
    try:
        return load({})
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise _hub_error(source.id, error) from error


def _damaged(source: Source, error: Exception) -> InputError:
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return InputError(f"Cannot load the model in {source.location}: {first.rstrip('.')}; save or download it again.")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _hub_error(model_id: str, error: Exception) -> InputError:
    names = {type(cause).__name__ for cause in _causes(error)}
    url = f"https://huggingface.co/{model_id}"
    by_hand = f"download it elsewhere (`hf download {model_id} --local-dir DIR`), copy it, and give DIR as --model"
    if "GatedRepoError" in names:
        return InputError(
            f"The model {model_id!r} is gated: accept its terms at {url}, then set HF_TOKEN to a token of that "
            f"account, or {by_hand}."
        )
    close = ", ".join(nearest(model_id, known_models()))
    if "RepositoryNotFoundError" in names:
        return InputError(
            f"Unknown model {model_id!r}: the hub has none of that name, or it is private (set HF_TOKEN); nearest: "
            f"{close}."
        )
    if names & {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectionError", "ConnectError"}:
        return InputError(
            f"Unknown model {model_id!r}: it is neither a folder nor in the cache, and the hub ({url}) cannot be "
            f"reached; check the name (nearest: {close}), or {by_hand}."
        )
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return InputError(f"Cannot load the model {model_id!r}: {first.rstrip('.')}; or {by_hand}.")


def known_models() -> list[str]:
    """Return names to offer: the built-in model, those in the cache, and some that SAEs are published for."""
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    cached = [p.name.removeprefix("models--").replace("--", "/") for p in cache.glob("models--*")]
    return sorted({ORGANISM, *cached, *_WELL_KNOWN, *ALIASES, *ALIASES.values()})


def content_hash(model: Path) -> str:
    """Return ``sha256:…`` over a folder's configuration, tokenizer and weights, or a GGUF file (large files by samples)."""
    if model.is_file():
        return sampled_digest([model], whole_below=_WHOLE_BELOW)
    files = [p for p in model.iterdir() if p.suffix in _WEIGHT_SUFFIXES or p.name in ("config.json", "tokenizer.json")]
    return sampled_digest(files, whole_below=_WHOLE_BELOW)
