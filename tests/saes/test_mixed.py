"""``mixed`` finds the active set of float32, whatever bfloat16 does to the products."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conceptatlas.base.errors import InputError
from conceptatlas.saes import encode_rows, resolve_saes
from conceptatlas.saes._cpu import Float32Tiles, MixedTiles, ReadyRows
from conceptatlas.saes._device import encode_on_device
from conceptatlas.saes.architectures import build_encoder
from conceptatlas.saes.encoder import Encoder, threshold_encoder
from conceptatlas.saes.mixed import BLOCK_ROWS, block_maxima, margin, round_rows, to_mixed
from tests.helpers.tiny_saes import tiny_parts, write_saelens


def case(n: int, d: int, f: int, *, kind: str = "plain", seed: int = 0) -> tuple[torch.Tensor, Encoder]:
    """Rows and a JumpReLU encoder with thresholds half-way between two order statistics of each feature."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=g)
    if kind == "outliers":  # massive dimensions, a large mean, and an attention sink
        x[:, 0] *= 100
        x[:, 1] += 50
        x[n // 2] *= 100
    W = torch.randn(d, f, generator=g) / d**0.5
    bias = torch.randn(f, generator=g) * 0.3 - x.mean(0) @ W
    ordered = (x.double() @ W.double() + bias.double()).sort(dim=0).values
    where = -1 - torch.randint(1, max(2, n // 8), (f,), generator=g)
    pick = torch.arange(f)
    threshold = (ordered[where, pick] + ordered[where - 1, pick]) / 2
    return x, threshold_encoder("jumprelu", W, bias, threshold=threshold.float())


def exact_active(x: torch.Tensor, encoder: Encoder) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    assert encoder.threshold is not None
    return ((x.double() @ encoder.W_enc.double() + encoder.bias) > encoder.threshold).numpy()


def distance(x: torch.Tensor, encoder: Encoder) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """How far every pre-activation is from its threshold, in units of float32 rounding of the sum."""
    assert encoder.threshold is not None
    pre = x.double() @ encoder.W_enc.double() + encoder.bias
    size = x.double().abs() @ encoder.W_enc.double().abs() + encoder.bias.abs()
    return ((pre - encoder.threshold).abs() / (size * 2.0**-24)).numpy()


@pytest.mark.parametrize("kind", ["plain", "outliers"])
@pytest.mark.parametrize(("n", "d", "f"), [(301, 64, 200), (40, 333, 65), (513, 16, 70)])
def test_active_set_is_that_of_float32(n: int, d: int, f: int, kind: str) -> None:
    x, encoder = case(n, d, f, kind=kind)
    plain, found = encode_rows(x, encoder), encode_rows(x, to_mixed(encoder), tile_features=64)
    near = distance(x, encoder) < 4  # float32 itself cannot tell there
    expected = exact_active(x, encoder)
    assert ((found.to_dense(n) != 0) != expected)[~near].sum() == 0
    assert ((plain.to_dense(n) != 0) != expected)[~near].sum() == 0
    assert near.mean() < 0.01
    if kind == "plain":
        both = (found.to_dense(n) != 0) & (plain.to_dense(n) != 0)
        np.testing.assert_allclose(found.to_dense(n)[both], plain.to_dense(n)[both], rtol=0.02, atol=0.02)


def test_bfloat16_alone_would_not_do() -> None:
    """The case is hard enough: without the second look the active set differs."""
    x, encoder = case(301, 64, 200)
    low = x.bfloat16().float() @ encoder.W_enc.bfloat16().float() + encoder.bias
    assert encoder.threshold is not None
    assert ((low > encoder.threshold).numpy() != exact_active(x, encoder)).sum() > 20


@pytest.mark.parametrize("kind", ["plain", "outliers"])
def test_errors_stay_within_the_margin(kind: str) -> None:
    x, encoder = case(300, 96, 400, kind=kind)
    mixed = to_mixed(encoder)
    assert mixed.W_low is not None
    assert mixed.w_norms is not None
    low, norms = round_rows(x)
    exact = (mixed.threshold - mixed.bias - x.double() @ mixed.W_enc.double()).T
    error = ((mixed.W_low.double().T @ low.double().T) - exact).abs()
    reach = margin(mixed.w_norms, norms)
    assert (error <= reach).all()
    assert (error / reach).max() > 0.05, "a margin this wide would cost too much"
    blocks = margin(mixed.w_norms, block_maxima(norms)).repeat_interleave(BLOCK_ROWS, dim=1)[:, :300]
    assert (blocks >= reach * (1 - 1e-6)).all()


@settings(deadline=None, max_examples=30)
@given(
    n=st.integers(1, 19), d=st.integers(1, 12), f=st.integers(1, 150), tile=st.integers(1, 160), seed=st.integers(0, 99)
)
def test_odd_shapes(n: int, d: int, f: int, tile: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=g)
    encoder = threshold_encoder("standard", torch.randn(d, f, generator=g), torch.randn(f, generator=g))
    found = encode_rows(x, to_mixed(encoder), tile_features=tile)
    safe = distance(x, encoder) >= 4
    np.testing.assert_array_equal((found.to_dense(n) != 0)[safe], exact_active(x, encoder)[safe])
    for column in range(f):
        rows, _ = found.column(column)
        assert (np.diff(rows) > 0).all()


@pytest.mark.parametrize("low", [False, True])
def test_the_device_path_agrees(low: bool) -> None:
    """The path that a GPU takes, run here on the CPU, in two tiles."""
    x, encoder = case(301, 64, 200)
    some = to_mixed(encoder) if low else encoder
    found = encode_on_device(x, some, 150)
    near = distance(x, encoder) < 4
    np.testing.assert_array_equal((found.to_dense(301) != 0)[~near], exact_active(x, encoder)[~near])
    own = encode_rows(x, some).to_dense(301)
    both = (found.to_dense(301) != 0) & (own != 0)
    np.testing.assert_allclose(found.to_dense(301)[both], own[both], rtol=0.02, atol=0.02)


def test_columns_and_gates() -> None:
    encoder = build_encoder(*tiny_parts("gated"))
    x = torch.randn(50, 16, generator=torch.Generator().manual_seed(0))
    plain, found = encode_rows(x, encoder), encode_rows(x, to_mixed(encoder))
    np.testing.assert_array_equal(plain.indptr, found.indptr)
    np.testing.assert_array_equal(plain.rows, found.rows)
    np.testing.assert_allclose(plain.values, found.values, atol=0.03, rtol=0.01)
    few = encode_rows(x, to_mixed(encoder), columns=[9, 2])
    np.testing.assert_array_equal(few.column(0)[0], plain.column(9)[0])
    np.testing.assert_array_equal(few.column(1)[0], plain.column(2)[0])


def test_loading(tmp_path: Path) -> None:
    write_saelens(tmp_path / "a", "jumprelu")
    write_saelens(tmp_path / "b", "topk")
    jumprelu, topk = resolve_saes([str(tmp_path)])
    assert jumprelu.load_encoder(dtype="mixed").W_low is not None
    assert topk.load_encoder(dtype="mixed").W_low is not None
    with pytest.raises(InputError, match="Unknown SAE dtype 'mixd'; nearest: mixed"):
        jumprelu.load_encoder(dtype="mixd")


def test_room_is_made_for_dense_features() -> None:
    """Far more active entries than the first guess has room for."""
    x = torch.rand(70, 8, generator=torch.Generator().manual_seed(0)) + 0.1
    encoder = threshold_encoder("standard", torch.ones(8, 90), torch.zeros(90))
    for some in (encoder, to_mixed(encoder)):
        found = encode_rows(x, some, tile_features=90)
        assert found.nnz == 70 * 90
        np.testing.assert_allclose(found.to_dense(70)[:, 3], x.sum(1).numpy(), rtol=0.01)


def test_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, encoder = case(100, 16, 200)
    for some in (encoder, to_mixed(encoder)):
        alone = encode_rows(x, some, tile_features=64)
        before = torch.get_num_threads()
        monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
        shared = encode_rows(x, some, tile_features=64)
        monkeypatch.undo()
        torch.set_num_threads(before)
        for a, b in zip(alone, shared, strict=True):
            np.testing.assert_array_equal(a, b)


def test_rows_are_made_ready_once_for_saes_of_one_site() -> None:
    x, encoder = case(300, 24, 200)
    tiles, blocks, ready = MixedTiles(to_mixed(encoder)), [slice(0, 256), slice(256, 300)], ReadyRows()
    first = ready.of(tiles, x, blocks)
    assert torch.equal(torch.cat([block.x for block in first]), x)
    assert ready.of(MixedTiles(to_mixed(encoder)), x, blocks) is first
    assert ready.of(Float32Tiles(encoder), x, blocks) is not first
    centred = MixedTiles(to_mixed(replace(encoder, b_dec=torch.ones(24))))
    assert ready.of(centred, x, blocks)[0].low is not first[0].low
    other = ready.of(tiles, x.clone(), blocks)
    assert other is not first
    plain = encode_rows(x, to_mixed(encoder), tile_features=64)
    for _ in range(2):
        found = encode_rows(x, to_mixed(encoder), tile_features=64, ready_rows=ready)
        for a, b in zip(plain, found, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("low", [False, True])
def test_cuda(low: bool) -> None:
    x, encoder = case(1000, 256, 2000)
    on_gpu = encoder.to("cuda")
    found = encode_rows(x.cuda(), to_mixed(on_gpu) if low else on_gpu, tile_features=700)
    near = distance(x, encoder) < 8
    np.testing.assert_array_equal((found.to_dense(1000) != 0)[~near], exact_active(x, encoder)[~near])


@pytest.mark.parametrize("more", [0, 64])
@pytest.mark.parametrize("change", [{}, {"rescale_acts_by_decoder_norm": True}])
@pytest.mark.parametrize("architecture", ["topk", "abstopk"])
def test_topk(architecture: str, change: dict[str, bool], more: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The k of float32, also where more features lie near the k-th than are looked at."""
    monkeypatch.setattr("conceptatlas.saes._topk._MORE", more)
    encoder = build_encoder(*tiny_parts(architecture, d_in=24, d_sae=900, k=10, **change))
    x = torch.randn(200, 24, generator=torch.Generator().manual_seed(0))
    plain, found = encode_rows(x, encoder), encode_rows(x, to_mixed(encoder))
    np.testing.assert_array_equal(found.indptr, plain.indptr)
    np.testing.assert_array_equal(found.rows, plain.rows)
    np.testing.assert_allclose(found.values, plain.values, rtol=0.02, atol=0.02)


def test_topk_by_bfloat16_alone_would_not_do() -> None:
    encoder = build_encoder(*tiny_parts("topk", d_in=24, d_sae=900, k=10, apply_b_dec_to_input=False))
    x = torch.randn(200, 24, generator=torch.Generator().manual_seed(0))
    low = x.bfloat16().float() @ encoder.W_enc.bfloat16().float() + encoder.bias
    plain = encode_rows(x, encoder).to_dense(200)
    chosen = torch.zeros_like(low).scatter(1, low.topk(10, dim=1).indices, 1.0).numpy()
    assert ((chosen != 0) != (plain != 0)).sum() > 10
