"""SAEs on a GPU against the plain formulas on the CPU, and the same bytes each time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from conceptatlas.runtime.streams import stream_for
from conceptatlas.saes import _device, encode_dense, encode_rows, mixed
from conceptatlas.saes.architectures import build_decoder, build_encoder
from conceptatlas.saes.encoder import on_device
from conceptatlas.saes.mixed import to_mixed
from conceptatlas.saes.selfcheck import _decoded, _decoded_on_device
from conceptatlas.saes.sparse import SparseColumns
from tests.helpers.tiny_saes import ROW_WISE, tiny_parts

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def rows(n: int = 1000, d: int = 64) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(1)) * 1.5


def parts(architecture: str, **config: Any) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    return tiny_parts(architecture, d_in=64, d_sae=900, **config)


def assert_agrees(found: SparseColumns, dense: torch.Tensor, *, low: bool) -> None:
    """At most one entry in 10,000 may be decided otherwise, where float32 cannot tell; values as exact as products are."""
    got, expected = found.to_dense(len(dense)), dense.numpy()
    flipped = (got != 0) != (expected != 0)
    assert flipped.mean() < 1e-4
    tolerance = 0.02 if low else 1e-4
    np.testing.assert_allclose(
        np.where(flipped, 0, got), np.where(flipped, 0, expected), rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize("low", [False, True])
@pytest.mark.parametrize("normalisation", ["none", "layer_norm", "constant_norm_rescale"])
@pytest.mark.parametrize("architecture", ROW_WISE)
def test_every_architecture(architecture: str, normalisation: str, low: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_device, "BLOCK_ROWS", 384)
    encoder, x = build_encoder(*parts(architecture, normalize_activations=normalisation)), rows()
    there = encoder.to("cuda")
    some = to_mixed(there) if low else there
    for states in (x, x.cuda()):
        found = encode_rows(states, some, tile_features=200)
        assert_agrees(found, encode_dense(x, encoder), low=low)
        again = encode_rows(states, some, tile_features=200)
        for a, b in zip(found, again, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("low", [False, True])
@pytest.mark.parametrize("architecture", ["jumprelu", "gated", "topk"])
def test_some_columns(architecture: str, low: bool) -> None:
    encoder, x = build_encoder(*parts(architecture)), rows()
    some = to_mixed(encoder.to("cuda")) if low else encoder.to("cuda")
    found = encode_rows(x.cuda(), some, columns=[7, 3, 850])
    assert_agrees(found, encode_dense(x, encoder)[:, [7, 3, 850]], low=low)


@pytest.mark.parametrize("architecture", ["jumprelu", "topk"])
def test_without_float32_results(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixed, "_GIVES_FLOAT32", False)
    encoder, x = build_encoder(*parts(architecture)), rows()
    assert_agrees(encode_rows(x.cuda(), to_mixed(encoder.to("cuda"))), encode_dense(x, encoder), low=True)


def test_weights_arrive_whole_with_their_strides() -> None:
    encoder = to_mixed(build_encoder(*parts("gated")))
    device = torch.device("cuda")
    with stream_for("test", device).work():
        there = encoder.to(device)
    torch.cuda.synchronize()
    for name, value in vars(encoder).items():
        if isinstance(value, torch.Tensor):
            moved = getattr(there, name)
            assert moved.device.type == "cuda"
            assert moved.stride() == value.stride()
            assert torch.equal(moved.cpu(), value)


@pytest.mark.parametrize("architecture", ["jumprelu", "gated", "topk", "transcoder"])
def test_decoding(architecture: str) -> None:
    config, tensors = parts(architecture)
    x = rows()
    columns = encode_rows(x, build_encoder(config, tensors))
    decoder = build_decoder(config, tensors)
    there = on_device(decoder, "cuda")
    found = _decoded_on_device(columns, there, 800)
    np.testing.assert_allclose(found, _decoded(columns, decoder, 1000)[:800], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(found, _decoded_on_device(columns, there, 800))


def test_memory_follows_from_the_block() -> None:
    """Twice the rows, and the memory beside rows and weights stays what it was."""
    encoder = to_mixed(build_encoder(*tiny_parts("jumprelu", d_in=512, d_sae=2048)).to("cuda"))
    peaks = []
    for n in (_device.BLOCK_ROWS, 2 * _device.BLOCK_ROWS):
        x = torch.randn(n, 512, device="cuda", dtype=torch.bfloat16)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        encode_rows(x, encoder)
        peaks.append(torch.cuda.max_memory_allocated() - before)
    assert peaks[1] < 1.2 * peaks[0]
