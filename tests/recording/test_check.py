"""What does not fit is said loudly, and is an error where that was asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from conceptatlas.base.errors import WorkError
from conceptatlas.concepts import build_concept
from conceptatlas.recording import record
from conceptatlas.saes import resolve_saes
from conceptatlas.saes.architectures import Decoder
from conceptatlas.saes.encoder import Encoder, threshold_encoder
from tests.helpers.tiny_saes import write_saelens
from tests.recording.standins import MadeSAE

CROSS_LAYER = "mntss-gemma-2-2b-2.5m-clt-as-per-layer"


@dataclass
class IdentitySAE(MadeSAE):
    """Features are the coordinates, each sign on its own: reconstructs perfectly, with half of them active."""

    def load_encoder(self, device: Any = "cpu", dtype: Any = None) -> Encoder:
        eye = torch.eye(self.d_in)
        return threshold_encoder("standard", torch.cat([eye, -eye], dim=1), torch.zeros(2 * self.d_in))

    def load_decoder(self, device: Any = "cpu") -> Decoder:
        eye = torch.eye(self.d_in)
        return Decoder(W_dec=torch.cat([eye, -eye]) * self.decoder_scale, b_dec=torch.zeros(self.d_in))


@pytest.fixture(scope="module")
def many():
    return build_concept(
        "many", [f"What would you have done about the bag number {i} in the rain?" for i in range(80)], [0, 3] * 40
    )


def identity(**options):
    return IdentitySAE("id", "blocks.1.hook_resid_post", 1, d_sae=64, **{"decoder_scale": 1.0, **options})


@pytest.mark.parametrize("keep", ["all", "final"])
def test_a_good_one(gemma, many, tmp_path, capsys, keep):
    rec = record(many, gemma, [identity(average_l0=32.0)], tmp_path / "rec", keep=keep, shard_rows=1400)
    sae = rec.sae("id")
    assert rec.n_rows > 1000
    assert (sae.status, sae.message, sae.verdict) == ("ok", "", "ok")
    assert sae.fvu == pytest.approx(0, abs=1e-6)
    assert sae.l0 == pytest.approx(32, abs=0.5)
    assert sae.rows_checked >= 1000
    assert "WARNING" not in capsys.readouterr().err


def test_some_features_only_is_checked_on_all(gemma, many, tmp_path):
    rec = record(many, gemma, [identity()], tmp_path / "rec", features=[3])
    assert rec.sae("id").fvu == pytest.approx(0, abs=1e-6)
    assert rec.sae("id").l0 == pytest.approx(32, abs=0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decoder_scale": -1.0}, "of the variance unexplained"),
        ({"average_l0": 5.0}, "32.0 features are active per row where its own figure is 5"),
    ],
)
def test_a_bad_one_is_loud(gemma, many, tmp_path, capsys, options, message):
    rec = record(many, gemma, [identity(**options)], tmp_path / "rec")
    sae = rec.sae("id")
    assert sae.status == "suspect"
    assert message in sae.message
    assert sae.message in rec.manifest.warnings
    assert f"WARNING: {sae.message}" in capsys.readouterr().err
    with pytest.raises(WorkError, match="1 of 1 SAEs do not fit"):
        record(many, gemma, [identity(**options)], tmp_path / "rec", strict_check=True)


def test_strict_stops_at_once(gemma, many, tmp_path):
    with pytest.raises(WorkError, match="does not fit"):
        record(many, gemma, [identity(decoder_scale=-1.0)], tmp_path / "rec", strict_check=True)
    assert not (tmp_path / "rec" / "manifest.json").exists()


def test_a_transcoder_is_checked_where_it_writes(gemma, many, tmp_path):
    class Transcoder(IdentitySAE):
        site_out = "blocks.1.hook_mlp_out"

    good = record(many, gemma, [identity()], tmp_path / "same")
    sae = Transcoder("id", "blocks.1.hook_resid_post", 1, d_sae=64, decoder_scale=1.0)
    rec = record(many, gemma, [sae], tmp_path / "rec", shard_rows=1400)
    assert good.sae("id").fvu == pytest.approx(0, abs=1e-6)
    assert rec.sae("id").fvu > 0.6
    assert "blocks.1.hook_mlp_out" not in rec.manifest.sites


def test_what_was_not_judged_is_said(gemma, many, tmp_path):
    sae = record(many, gemma, [identity()], tmp_path / "rec").sae("id")
    assert (sae.status, sae.verdict) == ("ok", "ok, in part")
    assert sae.message == "made/id: only its reconstruction was judged, no L0 is stated to compare with."


@pytest.mark.parametrize("first", ["transcoder", "sae"])
def test_a_transcoder_that_does_not_say_where_it_writes(gemma, many, tmp_path, first):
    """It is not judged by what it reads, whichever of the two that share a site comes first, and whatever its width."""
    wide = torch.randn(64, 48, generator=torch.Generator().manual_seed(0))

    class Transcoder(IdentitySAE):
        reconstructs = False

        def load_decoder(self, device: Any = "cpu") -> Decoder:
            return Decoder(W_dec=wide, b_dec=torch.zeros(48))

    transcoder = Transcoder("to", "blocks.1.hook_resid_post", 1, d_sae=64, average_l0=32.0)
    saes = [transcoder, identity()] if first == "transcoder" else [identity(), transcoder]
    rec = record(many, gemma, saes, tmp_path / "rec", strict_check=True)
    assert rec.sae("to").fvu is None
    assert rec.sae("to").message == "made/to: only its L0 was compared, there is no reconstruction to judge."
    assert rec.sae("id").fvu == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("hook_out", [None, "blocks.1.hook_mlp_out"])
def test_a_transcoder_in_a_folder(gemma, many, tmp_path, hook_out):
    folder = write_saelens(tmp_path / "sae", "transcoder", d_in=32, d_out=32 if hook_out else 48, hook_out=hook_out,
                           hook="blocks.1.mlp.hook_in")  # fmt: skip
    (sae,) = record(many, gemma, str(folder), tmp_path / "rec").saes
    assert (sae.fvu is None) == (hook_out is None)
    assert sae.status == ("suspect" if hook_out else "not judged")


def test_layers_of_a_cross_layer_transcoder_have_no_reconstruction():
    """SAELens adds up their decoders and warns that this is not for reconstruction."""
    layers = [source.reconstructs for source in resolve_saes([CROSS_LAYER], complete=False)]
    assert layers == [False] * 26
    (other,) = resolve_saes(["gemma-scope-2b-pt-transcoders:layer_3/width_16k/average_l0_54"], complete=False)
    assert other.reconstructs


@dataclass
class CountedSAE(IdentitySAE):
    """Says when its decoder half is loaded."""

    decoders: list[str] = field(default_factory=list)

    def load_decoder(self, device: Any = "cpu") -> Decoder:
        self.decoders.append(self.slug)
        return super().load_decoder(device)


def test_decoders_are_loaded_once(gemma, many, tmp_path):
    """They are needed for the check of the first shard only."""
    saes = [CountedSAE(name, "blocks.1.hook_resid_post", 1, d_sae=64, decoder_scale=1.0) for name in ("a", "b")]
    rec = record(many, gemma, saes, tmp_path / "rec", shard_rows=300)
    assert len(rec.manifest.plan.shards) > 3
    assert [sae.decoders for sae in saes] == [["a"], ["b"]]
