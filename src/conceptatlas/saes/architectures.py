"""From SAELens's configuration and weights to plain tensors: one builder per architecture.

``config`` is a dictionary as SAELens 6 saves it in ``cfg.json``; ``tensors`` has its parameter names. The names that an
encoder needs are asked for first, so that the decoder half of a file need not be read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from conceptatlas.base.errors import InputError, WorkError, unknown_name
from conceptatlas.saes.encoder import Encoder, Normalisation, gated_encoder, threshold_encoder, topk_encoder

Config = Mapping[str, Any]
Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Architecture:
    """How one of SAELens's architectures is encoded."""

    name: str
    parameters: tuple[str, ...] = ()
    """Parameters of the encoder, beside ``W_enc``."""
    build: Callable[[Config, Tensors, Normalisation], Encoder] | None = None
    """Makes the encoder; None where a row's features depend on other rows too (SAELens encodes, by sequence)."""

    @property
    def row_wise(self) -> bool:
        """Return whether a row's features depend on that row only."""
        return self.build is not None

    @property
    def transcodes(self) -> bool:
        """Return whether it predicts one site from another, by its name in SAELens."""
        return self.name.endswith("transcoder")


def _subtracted(config: Config, tensors: Tensors) -> torch.Tensor | None:
    return tensors["b_dec"] if _applies_b_dec(config) else None


def _applies_b_dec(config: Config) -> bool:
    if architecture_of(config).transcodes:
        return False  # b_dec is as wide as the output site
    return bool(config.get("apply_b_dec_to_input", True))


def _build_relu(config: Config, tensors: Tensors, normalisation: Normalisation) -> Encoder:
    return threshold_encoder(
        config["architecture"],
        tensors["W_enc"],
        tensors["b_enc"],
        threshold=tensors.get("threshold"),
        b_dec=_subtracted(config, tensors),
        normalisation=normalisation,
    )


def _build_gated(config: Config, tensors: Tensors, normalisation: Normalisation) -> Encoder:
    return gated_encoder(
        tensors["W_enc"],
        tensors["b_gate"],
        tensors["b_mag"],
        tensors["r_mag"],
        b_dec=_subtracted(config, tensors),
        normalisation=normalisation,
    )


def _build_topk(config: Config, tensors: Tensors, normalisation: Normalisation) -> Encoder:
    return topk_encoder(
        config["architecture"],
        tensors["W_enc"],
        tensors["b_enc"],
        int(config["k"]),
        rank_scale=tensors["W_dec"].norm(dim=-1) if config.get("rescale_acts_by_decoder_norm") else None,
        b_dec=_subtracted(config, tensors),
        normalisation=normalisation,
    )


_JUMPRELU = ("b_enc", "threshold")
ARCHITECTURES: dict[str, Architecture] = {
    spec.name: spec
    for spec in (
        Architecture("standard", ("b_enc",), _build_relu),
        Architecture("jumprelu", _JUMPRELU, _build_relu),
        Architecture("gated", ("b_gate", "b_mag", "r_mag"), _build_gated),
        Architecture("topk", ("b_enc",), _build_topk),
        Architecture("abstopk", ("b_enc",), _build_topk),
        Architecture("transcoder", ("b_enc",), _build_relu),
        Architecture("skip_transcoder", ("b_enc",), _build_relu),
        Architecture("jumprelu_transcoder", _JUMPRELU, _build_relu),
        Architecture("jumprelu_skip_transcoder", _JUMPRELU, _build_relu),
        Architecture("temporal"),
        Architecture("matching_pursuit"),
    )
}


def architecture_of(config: Config) -> Architecture:
    """Return the architecture that a configuration names.

    Raises:
        InputError: We do not know it; the message lists those that we do.
    """
    name = str(config.get("architecture", "standard"))
    if name not in ARCHITECTURES:
        raise unknown_name("SAE architecture", name, ARCHITECTURES)
    return ARCHITECTURES[name]


def encoder_parameters(config: Config) -> tuple[str, ...]:
    """Return the names of the parameters without which this SAE cannot encode."""
    names: tuple[str, ...] = ("W_enc", *architecture_of(config).parameters)
    if _applies_b_dec(config):
        names += ("b_dec",)
    if config.get("rescale_acts_by_decoder_norm"):
        names += ("W_dec",)
    return names


def build_encoder(
    config: Config, tensors: Tensors, *, norm_scale: float | None = None, centred: bool = False
) -> Encoder:
    """Return the encoder of a row-wise SAE, in float32, on the device of ``tensors``.

    Args:
        config: As in SAELens 6's ``cfg.json``.
        tensors: At least :func:`encoder_parameters`, of any float type.
        norm_scale: The known factor of ``expected_average_only_in``, folded into the weights as SAELens folds it.
        centred: Take each row's own mean over d_model off first (folded into the weights, at no cost per row).

    Raises:
        InputError: The architecture is not row-wise, the normalisation is unknown or lacks its factor, a parameter is
            missing or has another shape.
    """
    architecture = architecture_of(config)
    if architecture.build is None:
        raise InputError(f"A {architecture.name} SAE is not encoded row by row; use encode_sequences.")
    missing = [name for name in encoder_parameters(config) if name not in tensors]
    if missing:
        raise InputError(f"The weights of this {architecture.name} SAE lack {', '.join(missing)}; get the file again.")
    floats = {name: tensors[name].detach().to(torch.float32) for name in encoder_parameters(config)}
    _check_shapes(config, floats)
    normalisation = _normalisation(config, norm_scale)
    if config.get("normalize_activations") == "expected_average_only_in" and norm_scale is not None:
        floats["W_enc"] = floats["W_enc"] * norm_scale
        if "b_dec" in floats:
            floats["b_dec"] = floats["b_dec"] / norm_scale
        if "W_dec" in floats:
            floats["W_dec"] = floats["W_dec"] / norm_scale
    if centred:
        floats |= _centred(floats, normalisation)
    return architecture.build(config, floats, normalisation)


