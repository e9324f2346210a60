"""An SAE as the plain tensors that edits need: faster to load than the SAELens object, and checked against it in tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from conceptatlas.base.errors import InputError
from conceptatlas.recording import Recording
from conceptatlas.saes import encode_dense, prepare_rows

if TYPE_CHECKING:
    from conceptatlas.saes import Decoder, Encoder


class SAETensors:
    """Encoder and decoder of a row-wise SAE. ``encode`` and ``decode`` are those of SAELens.

    Attributes:
        W_dec: Decoder directions, [F, D].
    """

    def __init__(self, encoder: Encoder, decoder: Decoder) -> None:
        self._encoder = encoder
        self._decoder = decoder
        self.W_dec = decoder.W_dec

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Return the features of activations x, [..., D] → [..., F]."""
        flat = encode_dense(x.reshape(-1, x.shape[-1]).float(), self._encoder)
        return flat.reshape(*x.shape[:-1], -1)

    def preactivation(self, x: torch.Tensor, feature: int) -> torch.Tensor:
        """Return one feature's pre-activation, [T], of activations x, [T, D]; differentiable."""
        encoder = self._encoder
        return prepare_rows(x, encoder) @ encoder.W_enc[:, feature] + encoder.bias[feature]

    def decode(self, features: torch.Tensor) -> torch.Tensor:
        """Return the reconstruction of features, [..., F] → [..., D].

        Raises:
            InputError: The SAE normalises its rows, so that a reconstruction needs the row itself.
        """
        if self._decoder.normalisation != "none":
            raise InputError("This SAE normalises each row; its reconstruction is not measured as an edit.")
        return features @ self._decoder.W_dec + self._decoder.b_dec


def load_tensors(recording: Recording, slug: str, *, device: torch.device | str = "cpu") -> SAETensors:
    """Load encoder and decoder of a recorded SAE onto ``device``."""
    source = recording.source(slug)
    return SAETensors(source.load_encoder(device), source.load_decoder(device))
