"""Whole trainings: what comes out, that it can be used at once, and what is said where something is wrong."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sae_lens import SAE

import conceptatlas as ca
from conceptatlas.base.errors import InputError, WorkError
from conceptatlas.subjects import LanguageSubject
from conceptatlas.training import checkpoint, run
from conceptatlas.training.card import Card
from tests.training.conftest import SITES, small, weights

Trained = Callable[..., Path]


def test_saes_load_in_saelens(trained: Trained, organism: LanguageSubject) -> None:
    folder = trained(control=True)
    assert len(weights(folder)) == 4
    for site in SITES:
        for name, control in (("64-k6", None), ("64-k6-frozen", {"control": "frozen_decoder", "of": f"{site}/64-k6"})):
            sae = SAE.load_from_disk(folder / site / name)
            assert (sae.cfg.architecture(), sae.cfg.d_in, sae.cfg.d_sae) == ("jumprelu", organism.d_model, 64)
            assert sae.cfg.normalize_activations == "none"
            metadata = sae.cfg.metadata
            assert (metadata.hook_name, metadata.prepend_bos, metadata.model_name) == (site, True, "organism")
            assert metadata.context_size == 32
            assert metadata.conceptatlas == control
            card = Card.load(folder / site / name)
            assert card.control_of == (None if control is None else f"{site}/64-k6")
            assert metadata.l0 == pytest.approx(card.quality.l0, abs=0.01)


def test_the_card_says_what_is_true_of_the_saved_sae(
    trained: Trained, organism: LanguageSubject, texts: list[str]
) -> None:
    folder = trained()
    card = Card.load(folder / SITES[0] / "64-k6")
    sae = SAE.load_from_disk(folder / SITES[0] / "64-k6")
    from conceptatlas.subjects import Site
    from conceptatlas.subjects.texts import TextStream
    from conceptatlas.training.contexts import make_contexts

    contexts = make_contexts(organism, TextStream(texts), context=32, rows=1280)
    which = np.flatnonzero(contexts.held_out)[:3]
    rows = organism.hidden_states([np.asarray(contexts.of(int(i))) for i in which], [Site.parse(SITES[0])])[SITES[0]]
    ids = np.concatenate([contexts.of(int(i)) for i in which])
    rows = rows[torch.from_numpy(~np.isin(ids, organism.token_rules.special_ids))].double().float()
    acts = sae.encode(rows)
    error = (rows - sae.decode(acts)).pow(2).sum() / (rows - rows.mean(dim=0)).pow(2).sum()
    assert card.quality.n_rows == len(rows)
    assert card.quality.fvu == pytest.approx(float(error.detach()), rel=1e-3)
    assert card.quality.l0 == pytest.approx(float((acts > 0).sum(dim=1).float().mean()), rel=1e-3)
    assert (card.rows, card.batch, card.n_saes, card.text) == (1280, 64, 2, "The list of texts")
    assert card.passes == pytest.approx(1280 / contexts.training_rows)
    page = (folder / SITES[0] / "64-k6" / "README.md").read_text()
    for figure in (f"{card.quality.fvu:.3f}", f"{card.quality.loss_recovered:.3f}", "1,280 rows"):
        assert figure in page


def test_record_works_at_once(trained: Trained, organism: LanguageSubject, tmp_path: Path) -> None:
    recording = ca.record("builtin:dishonesty-small", organism, str(trained()), tmp_path / "rec")
    assert [sae.site for sae in recording.saes] == list(SITES)
    assert [sae.d_sae for sae in recording.saes] == [64, 64]
    assert not [warning for warning in recording.manifest.warnings if "BOS" in warning]


def test_a_control_is_recorded_as_one_and_compared(trained: Trained, organism: LanguageSubject, tmp_path: Path) -> None:
    recording = ca.record("builtin:dishonesty-small", organism, str(trained(control=True)), tmp_path / "rec")
    of = {sae.sae_id: sae.control_of for sae in recording.saes}
    assert of == {f"{site}/64-k6{end}": f"{site}/64-k6" if end else None for site in SITES for end in ("", "-frozen")}
    assert {sae.status for sae in recording.saes if sae.control_of} == {"not judged"}
    assert not [warning for warning in recording.manifest.warnings if "frozen does not fit" in warning]
    ranking = ca.rank(recording, permutations=20, resplits=0)
    assert {row["site"] for row in ranking.baselines if row["baseline"] == "frozen_decoder"} == set(SITES)
    assert "frozen_decoder" in {row["baseline"] for row in ranking.comparisons}
    assert not ranking.all["slug"].str.contains("frozen").any()


def test_an_sae_is_the_same_whatever_is_trained_beside_it(trained: Trained) -> None:
    both, alone = weights(trained()), weights(trained(sites=SITES[1:], widths=(64, 32), control=True))
    assert both[f"{SITES[1]}/64-k6"] == alone[f"{SITES[1]}/64-k6"]
    assert both[f"{SITES[1]}/64-k6"] != weights(trained(seed=1))[f"{SITES[1]}/64-k6"]


def test_nothing_is_done_twice_and_nothing_is_mixed(
    trained: Trained, organism: LanguageSubject, texts: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = trained()
    monkeypatch.setattr(run, "make_contexts", lambda *_, **__: pytest.fail("trained again"))
    cards = ca.train(organism, texts, folder, small())
    assert [card.sae_id for card in cards] == [f"{site}/64-k6" for site in SITES]
    assert asdict(cards[0]) == asdict(Card.load(folder / cards[0].sae_id))
    with pytest.raises(
        InputError, match=r"holds a training with k \[6\], and \[7\] is asked for; choose another folder"
    ):
        ca.train(organism, texts, folder, small(k=(7,)))
    with pytest.raises(InputError, match=r"holds a training with text"):
        ca.train(organism, texts[1:], folder, small())
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match=r"holds other files \(thesis\.tex\); choose a new folder"):
        ca.train(organism, texts, tmp_path, small())


def test_a_text_without_text(organism: LanguageSubject, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(InputError, match=r"empty\.txt holds no text \(2 empty records\); give a source with texts"):
        ca.train(organism, tmp_path / "empty.txt", tmp_path / "saes", small())


def test_unknown_sites(organism: LanguageSubject, texts: list[str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"There is no blocks\.9\.hook_resid_post in organism"):
        ca.train(organism, texts, tmp_path, small(sites=("blocks.9.hook_resid_post",)))


def test_a_model_that_gives_nan(
    organism: LanguageSubject, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from conceptatlas.training import activations

    plain = activations.shard_states

    def broken(*arguments: Any, **options: Any) -> dict[str, torch.Tensor]:
        return {site: states.fill_(float("nan")) for site, states in plain(*arguments, **options).items()}

    monkeypatch.setattr(activations, "shard_states", broken)
    with pytest.raises(InputError, match=r"organism gives NaN or infinite values at blocks\.1\.hook_resid_post"):
        ca.train(organism, texts, tmp_path / "saes", small())


def test_a_training_that_diverges(organism: LanguageSubject, texts: list[str], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(run, "norm_scale", lambda _rows: float("inf"))
    with pytest.raises(WorkError, match=r"The training of .*64-k6 gave NaN in buffer 0; lower --lr"):
        ca.train(organism, texts, tmp_path / "saes", small())


def test_more_latents_than_rows_and_short_texts_are_said(
    organism: LanguageSubject, texts: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ca.train(organism, texts[:12], tmp_path / "saes", small(widths=(2048,), sites=SITES[:1], tokens=640))
    said = capsys.readouterr().err
    assert "2,048 latents are more than the" in said
    assert "it is passed over" in said


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "There is not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"), "There is not enough memory"),
    ],
)
def test_no_memory(organism, texts, tmp_path, monkeypatch, error: Exception, message: str) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(run, "make_trainer", full)
    with pytest.raises(WorkError, match=rf"{message} for this training; lower --buffer-rows, --batch or --width"):
        ca.train(organism, texts, tmp_path / "saes", small())


def test_a_full_disk_loses_nothing(organism, texts, tmp_path, monkeypatch, trained: Trained) -> None:
    plain, calls = checkpoint.write_json, []

    def full(path: Path, value: Any) -> None:
        calls.append(path)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        plain(path, value)

    out = tmp_path / "saes"
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "write_json", full)
        with pytest.raises(
            WorkError, match=r"Cannot write a checkpoint .*: No space left on device; free some space and"
        ):
            ca.train(organism, texts, out, small())
    assert [path.name for path in (out / ".work").glob("*checkpoint*")] == ["checkpoint-000001"]
    with monkeypatch.context() as patched:
        patched.setattr(
            "sae_lens.saes.sae.save_file",
            lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")),
        )
        with pytest.raises(WorkError, match=r"Cannot write .*64-k6: No space left on device; free some space"):
            ca.train(organism, texts, out, small())
    ca.train(organism, texts, out, small())
    assert weights(out) == weights(trained())


def test_no_pickle_in_checkpoints(organism, texts, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(torch, "save", lambda *_, **__: pytest.fail("pickled"))
    seen: list[str] = []
    plain = checkpoint.save_checkpoint

    def watched(work: Path, *arguments: Any) -> None:
        plain(work, *arguments)
        seen.extend(path.suffix for path in work.rglob("*") if path.is_file())

    monkeypatch.setattr(run, "save_checkpoint", watched)
    ca.train(organism, texts, tmp_path / "saes", small())
    assert set(seen) == {".safetensors", ".json", ".npy"}


def test_an_estimate_writes_nothing_and_grows_with_what_is_asked(organism: LanguageSubject, texts: list[str]) -> None:
    one = ca.estimate_training(organism, texts, small(sites=SITES[:1]))
    two = ca.estimate_training(organism, texts, small(control=True))
    assert (one.n_saes, two.n_saes, one.steps) == (1, 4, 20)
    assert one.buffer_bytes == 512 * 4 * 2 * organism.d_model
    assert two.buffer_bytes == 512 * 4 * 3 * organism.d_model
    assert two.disk_bytes > 3 * one.disk_bytes - 4 * 2 * 1280
    assert min(one.forward_seconds, one.sae_seconds) > 0
    assert one.memory_bytes == one.model_bytes + one.buffer_bytes + one.sae_bytes


def test_run_json_has_options_and_versions(trained: Trained) -> None:
    found = json.loads((trained() / "run.json").read_text())
    assert found["command"] == "train"
    assert found["options"]["k"] == [6]
    assert "sae-lens" in found["libraries"]
