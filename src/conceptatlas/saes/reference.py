"""What a recording keeps of an SAE, to find the very same again (see :mod:`conceptatlas.saes.identity`)."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class SAEReference(BaseModel):
    """What finds one SAE again, whatever it was asked for by."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    slug: str
    release: str
    sae_id: str
    site: str
    layout: str
    """``registry``, ``organism`` (built in), or the layout of its own folder."""
    path: str = ""
    """Its own folder (absolute), or its path in the repository; empty for a built-in one."""
    repo_id: str | None = None
    weights: str = ""
    """``sha256:…`` over the files of a local SAE (see :func:`~conceptatlas.base.files.sampled_digest`)."""
    centred: bool = False
    """Whether it takes rows without their own mean (see :attr:`SAESource.centred`)."""
