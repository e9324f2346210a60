"""Our kernel against SAELens's own ``encode``, and the fast path against the plain formulas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conceptatlas.base.errors import InputError, WorkError
from conceptatlas.saes import (
    SparseColumns,
    encode_dense,
    encode_rows,
    encode_sequences,
    encoder_of,
    resolve_saes,
    spread_columns,
)
from conceptatlas.saes.architectures import ARCHITECTURES, build_encoder
from conceptatlas.saes.encoder import Encoder, prepare_rows, threshold_encoder
from conceptatlas.saes.mixed import to_mixed
from tests.helpers.tiny_saes import BY_SEQUENCE, ROW_WISE, tiny_parts, write_saelens

# A float32 product of this size is known to about this much; only entries this near a threshold may flip.
ROUNDING = 1e-4


def rows(n: int = 40, d: int = 16, seed: int = 1) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) * 1.5


def assert_same(found: SparseColumns, dense: torch.Tensor, encoder: Encoder, x: torch.Tensor) -> None:
    """Values agree, and the active set differs at most where float32 cannot tell."""
    expected = dense.detach().float().numpy()
    got = found.to_dense(len(expected))
    flipped = (got != 0) != (expected != 0)
    if flipped.any():
        assert encoder.activation == "threshold", "ties between the k-th and the next are not expected here"
        pre = (prepare_rows(x, encoder) @ encoder.W_enc + encoder.bias).numpy()
        assert encoder.threshold is not None
        distance = np.abs(pre - encoder.threshold.numpy())[flipped]
        assert distance.max() < ROUNDING
        assert flipped.sum() <= max(1, flipped.size // 10_000)
    np.testing.assert_allclose(np.where(flipped, 0, got), np.where(flipped, 0, expected), rtol=1e-4, atol=1e-4)


def assert_well_formed(found: SparseColumns, n_rows: int) -> None:
    assert (found.indptr.dtype, found.rows.dtype, found.values.dtype) == (np.int64, np.int32, np.float32)
    assert found.indptr[0] == 0
    assert found.indptr[-1] == len(found.rows) == len(found.values)
    assert (found.values != 0).all()
    for f in range(found.n_features):
        where, _ = found.column(f)
        assert (np.diff(where) > 0).all()
        assert len(where) == 0 or (where[0] >= 0 and where[-1] < n_rows)


VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in ROW_WISE),
    *((name, {"apply_b_dec_to_input": False}) for name in ROW_WISE if not name.endswith("transcoder")),
    *((name, {"normalize_activations": how}) for name in ROW_WISE for how in ("layer_norm", "constant_norm_rescale")),
    *((name, {"rescale_acts_by_decoder_norm": True}) for name in ("topk", "abstopk")),
    ("transcoder", {"d_out": 24}),
    ("jumprelu_skip_transcoder", {"d_out": 24}),
]


@pytest.mark.parametrize(("architecture", "config"), VARIANTS)
def test_equals_saelens(tmp_path: Path, architecture: str, config: dict[str, Any]) -> None:
    write_saelens(tmp_path / "sae", architecture, **config)
    (source,) = resolve_saes([str(tmp_path)])
    sae = source.load()
    assert sae.cfg.architecture() == architecture
    x, encoder = rows(), source.load_encoder()
    found = encode_rows(x, encoder)
    assert_well_formed(found, len(x))
    assert 0 < found.nnz < x.shape[0] * encoder.d_sae
    assert_same(found, sae.encode(x), encoder, x)
    assert_same(encode_rows(x, encoder_of(sae)), sae.encode(x), encoder, x)


def test_every_architecture_of_saelens_is_known() -> None:
    import sae_lens  # noqa: F401
    from sae_lens.registry import SAE_CLASS_REGISTRY

    assert set(SAE_CLASS_REGISTRY) == set(ARCHITECTURES)
    assert {name for name, spec in ARCHITECTURES.items() if spec.row_wise} == set(ROW_WISE)


def test_hook_z_is_flattened(tmp_path: Path) -> None:
    write_saelens(tmp_path / "sae", "jumprelu", hook="blocks.1.attn.hook_z", reshape_activations="hook_z")
    (source,) = resolve_saes([str(tmp_path)])
    heads = rows().reshape(40, 4, 4)
    encoder = source.load_encoder()
    assert_same(encode_rows(heads, encoder), source.load().encode(heads), encoder, heads)


def test_batchtopk_is_a_jumprelu_at_inference(tmp_path: Path) -> None:
    from sae_lens import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig

    with torch.random.fork_rng():
        torch.manual_seed(0)
        trained = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(d_in=16, d_sae=64, k=4))
    trained.topk_threshold = torch.tensor(0.02, dtype=torch.double)
    trained.cfg.metadata.hook_name = "blocks.0.hook_resid_post"
    trained.save_inference_model(str(tmp_path / "sae"))
    (source,) = resolve_saes([str(tmp_path)])
    assert source.architecture == "jumprelu"
    x, encoder = rows() * 3, source.load_encoder()
    assert encode_rows(x, encoder).nnz > 0
    assert_same(encode_rows(x, encoder), source.load().encode(x), encoder, x)


@settings(deadline=None, max_examples=40)
@given(
    n=st.integers(0, 21),
    d_sae=st.integers(5, 70),
    tile=st.integers(1, 80),
    architecture=st.sampled_from(ROW_WISE),
    data=st.data(),
)
def test_tiles_and_columns_change_nothing(
    n: int, d_sae: int, tile: int, architecture: str, data: st.DataObject
) -> None:
    encoder = build_encoder(*tiny_parts(architecture, d_sae=d_sae))
    x = rows(n, seed=n)
    found = encode_rows(x, encoder, tile_features=tile)
    assert_well_formed(found, n)
    assert_same(found, encode_dense(x, encoder), encoder, x)
    chosen = data.draw(st.lists(st.integers(0, d_sae - 1), unique=True, max_size=6))
    part = encode_rows(x, encoder, columns=chosen, tile_features=tile)
    assert_well_formed(part, n)
    np.testing.assert_allclose(part.to_dense(n), encode_dense(x, encoder).numpy()[:, chosen], rtol=1e-4, atol=1e-4)
    spread = spread_columns(part, chosen, d_sae)
    assert_well_formed(spread, n)
    np.testing.assert_array_equal(spread.to_dense(n)[:, chosen], part.to_dense(n))


def test_exact_values() -> None:
    """W = identity, θ = (0, 1, -1): what is stored is relu(x) where x > θ."""
    config, _ = tiny_parts("jumprelu", d_in=3, d_sae=3, apply_b_dec_to_input=False)
    weights = {"W_enc": torch.eye(3), "b_enc": torch.zeros(3), "threshold": torch.tensor([0.0, 1.0, -1.0])}
    x = torch.tensor([[2.0, 1.0, -0.5], [0.0, 1.5, 0.25], [-1.0, 3.0, 0.0]])
    found = encode_rows(x, build_encoder(config, weights))
    assert found.indptr.tolist() == [0, 1, 3, 4]
    assert found.rows.tolist() == [0, 1, 2, 1]
    assert found.values.tolist() == [2.0, 1.5, 3.0, 0.25]


def test_abstopk_keeps_signs() -> None:
    config, _ = tiny_parts("abstopk", d_in=3, d_sae=3, k=2, apply_b_dec_to_input=False)
    found = encode_rows(
        torch.tensor([[-3.0, 1.0, 2.0]]), build_encoder(config, {"W_enc": torch.eye(3), "b_enc": torch.zeros(3)})
    )
    assert found.to_dense(1).tolist() == [[-3.0, 0.0, 2.0]]


@pytest.mark.parametrize("architecture", BY_SEQUENCE)
def test_sequences_go_through_saelens(tmp_path: Path, architecture: str) -> None:
    write_saelens(tmp_path / "sae", architecture)
    (source,) = resolve_saes([str(tmp_path)])
    assert not source.is_row_wise
    with pytest.raises(InputError, match="encode_sequences"):
        source.load_encoder()
    sae = source.load()
    sequences = [rows(5, seed=1), rows(1, seed=2), rows(9, seed=3)]
    keep = [np.arange(len(x)) > 0 for x in sequences]
    expected = torch.cat([sae.encode(x[None])[0][1:] for x in sequences]).detach().numpy()
    found = encode_sequences(sequences, sae, keep=keep)
    assert_well_formed(found, len(expected))
    np.testing.assert_array_equal(found.to_dense(len(expected)), expected)
    few = encode_sequences(sequences, sae, keep=keep, columns=[3, 1])
    np.testing.assert_array_equal(few.to_dense(len(expected)), expected[:, [3, 1]])
    assert encode_sequences([], sae).n_features == 64


def test_unknown_norm_factor_is_an_error() -> None:
    parts = tiny_parts("standard", normalize_activations="expected_average_only_in")
    with pytest.raises(InputError, match="factor is not known"):
        build_encoder(*parts)


def test_known_norm_factor_is_folded_as_saelens_folds_it(tmp_path: Path) -> None:
    from dataclasses import replace

    write_saelens(tmp_path / "sae", "jumprelu", normalize_activations="expected_average_only_in")
    (source,) = resolve_saes([str(tmp_path)])
    source = replace(source, norm_scale=0.37)
    x, encoder = rows(), source.load_encoder()
    assert_same(encode_rows(x, encoder), source.load().encode(x), encoder, x)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"normalize_activations": "covariance_whitening"}, "whitened"),
        ({"normalize_activations": "batch_norm"}, "Unknown normalize_activations 'batch_norm'"),
        ({"architecture": "jumprely"}, "Unknown SAE architecture 'jumprely'; nearest: jumprelu"),
        ({"d_sae": 65}, r"W_enc has shape \[16, 64\] and its configuration says \[16, 65\]"),
    ],
)
def test_bad_configurations(change: dict[str, Any], message: str) -> None:
    config, tensors = tiny_parts("jumprelu")
    with pytest.raises(InputError, match=message):
        build_encoder(config | change, tensors)


def test_bad_rows() -> None:
    encoder = build_encoder(*tiny_parts("jumprelu"))
    with pytest.raises(InputError, match="17 wide and the SAE takes 16"):
        encode_rows(torch.zeros(2, 17), encoder)
    with pytest.raises(InputError, match="Feature 64 does not exist"):
        encode_rows(torch.zeros(2, 16), encoder, columns=[3, 64])
    x = rows(4)
    x[2, 3] = float("nan")
    for columns in (None, [5, 9], list(range(40))):  # all, few (which are checked by their products), many
        with pytest.raises(WorkError, match="Row 2 of the hidden states is not finite"):
            encode_rows(x, encoder, columns=columns)
    x[2, 3] = float("inf")
    with pytest.raises(WorkError, match="Row 2 of the hidden states is not finite"):
        encode_rows(x, encoder, columns=[5])


@pytest.mark.parametrize("tile_features", [None, 16])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_bad_rows_in_mixed(bad: float, tile_features: int | None) -> None:
    """What is measured of the rows tells; large numbers overflow there, too, and are no fault."""
    encoder = to_mixed(build_encoder(*tiny_parts("jumprelu")))
    x = rows(700)
    x[513, 3] = bad
    with pytest.raises(WorkError, match="Row 513 of the hidden states is not finite"):
        encode_rows(x, encoder, tile_features=tile_features)
    x[513, 3] = 1e12
    found, expected = encode_rows(x, encoder, tile_features=tile_features).to_dense(700), encode_dense(x, encoder)
    np.testing.assert_allclose(found, expected.numpy(), rtol=0.02, atol=0.1)
    np.testing.assert_array_equal(found[513] != 0, expected[513].numpy() != 0)


def test_products_that_overflow_are_not_the_rows_fault() -> None:
    encoder = threshold_encoder("standard", torch.full((16, 3), 1e30), torch.zeros(3))
    found = encode_rows(torch.full((2, 16), 1e10), encoder, columns=[0, 2])
    assert found.nnz == 4


def test_rows_that_a_gradient_is_wanted_of() -> None:
    encoder = build_encoder(*tiny_parts("jumprelu", d_sae=200))
    x = rows(30)
    for columns in (None, [3, 5]):
        plain = encode_rows(x, encoder, columns=columns, tile_features=64)
        wanted = encode_rows(x.clone().requires_grad_(), encoder, columns=columns, tile_features=64)
        np.testing.assert_array_equal(plain.values, wanted.values)


def test_the_encoder_of_some_features() -> None:
    encoder = build_encoder(*tiny_parts("gated"))
    x = rows(30)
    some = encode_rows(x, encoder.of([9, 2]))
    every = encode_rows(x, encoder)
    for place, feature in enumerate([9, 2]):
        np.testing.assert_array_equal(some.column(place)[0], every.column(feature)[0])
        np.testing.assert_allclose(some.column(place)[1], every.column(feature)[1], rtol=1e-5)
    with pytest.raises(InputError, match="cannot be encoded one by one"):
        build_encoder(*tiny_parts("topk")).of([1])


def test_missing_parameter() -> None:
    config, tensors = tiny_parts("jumprelu")
    del tensors["threshold"]
    with pytest.raises(InputError, match="lack threshold"):
        build_encoder(config, tensors)
