"""An SAE in memory, ready to encode, and what it asks of the rows that it is given."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from conceptatlas.saes.encoder import Encoder
from conceptatlas.subjects.sites import Site

if TYPE_CHECKING:
    from conceptatlas.saes import Decoder, SAESource


def encoder_bytes(encoder: Encoder) -> int:
    """Return what an encoder's tensors take."""
    return sum(t.numel() * t.element_size() for t in vars(encoder).values() if isinstance(t, torch.Tensor))


@dataclass(frozen=True)
class LoadedSAE:
    """An SAE ready to encode."""

    source: SAESource
    encoder: Encoder | None
    """None for the architectures that are not encoded row by row."""
    sae: Any = None
    """The ``sae_lens.SAE`` of these."""
    decoder: Decoder | None = None
    """The decoder half, where the self-check is to be made."""

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors."""
        if self.encoder is not None:
            return encoder_bytes(self.encoder)
        return sum(t.numel() * t.element_size() for t in self.sae.state_dict().values())


def with_decoder(loaded: LoadedSAE, device: str) -> LoadedSAE:
    """Load the decoder half, too, where the self-check can use one."""
    if loaded.encoder is None or not reconstructs(loaded.source):
        return loaded
    return replace(loaded, decoder=loaded.source.load_decoder(device))


def load_sae(source: SAESource, device: str, sae_dtype: str) -> LoadedSAE:
    """Load what is needed to encode."""
    if not source.is_row_wise:
        return LoadedSAE(source, None, source.load(device))
    return LoadedSAE(source, source.load_encoder(device, sae_dtype))


def output_site(source: SAESource) -> Site | None:
    """Return where a transcoder writes; None for an SAE, which writes where it reads."""
    name = getattr(source, "site_out", None)
    if not name or Site.parse(name) == Site.parse(source.site):
        return None
    return Site.parse(name)


def reconstructs(source: SAESource) -> bool:
    """Whether the decoder gives back a known site, so that FVU can be judged."""
    return getattr(source, "reconstructs", True)


def is_centred(source: SAESource) -> bool:
    """Whether the SAE takes rows without their own mean (its model had centred writing weights)."""
    return bool(getattr(source, "centred", False))


def as_trained(x: torch.Tensor, *, centred: bool) -> torch.Tensor:
    """Return rows [T, D], without their own mean over D where the SAE was trained so."""
    return x - x.float().mean(dim=-1, keepdim=True).to(x.dtype) if centred else x
