"""The self-check on planted SAEs: a right one passes, a wrong model, site or activation function does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from conceptatlas.base.errors import InputError, WorkError
from conceptatlas.saes import check_sae, encode_rows, resolve_saes
from conceptatlas.saes.architectures import Decoder, build_decoder, build_encoder
from conceptatlas.saes.encoder import Encoder, threshold_encoder
from conceptatlas.saes.selfcheck import CheckRows, SAECheck, _decoded_on_device, decode_rows
from tests.helpers.tiny_saes import ROW_WISE, tiny_parts, write_saelens

D, F, ACTIVE = 64, 96, 3


def dictionary(seed: int = 0) -> torch.Tensor:
    """Unit directions [F, D] that a planted model writes its features along."""
    W = torch.randn(F, D, generator=torch.Generator().manual_seed(seed))
    return W / W.norm(dim=1, keepdim=True)


def planted_rows(W_dec: torch.Tensor, n: int = 1500, seed: int = 0) -> torch.Tensor:
    """Rows that are sums of ``ACTIVE`` features of strength 4 to 6, and a little noise."""
    g = torch.Generator().manual_seed(seed)
    acts = torch.zeros(n, F)
    where = torch.rand(n, F, generator=g).topk(ACTIVE, dim=1).indices
    acts.scatter_(1, where, 4 + 2 * torch.rand(n, ACTIVE, generator=g))
    return acts @ W_dec + 0.05 * torch.randn(n, D, generator=g)


def planted_sae() -> tuple[Encoder, Decoder]:
    W_dec = dictionary()
    encoder = threshold_encoder("jumprelu", W_dec.T.contiguous(), torch.zeros(F), threshold=torch.full((F,), 3.0))
    return encoder, Decoder(W_dec * 0.8, torch.zeros(D))


def check(encoder: Encoder, decoder: Decoder, x: torch.Tensor, stated: float | None = 4.0) -> SAECheck:
    return check_sae(encode_rows(x, encoder), decoder, CheckRows(x), name="sae", stated_l0=stated)


def test_the_right_sae_raises_no_alarm() -> None:
    encoder, decoder = planted_sae()
    found = check(encoder, decoder, planted_rows(dictionary()))
    assert (found.status, found.message) == ("ok", "")
    assert found.fvu is not None
    assert found.fvu < 0.6
    assert found.n_rows == 1500


def test_wrong_model_is_caught() -> None:
    encoder, decoder = planted_sae()
    found = check(encoder, decoder, planted_rows(dictionary(seed=1)))
    assert found.status == "suspect"
    assert "variance unexplained" in found.message


def test_wrong_site_is_caught() -> None:
    """Another site of the same model: the same directions after a rotation, at another scale."""
    encoder, decoder = planted_sae()
    rotation = torch.linalg.qr(torch.randn(D, D, generator=torch.Generator().manual_seed(5))).Q
    found = check(encoder, decoder, planted_rows(dictionary()) @ rotation * 3)
    assert found.status == "suspect"


def test_wrong_activation_function_is_caught() -> None:
    """JumpReLU (or TopK) read as ReLU: far more features are active than its own figure says."""
    encoder, decoder = planted_sae()
    relu = threshold_encoder("standard", encoder.W_enc, encoder.bias)
    found = check(relu, decoder, planted_rows(dictionary()))
    assert found.status == "suspect"
    assert "features are active per row where its own figure is 4" in found.message


def test_more_than_k_active_is_an_error() -> None:
    config, tensors = tiny_parts("standard", d_in=D, d_sae=F)
    x = planted_rows(dictionary())
    with pytest.raises(WorkError, match="TopK SAE with k = 3 and has"):
        check_sae(
            encode_rows(x, build_encoder(config, tensors)),
            build_decoder(config, tensors),
            CheckRows(x),
            name="sae",
            k=3,
        )


def test_a_decoder_of_another_shape_is_an_error() -> None:
    encoder, decoder = planted_sae()
    for W_dec in (decoder.W_dec[:-1], decoder.W_dec[:, :-1]):
        with pytest.raises(InputError, match="where 96 features and a site of width 64 make"):
            check(encoder, replace(decoder, W_dec=W_dec), planted_rows(dictionary()))


def test_few_rows_are_not_judged() -> None:
    encoder, decoder = planted_sae()
    found = check(encoder, decoder, planted_rows(dictionary(seed=1), n=999))
    assert (found.status, found.message) == ("not judged", "sae: not judged, 999 rows are fewer than 1,000.")
    assert check(encoder, decoder, torch.zeros(0, D)).status == "not judged"


@pytest.mark.parametrize(
    ("decoded", "stated", "status", "message"),
    [
        (True, 4.0, "ok", ""),
        (False, 4.0, "ok", "sae: only its L0 was compared, there is no reconstruction to judge."),
        (True, None, "ok", "sae: only its reconstruction was judged, no L0 is stated to compare with."),
        (
            False,
            None,
            "not judged",
            "sae: not judged, there is neither a reconstruction nor a stated L0 to compare with.",
        ),
    ],
)
def test_what_could_not_be_compared_is_said(decoded: bool, stated: float | None, status: str, message: str) -> None:
    encoder, decoder = planted_sae()
    x = planted_rows(dictionary())
    found = check_sae(encode_rows(x, encoder), decoder if decoded else None, CheckRows(x), name="sae", stated_l0=stated)
    assert (found.status, found.message) == (status, message)


def test_attention_sinks_are_left_out() -> None:
    encoder, decoder = planted_sae()
    x = planted_rows(dictionary())
    x[[3, 700]] = 500 * torch.randn(2, D, generator=torch.Generator().manual_seed(2))
    assert CheckRows(x).sinks.nonzero()[0].tolist() == [3, 700]
    found = check(encoder, decoder, x)
    assert (found.status, found.n_sinks, found.n_rows) == ("ok", 2, 1498)


def test_transcoders_are_judged_at_their_output_site() -> None:
    encoder, decoder = planted_sae()
    turned = replace(decoder, W_dec=decoder.W_dec.flip(1))
    x = planted_rows(dictionary())
    columns = encode_rows(x, encoder)
    right = check_sae(columns, turned, CheckRows(x, x.flip(1)), name="t", stated_l0=4.0)
    assert right.status == "ok"
    wrong = check_sae(columns, turned, CheckRows(x, x), name="t", stated_l0=4.0)
    assert wrong.status == "suspect"


def test_fvu_by_hand() -> None:
    """One feature along the first axis: the second axis stays unexplained."""
    encoder = threshold_encoder("standard", torch.tensor([[1.0], [0.0]]), torch.zeros(1))
    decoder = Decoder(torch.tensor([[1.0, 0.0]]), torch.zeros(2))
    x = torch.tensor([[1.0, 1.0], [3.0, -1.0], [1.0, -1.0], [3.0, 1.0]])
    found = check_sae(encode_rows(x, encoder), decoder, CheckRows(x), name="s")
    assert found.fvu == pytest.approx(4 / 8)
    assert found.l0 == 1.0


@pytest.mark.parametrize("normalisation", ["none", "layer_norm", "constant_norm_rescale"])
@pytest.mark.parametrize("architecture", ROW_WISE)
def test_decoding_equals_saelens(tmp_path: Path, architecture: str, normalisation: str) -> None:
    if architecture.endswith("transcoder") and normalisation != "none":
        normalisation = "none"  # SAELens undoes no normalisation after a transcoder
    write_saelens(tmp_path / "sae", architecture, normalize_activations=normalisation)
    (source,) = resolve_saes([str(tmp_path)])
    sae, x = source.load(), torch.randn(30, 16, generator=torch.Generator().manual_seed(3))
    columns = encode_rows(x, source.load_encoder())
    decoder, expected = source.load_decoder(), sae(x).detach().numpy()
    np.testing.assert_allclose(decode_rows(columns, decoder, x), expected, atol=1e-4)
    np.testing.assert_allclose(decode_rows(columns, decoder, x[:20]), expected[:20], atol=1e-4)
    if normalisation == "none" and decoder.W_skip is None:  # what a GPU does, here on the CPU
        np.testing.assert_allclose(_decoded_on_device(columns, decoder, 20), expected[:20], atol=1e-4)
