"""What was asked for: compared with what a folder holds already, so that nothing is mixed and nothing is done twice."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from conceptatlas.base.errors import InputError, unknown_name
from conceptatlas.recording.manifest import Hidden, Keep

# How the message about a difference calls each key.
_NAMES = {
    "data_hash": "data",
    "model": "--model",
    "saes": "--saes",
    "keep": "--keep",
    "per_feature": "--per-feature",
    "hidden": "--hidden",
    "hidden_sites": "--hidden-sites",
    "fragments": "--fragments",
    "features": "--features",
    "device": "--device",
    "dtype": "--dtype",
    "sae_dtype": "--sae-dtype",
    "max_tokens": "--max-tokens",
    "truncate": "--truncate",
    "shard_rows": "--shard-rows",
    "seed": "--seed",
    "group_near_duplicates": "--group-near-duplicates",
}
# What recordings were made with before an option came.
_BEFORE = {"group_near_duplicates": False}

DEFAULT_PER_FEATURE = 20


def _one_of(option: str, value: str, kind: Any) -> None:
    valid = get_args(kind)
    if value not in valid:
        raise unknown_name(f"value of {option}", value, valid)


@dataclass(frozen=True)
class Request:
    """The options of one call of ``record``, as they were given.

    Attributes:
        model: Hub id, folder or ``organism``.
        saes: Releases, patterns, folders or ``organism``.
        keep: Which rows' features are kept: all, those of final rows, or the strongest examples of each feature.
        per_feature: How many strongest examples (``keep="top"`` only; None means 20).
        hidden: Which rows' hidden states are kept.
        hidden_sites: ``saes``, ``all`` or names of sites with commas.
        fragments: Rows at every token, or at each word's last token.
        features: Only these columns.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        dtype: ``auto``, ``float32``, ``bfloat16`` or ``float16``.
        sae_dtype: ``float32``, or ``mixed`` (bfloat16 products, entries near the threshold again in float32).
        max_tokens: The longest item allowed.
        truncate: Cut longer items instead of refusing them.
        shard_rows: Rows of a shard (None: from the model's size).
        seed: Of the samples that ``keep="top"`` draws.
        group_near_duplicates: Join groups that hold near-duplicates, so that the split keeps them on one side.
    """

    model: str
    saes: tuple[str, ...]
    keep: Keep = "all"
    per_feature: int | None = None
    hidden: Hidden = "final"
    hidden_sites: str = "saes"
    fragments: Literal["token", "word"] = "token"
    features: tuple[int, ...] | None = None
    device: str = "auto"
    dtype: str = "auto"
    sae_dtype: Literal["float32", "mixed"] = "float32"
    max_tokens: int | None = None
    truncate: bool = False
    shard_rows: int | None = None
    seed: int = 0
    group_near_duplicates: bool = True

    def __post_init__(self) -> None:
        _one_of("--keep", self.keep, Keep)
        _one_of("--hidden", self.hidden, Hidden)
        _one_of("--fragments", self.fragments, Literal["token", "word"])
        _one_of("--sae-dtype", self.sae_dtype, Literal["float32", "mixed"])
        _one_of("--device", self.device.split(":")[0], Literal["auto", "cpu", "cuda", "mps"])
        _one_of("--dtype", self.dtype, Literal["auto", "float32", "bfloat16", "float16"])
        if not self.saes and self.hidden == "none":
            raise InputError("There is nothing to record: no SAE was given, and --hidden is none; give --saes.")
        if self.per_feature is not None and self.keep != "top":
            raise InputError(f"--per-feature belongs to --keep top, and --keep is {self.keep}; leave one out.")
        if self.truncate and self.max_tokens is None:
            raise InputError("--truncate needs --max-tokens: say how many tokens an item may have.")
        for option, number in (
            ("--max-tokens", self.max_tokens),
            ("--shard-rows", self.shard_rows),
            ("--per-feature", self.per_feature),
        ):
            if number is not None and number < 1:
                raise InputError(f"{option} is {number}, and must be at least 1.")
        if self.features is not None and any(feature < 0 for feature in self.features):
            raise InputError(f"--features has {min(self.features)}, and features count from 0.")

    def as_dict(self, data_hash: str) -> dict[str, Any]:
        """Return the request as JSON-ready values, paths in their shortest form."""
        found: dict[str, Any] = {"data_hash": data_hash}
        for key in _NAMES:
            if key != "data_hash":
                found[key] = getattr(self, key)
        found["model"] = _normal(self.model)
        found["saes"] = [_normal(name) for name in self.saes]
        found["features"] = None if self.features is None else sorted(set(self.features))
        return found


def _normal(name: str) -> str:
    """Return a path without needless parts; names of releases stay as they are."""
    return os.path.normpath(name) if Path(name).exists() else name


def check_same(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Compare what ``folder`` was recorded with and what is asked now.

    Raises:
        InputError: They differ; the message names the first difference.
    """
    for key, name in _NAMES.items():
        old, new = before.get(key, _BEFORE.get(key)), now.get(key)
        if old == new:
            continue
        if key == "data_hash":
            raise InputError(f"{folder} was recorded from other data; choose another folder for this data.")
        raise InputError(
            f"{folder} was recorded with {name} {_shown(old)}, and now {name} is {_shown(new)}; "
            "choose another folder, or give the same options."
        )


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(str(part) for part in value)
    return "not set" if value is None else str(value)
