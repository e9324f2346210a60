"""What an SAE's configuration asks of the model: centred writing weights, other processing, a BOS.

SAEs can be trained on a model whose weights TransformerLens has processed (``model_from_pretrained_kwargs`` in SAELens's
metadata). What that changes at the SAE's site is done, or said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from conceptatlas.saes.registry import find_entry
from conceptatlas.saes.source import SAESource
from conceptatlas.subjects.sites import Site

if TYPE_CHECKING:
    from conceptatlas.subjects import LanguageSubject

CENTRING = "center_writing_weights"
# Changes logits only, or only where and how the model is run.
_HARMLESS = frozenset({"center_unembed", "device", "device_map", "n_devices", "dtype", "torch_dtype", "token"})
_SHOWN = 3
# Processing -> hooks whose values it changes.
_CHANGES = {
    "fold_ln": {"hook_mlp_in", "mlp.hook_in", "attn.hook_in"},
    "fold_value_biases": {"attn.hook_v", "attn.hook_z"},
    "refactor_factored_attn_matrices": {"attn.hook_q", "attn.hook_k", "attn.hook_v", "attn.hook_z"},
}


@dataclass(frozen=True)
class Asked:
    """What a configuration asks of the model.

    Attributes:
        processing: ``model_from_pretrained_kwargs``, without what is switched off.
        prepend_bos: Whether the texts of its training began with a BOS; None where that is not said.
    """

    processing: Mapping[str, Any]
    prepend_bos: bool | None


def asked_of_model(source: SAESource) -> Asked:
    """Return what the configuration of an SAE (or the registry, which overrides it) asks of the model."""
    metadata = source.config.get("metadata") or {}
    entry = None if source.is_local else find_entry(source.release, source.sae_id)
    said = {**source.config, **metadata, **({} if entry is None else entry.overrides)}
    processing = said.get("model_from_pretrained_kwargs") or {}
    bos = said.get("prepend_bos")
    return Asked({name: value for name, value in processing.items() if value}, bos if isinstance(bos, bool) else None)


def fit_to_model(sources: Sequence[SAESource], subject: LanguageSubject) -> tuple[list[SAESource], list[str]]:
    """Return SAEs as they are to be used with a model, and a sentence on each thing that was done or left out for them.

    Centring the writing weights makes every site that is written to the residual stream mean-free over d_model and, in
    a model with LayerNorm, changes nothing else; so the mean is taken off the rows. TransformerLens leaves models
    with RMSNorm as they are, and so do we.
    """
    fitted = []
    names: dict[str, list[str]] = {}
    for source in sources:
        found, notes = _fit_one(source, subject)
        fitted.append(found)
        for note in notes:
            names.setdefault(note, []).append(f"{source.release}/{source.sae_id}" if source.release else source.sae_id)
    return fitted, [f"{_listed(of)}: {note}" for note, of in names.items()]


def _listed(names: list[str]) -> str:
    if len(names) <= _SHOWN:
        return ", ".join(names)
    return f"{len(names)} SAEs ({', '.join(names[:_SHOWN])}, ...)"


def _fit_one(source: SAESource, subject: LanguageSubject) -> tuple[SAESource, list[str]]:
    asked = asked_of_model(source)
    notes = []
    if CENTRING in asked.processing:
        source = replace(source, centred=subject.ignores_mean)
        if source.reads_centred:
            notes.append("trained with centred writing weights, so each row's own mean is taken off.")
        elif not source.centred:
            notes.append("asks for centred writing weights, which a model without LayerNorm cannot have.")
    for option, value in asked.processing.items():
        changes = _CHANGES.get(option)
        if option in _HARMLESS or option == CENTRING or (changes and Site.parse(source.site).hook not in changes):
            continue
        notes.append(f"trained with {option}={value!r}, which was not done here; its features may differ.")
    notes += _bos_notes(asked, given=subject.bos != "none")
    if source.config_status == "inferred" and (source.config.get("metadata") or {}).get("hook_name_guessed"):
        notes.append(f"nothing says where it belongs; {source.site} was taken for granted.")
    return source, notes


def _bos_notes(asked: Asked, *, given: bool) -> list[str]:
    if asked.prepend_bos is None or asked.prepend_bos == given:
        return []
    if asked.prepend_bos:
        return ["trained with a BOS before each text (prepend_bos), and this model's texts have none."]
    return ["trained without a BOS (prepend_bos false), and the texts here begin with one."]
