"""SAEs made on the spot, with thresholds planted so that a known share of entries is active."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from conceptatlas.saes.architectures import Decoder
from conceptatlas.saes.encoder import Encoder, on_device, threshold_encoder
from conceptatlas.saes.mixed import to_mixed


@dataclass
class MadeSAE:
    """What recording asks of an SAE's source, with weights from a seed."""

    slug: str
    site: str
    layer: int
    d_in: int = 32
    d_sae: int = 96
    seed: int = 0
    threshold: float = 1.0
    scale: float = 1.0
    is_row_wise: bool = True
    release: str = "made"
    architecture: str = "jumprelu"
    average_l0: float | None = None
    l0_measured: bool = False
    neuronpedia_id: str | None = None
    model_name: str | None = None
    decoder_scale: float = 0.3
    loads: list[str] = field(default_factory=list)

    @property
    def sae_id(self) -> str:
        return self.slug

    def completed(self) -> MadeSAE:
        return self

    def load_decoder(self, device: Any = "cpu") -> Decoder:
        """The best linear readout there is for a random encoder: its transpose, scaled."""
        encoder = self.load_encoder()
        decoder = Decoder(W_dec=encoder.W_enc.T.contiguous() * self.decoder_scale, b_dec=torch.zeros(self.d_in))
        return on_device(decoder, device)

    def load_encoder(self, device: Any = "cpu", dtype: Any = None) -> Encoder:
        self.loads.append(self.slug)
        generator = torch.Generator().manual_seed(self.seed)
        weights = torch.randn(self.d_in, self.d_sae, generator=generator) / self.d_in**0.5 * self.scale
        bias = 0.1 * torch.randn(self.d_sae, generator=generator)
        threshold = torch.full((self.d_sae,), self.threshold)
        made = threshold_encoder(self.architecture, weights, bias, threshold=threshold).to(device)
        return to_mixed(made) if dtype == "mixed" else made