def _centred(tensors: Tensors, normalisation: Normalisation) -> dict[str, torch.Tensor]:
    """Return the parameters that make the encoder take the mean off its rows.

    With C = I - 11ᵀ/D, which is symmetric: (x C - b_dec) W = (x - b_dec) C W - b_dec (W - C W), and W - C W repeats the
    mean of W's columns, so that the last term is sum(b_dec) times that mean.

    Raises:
        InputError: The rows are divided by their norm, which changes when the mean is taken off.
    """
    if normalisation == "layer_norm":
        return {}  # it takes the mean off by itself
    if normalisation != "none":
        raise InputError(
            f"The SAE was trained with center_writing_weights and normalize_activations {normalisation!r} together, which "
            "is not supported; fold the normalisation into its weights and save it."
        )
    W_enc = tensors["W_enc"]
    mean = W_enc.double().mean(dim=0)
    changed = {"W_enc": (W_enc.double() - mean).float()}
    if "b_dec" in tensors:
        shift = tensors["b_dec"].double().sum() * mean
        # Gated: the magnitude's product is exp(r_mag) times that of the gate.
        scales = {"b_enc": 1.0, "b_gate": 1.0, "b_mag": tensors["r_mag"].double().exp() if "r_mag" in tensors else 1.0}
        changed |= {n: (tensors[n].double() - scale * shift).float() for n, scale in scales.items() if n in tensors}
    return changed


def _normalisation(config: Config, norm_scale: float | None) -> Normalisation:
    """Return what is done to a row at run time.

    Raises:
        InputError: It cannot be done row by row with what is known.
    """
    name = config.get("normalize_activations") or "none"
    if name == "layer_norm":
        return "layer_norm"
    if name == "constant_norm_rescale":
        return "constant_norm_rescale"
    if name == "expected_average_only_in" and norm_scale is None:
        raise InputError(
            "The SAE was trained on activations scaled to an average norm (expected_average_only_in) and the factor is "
            "not known, so its features would be wrong; fold it with fold_activation_norm_scaling_factor and save it."
        )
    if name == "covariance_whitening":
        raise InputError(
            "The SAE was trained on whitened activations (covariance_whitening) that are not folded into its weights; "
            "fold them with fold_activation_whitening and save it."
        )
    if name not in ("none", "expected_average_only_in"):
        raise unknown_name(
            "normalize_activations",
            str(name),
            ["none", "layer_norm", "constant_norm_rescale", "expected_average_only_in"],
        )
    return "none"


def _check_shapes(config: Config, tensors: Tensors) -> None:
    d_in, d_sae = int(config["d_in"]), int(config["d_sae"])
    expected = {"W_enc": (d_in, d_sae), "b_dec": (d_in,), "W_dec": (d_sae, d_in)}
    for name, tensor in tensors.items():
        shape = expected.get(name, (d_sae,))
        if tuple(tensor.shape) != shape:
            raise InputError(
                f"The SAE's {name} has shape {list(tensor.shape)} and its configuration says {list(shape)} "
                f"(d_in {d_in}, d_sae {d_sae}); the file and the configuration do not belong together."
            )


@dataclass(frozen=True, eq=False)
class Decoder:
    """The decoder half: x̂ = undo(acts W_dec + b_dec), for a row-wise SAE. Float32 on one device."""

    W_dec: torch.Tensor
    """[F, D_out]."""
    b_dec: torch.Tensor
    """[D_out]."""
    normalisation: Normalisation = "none"
    """The row normalisation that is undone after decoding (never for a transcoder)."""
    W_skip: torch.Tensor | None = None
    """[D_out, D_in] or None: added applied to the input (skip transcoders)."""


def build_decoder(config: Config, tensors: Tensors, *, norm_scale: float | None = None) -> Decoder:
    """Return the decoder of a row-wise SAE.

    Raises:
        InputError: As :func:`build_encoder`.
        WorkError: A parameter is missing.
    """
    architecture = architecture_of(config)
    if "W_dec" not in tensors or "b_dec" not in tensors:
        raise WorkError(f"The weights of this {architecture.name} SAE have no decoder.")
    W_dec, b_dec = tensors["W_dec"].detach().to(torch.float32), tensors["b_dec"].detach().to(torch.float32)
    if norm_scale is not None and config.get("normalize_activations") == "expected_average_only_in":
        W_dec, b_dec = W_dec / norm_scale, b_dec / norm_scale
    if config.get("rescale_acts_by_decoder_norm"):
        W_dec = W_dec / W_dec.norm(dim=-1, keepdim=True)
    normalisation = _normalisation(config, norm_scale)
    skip = tensors.get("W_skip")
    return Decoder(
        W_dec,
        b_dec,
        "none" if architecture.transcodes else normalisation,
        None if skip is None else skip.detach().to(torch.float32),
    )
