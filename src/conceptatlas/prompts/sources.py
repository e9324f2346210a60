"""Sources: a model and one of its SAEs, under the name that tables call it by."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from conceptatlas.base.errors import InputError, unknown_name
from conceptatlas.saes import SAESource, resolve_saes

ORGANISM = "organism"
_NAME = re.compile(r"(?P<model>[A-Za-z0-9.-]+)_trainer(?P<trainer>\d+)_layer(?P<layer>\d+)")


@dataclass(frozen=True)
class Preset:
    """A published model whose SAEs are named by trainer and layer."""

    model: str
    release: str

    def sae_id(self, trainer: int, layer: int) -> str:
        """Return the sae_id of a trainer and layer within the release."""
        return f"resid_post_layer_{layer}_trainer_{trainer}"


PRESETS = {
    "llama": Preset("meta-llama/Llama-3.1-8B-Instruct", "llama-3.1-8b-instruct-andyrdt"),
    "qwen": Preset("Qwen/Qwen2.5-7B-Instruct", "qwen2.5-7b-instruct-andyrdt"),
}
DEFAULT_SOURCES = (
    "llama_trainer1_layer11",
    "llama_trainer1_layer15",
    "qwen_trainer1_layer11",
    "qwen_trainer1_layer15",
)


@dataclass(frozen=True)
class Source:
    """One SAE of one model.

    Attributes:
        name: As tables say it: ``llama_trainer1_layer15``.
        short: The model's short name: ``llama``.
        model: What the model is loaded from.
        sae: The SAE.
    """

    name: str
    short: str
    model: str
    sae: SAESource


def preset_of(name: str) -> tuple[str, str]:
    """Return (release, sae_id) of a built-in source's name.

    Raises:
        InputError: It is no name of this form, or of no built-in model.
    """
    found = _NAME.fullmatch(name)
    if found is None or found["model"] not in PRESETS:
        examples = [*DEFAULT_SOURCES, ORGANISM]
        raise InputError(f"{unknown_name('source', name, examples)} Another is given as NAME=MODEL,SAES.")
    preset = PRESETS[found["model"]]
    return preset.release, preset.sae_id(int(found["trainer"]), int(found["layer"]))


def name_of(release: str, sae_id: str) -> str:
    """Return the built-in source's name of an SAE: the inverse of ``preset_of``.

    Raises:
        InputError: The SAE belongs to no built-in source.
    """
    for short, preset in PRESETS.items():
        found = re.fullmatch(r"resid_post_layer_(\d+)_trainer_(\d+)", sae_id)
        if preset.release == release and found:
            return f"{short}_trainer{found[2]}_layer{found[1]}"
    raise InputError(f"The SAE {sae_id!r} of {release!r} belongs to no built-in source; give it as NAME=MODEL,SAES.")


def resolve_sources(specs: Sequence[str]) -> list[Source]:
    """Return the sources that were asked for, those of one model next to each other.

    Args:
        specs: Each a built-in name, ``organism``, or ``NAME=MODEL,SAES`` (SAES may name several).

    Raises:
        InputError: An unknown name, or two sources of one name.
    """
    found: list[Source] = []
    for spec in specs or DEFAULT_SOURCES:
        found += _one(spec)
    names = [source.name for source in found]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"Two sources are called {name!r}; give each a name of its own (NAME=MODEL,SAES).")
    models = list(dict.fromkeys(source.model for source in found))
    return sorted(found, key=lambda source: models.index(source.model))


def _one(spec: str) -> list[Source]:
    if spec == ORGANISM:
        return _named(ORGANISM, ORGANISM, resolve_saes([ORGANISM]))
    if "=" not in spec:
        release, sae_id = preset_of(spec)
        short = spec.split("_")[0]
        (sae,) = resolve_saes([f"{release}:{sae_id}"])
        return [Source(spec, short, PRESETS[short].model, sae)]
    name, _, rest = spec.partition("=")
    model, _, saes = rest.partition(",")
    if not (name and model and saes):
        raise InputError(f"The source {spec!r} is not NAME=MODEL,SAES, such as mine=./model,./saes.")
    resolved = resolve_saes([saes])
    if len(resolved) == 1:
        return [Source(name, name.split("_")[0], model, resolved[0])]
    return _named(name, model, resolved)


def _named(short: str, model: str, saes: Sequence[SAESource]) -> list[Source]:
    """Name several SAEs of one model by layer and a number: their L0 where that tells them apart, else 1, 2 and so on."""
    sources = []
    for sae in saes:
        same = [other for other in saes if other.layer == sae.layer]
        figures = [round(other.average_l0 or 0) for other in same]
        number = round(sae.average_l0 or 0) if len(set(figures)) == len(same) else same.index(sae) + 1
        sources.append(Source(f"{short}_trainer{number}_layer{sae.layer}", short, model, sae))
    return sources
