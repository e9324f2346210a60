"""SAELens's trainers as we set them: a planted dictionary is found, a frozen decoder stays, neighbours change nothing."""

from __future__ import annotations

import pytest
import torch

from conceptatlas.training.options import ARCHITECTURES, TrainOptions, Wanted
from conceptatlas.training.recipes import fold_scale, learning_rate, make_trainer, steps_on

CPU = torch.device("cpu")
SITE = "blocks.0.hook_resid_post"
D, FEATURES, ACTIVE = 16, 16, 2


def options(**more) -> TrainOptions:
    few = {"sites": (SITE,), "widths": (FEATURES,), "tokens": 128 * 500, "batch": 128, "buffer_rows": 4096}
    return TrainOptions(**(few | more))


def trainer_of(wanted: Wanted, asked: TrainOptions):
    trainer = make_trainer(wanted, asked, d_in=D, device=CPU, metadata={})
    trainer.activation_scaler.scaling_factor = 1.0
    return trainer


def planted(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a dictionary of unit vectors [F, D], and rows [n, D] of two of them each, of random strength."""
    generator = torch.Generator().manual_seed(0)
    dictionary = torch.nn.functional.normalize(torch.randn(FEATURES, D, generator=generator), dim=1)
    which = torch.rand(n, FEATURES, generator=generator).topk(ACTIVE, dim=1).indices
    strength = 3 + torch.rand(n, ACTIVE, generator=generator)
    return dictionary, torch.einsum("na,nad->nd", strength, dictionary[which])


def recovered(trainer, dictionary: torch.Tensor) -> float:
    decoder = torch.nn.functional.normalize(trainer.sae.W_dec.detach(), dim=1)
    return float((decoder @ dictionary.T).max(dim=0).values.mean())


def test_a_planted_dictionary_is_found_but_not_by_the_control() -> None:
    dictionary, rows = planted(128 * 500)
    asked = options(k=(ACTIVE,), control=True, lr=3e-3)
    normal, control = (trainer_of(wanted, asked) for wanted in asked.wanted())
    before = {name: value.clone() for name, value in control.sae.state_dict().items()}
    for trainer in (normal, control):
        assert sum(1 for _ in steps_on(trainer, rows, asked)) == 500
    assert recovered(normal, dictionary) > 0.95
    assert recovered(control, dictionary) < 0.6
    after = control.sae.state_dict()
    assert torch.equal(after["W_dec"], before["W_dec"])
    assert torch.allclose(after["W_dec"].norm(dim=1), torch.ones(FEATURES))
    for name in ("W_enc", "b_enc", "b_dec", "topk_threshold"):
        assert not torch.equal(after[name], before[name]), name


def test_the_control_begins_with_the_directions_of_its_sae() -> None:
    asked = options(k=(2, 3), control=True)
    first, control, other, _ = (trainer_of(wanted, asked).sae.W_dec.detach() for wanted in asked.wanted())
    directions = torch.nn.functional.normalize(first, dim=1)
    assert torch.allclose(directions, control, atol=1e-6)
    assert not torch.allclose(first, other)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("control", [False, True])
def test_every_architecture_trains_and_takes_rows_as_they_are(architecture: str, control: bool) -> None:
    sparsity = {"l1": (0.1,)} if ARCHITECTURES[architecture] == "l1" else {"k": (ACTIVE,)}
    asked = options(architecture=architecture, tokens=128 * 60, control=control, lr=2e-3, **sparsity)
    _, rows = planted(128 * 60)
    trainer = trainer_of(asked.wanted()[-1], asked)
    trainer.activation_scaler.scaling_factor = 0.5
    outputs = [
        (o.losses["mse_loss"].item(), float(o.feature_acts.count_nonzero())) for o in steps_on(trainer, rows, asked)
    ]
    assert len(outputs) == 60
    (first_error, first_active), (last_error, last_active) = outputs[0], outputs[-1]
    # At first a jumprelu SAE is far from its k, and pays for coming near with error.
    if architecture == "jumprelu":
        assert abs(last_active / 128 - ACTIVE) < abs(first_active / 128 - ACTIVE) / 2
    else:
        assert last_error < first_error
    scaled = trainer.sae.decode(trainer.sae.encode(rows[:64] * 0.5)).detach()
    fold_scale(trainer)
    assert torch.allclose(trainer.sae.decode(trainer.sae.encode(rows[:64])).detach(), scaled * 2, atol=1e-4)
    assert trainer.sae.cfg.normalize_activations == "none"


def test_an_sae_does_not_depend_on_what_is_trained_beside_it() -> None:
    _, rows = planted(128 * 20)
    alone, beside = options(k=(2,), tokens=128 * 20), options(k=(3, 2), widths=(16, FEATURES), tokens=128 * 20)
    wanted = alone.wanted()[0]
    torch.manual_seed(1)
    one = trainer_of(wanted, alone)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    several = {w.sae_id: trainer_of(w, beside) for w in beside.wanted()}
    for trainer in (one, *several.values()):
        assert list(steps_on(trainer, rows, alone))
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in one.sae.state_dict().items():
        assert torch.equal(value, several[wanted.sae_id].sae.state_dict()[name]), name
    other = trainer_of(wanted, options(k=(2,), seed=1))
    assert not torch.equal(other.sae.W_dec, trainer_of(wanted, alone).sae.W_dec)


def test_learning_rate_follows_the_width() -> None:
    wide = Wanted(SITE, 1 << 16, 2, "k")
    assert learning_rate(wide, options(k=(2,))) == pytest.approx(1e-4)
    assert learning_rate(Wanted(SITE, 64, 2, "k"), options(k=(2,))) == 1e-3
    assert learning_rate(wide, options(k=(2,), lr=5e-4)) == 5e-4
