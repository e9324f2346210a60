"""A checkpoint holds all that the next step needs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from conceptatlas.training.checkpoint import load_checkpoint, save_checkpoint
from conceptatlas.training.options import ARCHITECTURES, TrainOptions
from conceptatlas.training.recipes import make_trainer, steps_on

SITE, D = "blocks.0.hook_resid_post", 8


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_training_goes_on_as_if_it_had_not_stopped(architecture: str, tmp_path: Path) -> None:
    kind = ARCHITECTURES[architecture]
    options = TrainOptions(
        sites=(SITE,), widths=(32,), k=(2,) if kind == "k" else (), l1=(0.2,) if kind == "l1" else (), batch=16,
        tokens=16 * 80, buffer_rows=64, architecture=architecture, control=True,
    )  # fmt: skip
    rows = torch.randn(16 * 80, D, generator=torch.Generator().manual_seed(0))

    def trainers() -> dict[str, object]:
        made = {}
        for wanted in options.wanted():
            made[wanted.sae_id] = make_trainer(wanted, options, d_in=D, device=torch.device("cpu"), metadata={})
            made[wanted.sae_id].activation_scaler.scaling_factor = 0.7
        return made

    whole, stopped, resumed = trainers(), trainers(), trainers()
    for trainer in whole.values():
        list(steps_on(trainer, rows, options))
    for trainer in stopped.values():
        assert len(list(steps_on(trainer, rows[: 16 * 40], options))) == 40
    save_checkpoint(tmp_path, 7, stopped, {SITE: 3.5}, 12.0)
    assert load_checkpoint(tmp_path, resumed) == (7, {SITE: 3.5}, 12.0)
    for sae_id, trainer in resumed.items():
        for name in ("n_forward_passes_since_fired", "act_freq_scores"):
            assert torch.equal(getattr(trainer, name), getattr(stopped[sae_id], name)), name
        assert len(list(steps_on(trainer, rows[16 * 40 :], options))) == 40
        assert trainer.n_training_samples == whole[sae_id].n_training_samples
        for name, value in whole[sae_id].sae.state_dict().items():
            assert torch.equal(trainer.sae.state_dict()[name], value), (sae_id, name)


def test_only_the_newest_is_kept_and_without_one_nothing_is_loaded(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path, {}) is None
    for number in (1, 2, 10):
        save_checkpoint(tmp_path, number, {}, {}, 0.0)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-000010"]
    assert load_checkpoint(tmp_path, {}) == (10, {}, 0.0)
