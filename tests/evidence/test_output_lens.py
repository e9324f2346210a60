"""Output scores against plain loops and against what the model does with the direction behind its last block."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch

from conceptatlas.base.errors import InputError
from conceptatlas.evidence import output_lens, output_scores
from conceptatlas.evidence.output_lens import Lens, final_norm, score_saes, score_table, writes_to_the_stream
from conceptatlas.subjects import LanguageSubject, load_subject
from tests.helpers.tiny_models import tiny_model

Load = Callable[[str], LanguageSubject]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    folder = tmp_path_factory.mktemp("models")
    return lambda family: load_subject(str(tiny_model(family, folder)), device="cpu")


@pytest.mark.parametrize(
    ("family", "centred"), [("gemma2", False), ("llama", False), ("gpt2", True), ("gpt_neox", True)]
)
def test_the_lens_is_the_final_norm_and_the_unembedding(family: str, centred: bool, load: Load) -> None:
    """Logits of norm(x) in the direction d are d @ W over the norm's divisor, up to a constant over the vocabulary."""
    subject = load(family)
    norm = next(m for name, m in subject.stack.base.named_children() if name in ("norm", "ln_f", "final_layer_norm"))
    with torch.no_grad():
        norm.weight += 0.3 * torch.randn(norm.weight.shape, generator=torch.Generator().manual_seed(0))
        gain, centres = final_norm(subject)
        assert centres == centred
        assert torch.allclose(gain, norm.weight + (1 if family == "gemma2" else 0), atol=1e-3)
        lens = Lens.of(subject)
        d = torch.randn(subject.d_model, generator=torch.Generator().manual_seed(1))
        given = d - d.mean() if centred else d
        scale = given.pow(2).mean().sqrt()
        bias = norm(torch.zeros_like(d)[None])[0]
        expected = subject.hf_model.get_output_embeddings().weight[lens.tokens] @ (norm(d[None])[0] - bias)
        assert torch.allclose(d @ lens.W / scale, expected, atol=1e-3)
    special = set(subject.token_rules.special_ids.tolist())
    assert not special & set(lens.tokens.tolist())
    assert len(lens.tokens) == len(subject.tokenizer) - len(special)


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_scores_are_the_plain_formulas(step: int, load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    lens = Lens.of(load("gemma2"))
    monkeypatch.setattr(output_lens, "LOGITS_AT_ONCE", step * len(lens.tokens))
    W_dec = torch.randn(7, 32, generator=torch.Generator().manual_seed(2))
    W_dec[4] = 0
    targets = [int(lens.tokens[5]), int(lens.tokens[60])]
    found, without = output_scores(W_dec, lens, targets), output_scores(W_dec, lens)
    for feature in range(7):
        logits = (W_dec[feature] @ lens.W).double().numpy()
        if feature == 4:
            assert np.isnan(found["output_score"][feature])
            continue
        z = (logits - logits.mean()) / logits.std()
        assert found["output_score"][feature] == pytest.approx((z[5] + z[60]) / 2, abs=1e-4)
        assert without["output_score"][feature] == pytest.approx(z.max(), abs=1e-4)
        assert found["top_token"][feature] == lens.tokens[z.argmax()]
        assert found["top_z"][feature] == pytest.approx(z.max(), abs=1e-4)
        assert found["kurtosis"][feature] == pytest.approx((z**4).mean(), rel=1e-3)


def test_a_direction_out_of_the_unembedding_has_its_token_on_top(load: Load) -> None:
    subject = load("llama")
    lens = Lens.of(subject)
    token = int(lens.tokens[123])
    W_dec = torch.stack([3 * subject.hf_model.lm_head.weight[token].detach(), torch.randn(32)])
    table = score_table(subject, lens, W_dec, ranked=[0], targets=[token])
    (text,) = subject.token_texts(np.array([token], dtype=np.int32))
    first, second = table.rows(named=True)
    assert first["top_token"] == text
    assert first["output_score"] == first["top_z"] > second["output_score"]
    assert first["promoted"].split(" ")[0] == text.strip()
    assert second["promoted"] is second["suppressed"] is None


def test_saes_that_have_no_score_are_named(load: Load) -> None:
    subject = load("llama")
    saes = [
        SimpleNamespace(slug="good", sae_id="g", site="blocks.1.hook_resid_post", layer=1),
        SimpleNamespace(slug="heads", sae_id="h", site="blocks.1.attn.hook_z", layer=1),
        SimpleNamespace(slug="gone", sae_id="x", site="blocks.2.hook_resid_post", layer=2),
    ]

    def tensors(slug: str) -> SimpleNamespace:
        if slug == "gone":
            raise InputError("The SAE x is not found any more.")
        return SimpleNamespace(W_dec=torch.eye(32)[:5])

    table, without = score_saes(subject, SimpleNamespace(saes=saes), tensors, [], None)  # type: ignore[arg-type]
    assert table["slug"].to_list() == ["good"] * 5
    assert table.schema["layer"] == pl.Int32
    assert set(without) == {"heads", "gone"}
    assert not writes_to_the_stream("blocks.1.hook_resid_post", 64, subject)


def test_the_stage_writes_the_scores_of_all_features(tmp_path: Path, load: Load) -> None:
    table, without = score_saes(
        load("gemma2"),
        SimpleNamespace(saes=[SimpleNamespace(slug="s", sae_id="s", site="blocks.0.hook_mlp_out", layer=0)]),  # type: ignore[arg-type]
        lambda _slug: SimpleNamespace(W_dec=torch.eye(32)),  # type: ignore[arg-type, return-value]
        [],
        [50],
    )
    assert table.height == 32
    assert without == {}
    table.write_parquet(tmp_path / "scores.parquet")
    assert pl.read_parquet(tmp_path / "scores.parquet").equals(table)
