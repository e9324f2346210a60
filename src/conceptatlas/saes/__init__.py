"""SAEs: find them, place them, load them, check them, and encode rows with them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from conceptatlas.saes.sparse import SparseColumns, spread_columns

if TYPE_CHECKING:
    from conceptatlas.saes._cpu import ReadyRows
    from conceptatlas.saes.architectures import Decoder
    from conceptatlas.saes.catalog import CatalogRow, read_catalog, site_counts
    from conceptatlas.saes.encode import encode_dense, encode_rows, encode_sequences
    from conceptatlas.saes.encoder import Encoder, prepare_rows
    from conceptatlas.saes.loading import decoder_of, encoder_of
    from conceptatlas.saes.placed import require_width
    from conceptatlas.saes.registry import neuronpedia_url
    from conceptatlas.saes.resolving import resolve_saes
    from conceptatlas.saes.selfcheck import CheckRows, SAECheck, check_sae
    from conceptatlas.saes.source import SAESource

# Name -> module. Most of these bring torch along, so they are imported on first use.
_LAZY = {
    "CatalogRow": "catalog",
    "CheckRows": "selfcheck",
    "Decoder": "architectures",
    "Encoder": "encoder",
    "ReadyRows": "_cpu",
    "SAECheck": "selfcheck",
    "SAESource": "source",
    "check_sae": "selfcheck",
    "decoder_of": "loading",
    "encode_dense": "encode",
    "encode_rows": "encode",
    "encode_sequences": "encode",
    "encoder_of": "loading",
    "neuronpedia_url": "registry",
    "read_catalog": "catalog",
    "prepare_rows": "encoder",
    "require_width": "placed",
    "resolve_saes": "resolving",
    "site_counts": "catalog",
}

__all__ = [
    "CatalogRow",
    "CheckRows",
    "Decoder",
    "Encoder",
    "ReadyRows",
    "SAECheck",
    "SAESource",
    "SparseColumns",
    "check_sae",
    "decoder_of",
    "encode_dense",
    "encode_rows",
    "encode_sequences",
    "encoder_of",
    "neuronpedia_url",
    "prepare_rows",
    "read_catalog",
    "require_width",
    "resolve_saes",
    "site_counts",
    "spread_columns",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'conceptatlas.saes' has no attribute {name!r}")
