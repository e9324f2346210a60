"""What a GPU does to rows, run here on the CPU: blocks, tiles, the order of the work, and what of it needs no GPU at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conceptatlas.base.errors import WorkError
from conceptatlas.runtime.streams import one_behind
from conceptatlas.saes import SparseColumns, _device, _topk, encode_dense, encode_rows, mixed
from conceptatlas.saes._device import Float32Device, encode_on_device, paired_products
from conceptatlas.saes.architectures import build_encoder
from conceptatlas.saes.encode import tile_size
from conceptatlas.saes.mixed import round_rows, to_mixed
from conceptatlas.saes.sparse import below, from_entries
from tests.helpers.tiny_saes import tiny_parts


def rows(n: int = 300, d: int = 16) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(1)) * 1.5


@pytest.mark.parametrize("low", [False, True])
@pytest.mark.parametrize("normalisation", ["none", "layer_norm"])
def test_blocks_of_rows_change_nothing(low: bool, normalisation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = build_encoder(*tiny_parts("jumprelu", normalize_activations=normalisation))
    some, x = to_mixed(encoder) if low else encoder, rows()
    whole = encode_on_device(x, some, 64)
    monkeypatch.setattr(_device, "BLOCK_ROWS", 128)
    prepared: list[int] = []
    prepare = _device.prepare_rows
    monkeypatch.setattr(_device, "prepare_rows", lambda part, *more: prepared.append(len(part)) or prepare(part, *more))
    found = encode_on_device(x, some, 24)
    assert prepared == [128, 128, 44], "memory beside the rows must not grow with their number"
    np.testing.assert_array_equal(found.indptr, whole.indptr)
    np.testing.assert_array_equal(found.rows, whole.rows)
    np.testing.assert_allclose(found.values, whole.values, rtol=1e-4 if not low else 0.02, atol=0 if not low else 0.02)
    plain = encode_dense(x, encoder).numpy()
    np.testing.assert_array_equal(found.to_dense(300) != 0, plain != 0)


def test_topk_rows_are_made_ready_tile_by_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, x = build_encoder(*tiny_parts("topk")), rows(50)
    prepared: list[int] = []
    prepare = _topk.prepare_rows
    monkeypatch.setattr(_topk, "prepare_rows", lambda part, *more: prepared.append(len(part)) or prepare(part, *more))
    found = _topk.encode_topk(x, encoder, 20)
    assert sorted(prepared) == [10, 20, 20]
    np.testing.assert_allclose(found.to_dense(50), encode_dense(x, encoder).numpy(), rtol=1e-4, atol=1e-4)


def test_a_row_that_is_not_finite_is_named_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_device, "BLOCK_ROWS", 128)
    x = rows()
    x[200, 3] = torch.nan
    with pytest.raises(WorkError, match="Row 200 of the hidden states is not finite"):
        encode_on_device(x, build_encoder(*tiny_parts("jumprelu")), 64)
    with pytest.raises(WorkError, match="Row 200 of the hidden states is not finite"):
        _topk.encode_topk(x, build_encoder(*tiny_parts("topk")), 64)


def test_tiles_on_a_gpu_fit_blocks() -> None:
    gpu = torch.device("cuda")
    assert tile_size(1_000_000, gpu) == tile_size(_device.BLOCK_ROWS, gpu) == 2048
    assert tile_size(1_000, gpu) > 60_000


def test_products_are_queued_ahead_and_picked_through_in_a_stream_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is read before it is made, nor overwritten before it is read, and products never wait for the host."""
    log: list[str] = []
    marks: list[str] = []

    class Event:
        def __init__(self, device: torch.device) -> None:
            marks.append(f"{'products' if '[' not in log or log.count('[') == log.count(']') else 'picked'}")
            self.name = f"{marks[-1]} {marks.count(marks[-1]) - 1}"

        def hold(self) -> None:
            log.append(f"after {self.name}:")

        def wait(self) -> None:
            log.append(f"host waits for {self.name}")

    class Stream:
        @contextmanager
        def work(self) -> Iterator[None]:
            log.append("[")
            yield
            log.append("]")

    def products(self: Float32Device, part: slice) -> torch.Tensor:
        log.append(f"make {part.start}")
        return torch.mm(self.encoder.W_enc[:, part].t(), self.x_TD.t())

    def active(self: Float32Device, made: torch.Tensor, part: slice) -> tuple[torch.Tensor, torch.Tensor]:
        log.append(f"pick {part.start}")
        return made, made > self.threshold[part, None]

    monkeypatch.setattr(_device, "Event", Event)
    monkeypatch.setattr(_device, "stream_for", lambda use, device: Stream())
    monkeypatch.setattr(Float32Device, "products", products)
    monkeypatch.setattr(Float32Device, "active", active)
    encode_on_device(rows(), build_encoder(*tiny_parts("jumprelu", d_sae=3)), 1)
    assert log == [
        "make 0", "make 1",
        "[", "after products 0:", "pick 0", "]", "after picked 0:", "make 2",
        "[", "after products 1:", "pick 1", "]", "after picked 1:",
        "[", "after products 2:", "pick 2", "]", "after picked 2:",
        "host waits for picked 0", "host waits for picked 1", "host waits for picked 2",
    ]  # fmt: skip


