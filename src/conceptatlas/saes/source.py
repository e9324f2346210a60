"""One SAE that can be loaded: where it belongs, and the ways to have its halves in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from conceptatlas.saes.placed import PlacedSAE

if TYPE_CHECKING:
    import torch

    from conceptatlas.saes.architectures import Decoder
    from conceptatlas.saes.encoder import Encoder


@dataclass(frozen=True)
class SAESource(PlacedSAE):
    """An SAE that is named and placed but not yet in memory."""

    def completed(self) -> Self:
        """Return the same source with its configuration read, checked against what its name said.

        Raises:
            InputError: The configuration cannot be had, or differs from what was inferred.
        """
        from conceptatlas.saes.loading import complete

        return complete(self)

    def load(self, device: torch.device | str = "cpu", dtype: str = "float32") -> Any:
        """Return the ``sae_lens.SAE`` (slow the first time: SAELens takes seconds to import).

        Raises:
            InputError: The files cannot be had or read.
        """
        from conceptatlas.saes.loading import load_sae

        return load_sae(self, str(device), dtype)

    def load_encoder(self, device: torch.device | str = "cpu", dtype: str = "float32") -> Encoder:
        """Return the encoder half as plain tensors; where the format allows it, nothing else is read.

        Args:
            device: Where the tensors go.
            dtype: ``float32``, or ``mixed`` (bfloat16 products, the entries near the threshold again in float32).

        Raises:
            InputError: The files cannot be had or read, or the architecture is not row-wise.
        """
        from conceptatlas.saes.loading import load_encoder

        return load_encoder(self, str(device), dtype)

    def load_decoder(self, device: torch.device | str = "cpu") -> Decoder:
        """Return the decoder half as plain tensors (for the self-check and for effects).

        Raises:
            InputError: The files cannot be had or read, or the architecture is not row-wise.
        """
        from conceptatlas.saes.loading import load_decoder

        return load_decoder(self, str(device))
