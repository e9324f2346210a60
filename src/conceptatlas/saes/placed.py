"""One SAE: its names and where it belongs, before anything of it is loaded."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, replace
from typing import Any, Self

from conceptatlas.base.errors import InputError
from conceptatlas.saes.names import ConfigStatus
from conceptatlas.saes.registry import find_entry, neuronpedia_url
from conceptatlas.subjects.sites import Site

REGISTRY_LAYOUT = "registry"
FROZEN_DECODER = "frozen_decoder"
_SLUG_LENGTH = 150


@dataclass(frozen=True)
class PlacedSAE:
    """The names and the place of an SAE. Plain values only, so that it can be sent to workers."""

    sae_id: str
    """Its stable name within the release."""
    release: str
    """SAELens's release, or the name of the folder it was found in."""
    site: str
    """Where the encoder reads, as SAELens writes it; empty only while the configuration is unknown."""
    layout: str
    """``registry``, or the layout of a local folder."""
    path: str
    """Folder on this machine, or path in the repository."""
    repo_id: str | None = None
    """Hugging Face repository; None for a local SAE."""
    site_out: str | None = None
    """Where a transcoder writes; None for an SAE, which writes where it reads."""
    d_in: int | None = None
    """Width of the site; None only while the configuration is unknown."""
    d_sae: int | None = None
    """Number of features; None only while the configuration is unknown."""
    architecture: str | None = None
    """SAELens's name; None only while the configuration is unknown."""
    average_l0: float | None = None
    """Mean number of active features per row: the registry's figure, else the configuration's, else measured."""
    l0_measured: bool = False
    """Whether ``average_l0`` was measured here."""
    neuronpedia_id: str | None = None
    """Where this very SAE stands on Neuronpedia; None where it does not."""
    model_name: str | None = None
    """The model it was trained on, where that is said."""
    config_status: ConfigStatus = "known"
    """Whether site and width are known, inferred from the name, or unknown until the files are there."""
    norm_scale: float | None = None
    """Known factor of ``expected_average_only_in``."""
    centred: bool = False
    """Whether it was trained on a model with centred writing weights: each row's own mean over d_model is taken off."""
    asked_by: str = field(default="", compare=False)
    """The specification that it was resolved from, and by which it is found again."""
    config: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """The configuration in SAELens's terms, as far as it was read."""

    @property
    def layer(self) -> int | None:
        """Return the block of the site; None for the embedding."""
        match = re.search(r"blocks\.(\d+)\.", self.site)
        return int(match[1]) if match else None

    @property
    def is_local(self) -> bool:
        """Return whether it was found in a folder of this machine."""
        return self.layout != REGISTRY_LAYOUT

    @property
    def reads_centred(self) -> bool:
        """Return whether each row's own mean is to be taken off before it is encoded."""
        return self.centred and Site.parse(self.site).is_written

    @property
    def slug(self) -> str:
        """Return a flat name for folders, from release and sae_id alone; two SAEs never share one."""
        digest = hashlib.sha256(f"{self.release}\0{self.sae_id}".encode()).hexdigest()[:8]
        readable = re.sub(r"[^A-Za-z0-9._-]+", "_", f"{self.release}__{self.sae_id}").strip("._")
        return f"{readable[:_SLUG_LENGTH]}-{digest}"

    @property
    def control_of(self) -> str | None:
        """Return the SAE whose frozen-decoder control this is, as its metadata say (``conceptatlas train --control``)."""
        ours = (self.config.get("metadata") or {}).get("conceptatlas")
        return str(ours.get("of")) if isinstance(ours, dict) and ours.get("control") == FROZEN_DECODER else None

    @property
    def is_row_wise(self) -> bool:
        """Return whether its rows can be encoded one by one (else :func:`~conceptatlas.saes.encode_sequences`)."""
        from conceptatlas.saes.architectures import ARCHITECTURES

        return self.architecture is None or ARCHITECTURES[self.architecture].row_wise

    @property
    def reconstructs(self) -> bool:
        """Return whether its decoder gives back a known site: not where a transcoder does not say where it writes.

        Nor for one layer of a cross-layer transcoder, which gives back its site together with the layers before it.
        """
        from conceptatlas.saes.architectures import ARCHITECTURES

        if self.site_out is None and self.architecture is not None and ARCHITECTURES[self.architecture].transcodes:
            return False
        entry = None if self.is_local else find_entry(self.release, self.sae_id)
        return entry is None or not entry.is_cross_layer

    def url(self, feature: int) -> str:
        """Return the Neuronpedia page of a feature, or an empty string."""
        return neuronpedia_url(self.neuronpedia_id, feature)

    def measured(self, l0: float) -> Self:
        """Return the same source with a measured L0, where none was published."""
        return self if self.average_l0 is not None else replace(self, average_l0=round(l0, 1), l0_measured=True)


def require_width(source: PlacedSAE, d_model: int) -> None:
    """Refuse an SAE that does not fit the model.

    Sites that are not as wide as the residual stream (``attn.hook_z``) are checked when they are recorded.

    Raises:
        InputError: ``d_in`` is not the model's width.
    """
    residual = not source.site.endswith(("hook_z", "hook_q", "hook_k", "hook_v", "hook_post"))
    if residual and source.d_in is not None and source.d_in != d_model:
        raise InputError(
            f"The SAE {source.sae_id!r} takes rows of width {source.d_in} (its d_in), and the model's width is {d_model}; "
            "it belongs to another model."
        )