def test_two_tiles_of_products_exist_at_a_time() -> None:
    """What was taken is let go before the next is made."""
    alive, most = [0], [0]

    class Tile:
        def __init__(self) -> None:
            alive[0] += 1
            most[0] = max(most[0], alive[0])

        def __del__(self) -> None:
            alive[0] -= 1

    assert list(map(lambda tile: type(tile), one_behind(map(lambda _: Tile(), range(6))))) == [Tile] * 6  # noqa: C417
    assert most[0] == 2


def random_columns(n_rows: int, n_features: int, density: float, seed: int) -> tuple[SparseColumns, np.ndarray]:
    rng = np.random.default_rng(seed)
    dense = np.where(rng.random((n_rows, n_features)) < density, rng.standard_normal((n_rows, n_features)), 0)
    dense = dense.astype(np.float32)
    row, feature = dense.nonzero()
    return from_entries(row, feature, dense[row, feature], n_features), dense


@settings(deadline=None, max_examples=40)
@given(
    n=st.integers(1, 40), f=st.integers(1, 9), cut=st.integers(0, 45), density=st.floats(0, 1), seed=st.integers(0, 99)
)
def test_columns_are_cut_to_their_first_rows_and_put_together_again(
    n: int, f: int, cut: int, density: float, seed: int
) -> None:
    columns, dense = random_columns(n, f, density, seed)
    first = columns.first_rows(cut)
    np.testing.assert_array_equal(first.to_dense(n)[:cut], dense[:cut])
    assert first.nnz == np.count_nonzero(dense[:cut])
    cut = min(cut, n)
    rest = dense[cut:]
    row, feature = rest.nonzero()
    joined = below([first, from_entries(row, feature, rest[row, feature], f)], [0, cut])
    for a, b in zip(joined, columns, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype


def test_rounding_on_a_device_is_that_of_the_compiled_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    x = rows(70, 24) * torch.logspace(-3, 3, 70)[:, None]
    low, norms = round_rows(x)
    monkeypatch.setattr(mixed, "_ROUNDED", 24 * 16)
    there = torch.zeros_like(low)
    there[:, 24:] = low[:, 24:]
    found = mixed._round_on_device(there, x)
    assert torch.equal(there, low)
    torch.testing.assert_close(found, norms, rtol=1e-5, atol=0)


def test_paired_products_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_device, "GATHERED", 16 * 5)
    left, right = rows(20), rows(30)
    i, j = torch.arange(20).repeat(2), torch.arange(40) % 30
    expected = (left[i].double() * right[j].double()).sum(dim=1).float()
    torch.testing.assert_close(paired_products(left, i, right, j), expected, rtol=1e-5, atol=1e-5)
    assert paired_products(left, i[:0], right, j[:0]).shape == (0,)


def test_products_on_an_older_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where ``torch.mm`` cannot give float32, it gives bfloat16, and is told not to round in the middle of a sum."""
    gpu = torch.device("cuda")
    matmul = torch.backends.cuda.matmul
    seen: list[bool] = []
    multiply = torch.mm

    def older_mm(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        seen.append(matmul.allow_bf16_reduced_precision_reduction)
        return multiply(left, right)

    monkeypatch.setattr(torch, "mm", older_mm)
    monkeypatch.setattr(mixed, "_GIVES_FLOAT32", False)
    before = matmul.allow_bf16_reduced_precision_reduction
    eye = torch.eye(3, dtype=torch.bfloat16)
    assert torch.equal(mixed.low_product(gpu)(eye, eye), eye)
    assert seen == [False]
    assert matmul.allow_bf16_reduced_precision_reduction == before


def test_products_on_this_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "mm", lambda left, right, **options: options)
    monkeypatch.setattr(mixed, "_GIVES_FLOAT32", True)
    eye = torch.eye(3, dtype=torch.bfloat16)
    assert mixed.low_product(torch.device("cuda"))(eye, eye) == {"out_dtype": torch.float32}
    assert mixed.low_product(torch.device("cpu"))(eye, eye) == {}


def test_an_encoder_on_a_device_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way for gated SAEs and few columns, with the device's path in place of the CPU's."""
    monkeypatch.setattr(
        "conceptatlas.saes.encode.encode_on_cpu", lambda x, some, tile, ready: encode_on_device(x, some, 20)
    )
    encoder, x = build_encoder(*tiny_parts("gated")), rows(60)
    np.testing.assert_allclose(
        encode_rows(x, encoder).to_dense(60), encode_dense(x, encoder).numpy(), rtol=1e-4, atol=1e-4
    )
    few = encode_rows(x, encoder, columns=[9, 2])
    np.testing.assert_allclose(few.to_dense(60), encode_dense(x, encoder).numpy()[:, [9, 2]], rtol=1e-4, atol=1e-4)
