"""Edits, attributions and the bank, against explicit computations on a small classifier and SAE."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sae_lens import JumpReLUSAE, JumpReLUSAEConfig

from conceptatlas.base.errors import InputError
from conceptatlas.evidence.attribution import input_gradient, input_times_gradient, integrated_gradients, leave_one_out
from conceptatlas.evidence.bank import collect_bank
from conceptatlas.evidence.edits import ablate, reconstruct, reconstruct_boolean, steer, unit
from conceptatlas.images import feature_input_pattern, feature_logit_effect
from conceptatlas.subjects.images import SITE, FeedForward, ImageSubject, Kind


def small_sae(d_in: int, d_sae: int = 24) -> Any:
    generator = torch.Generator().manual_seed(0)
    sae = JumpReLUSAE(JumpReLUSAEConfig(d_in=d_in, d_sae=d_sae, apply_b_dec_to_input=False))
    with torch.no_grad():
        for name, tensor in sae.state_dict().items():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.4)
            if name == "threshold":
                tensor.abs_()
    return sae.eval().requires_grad_(requires_grad=False)


@pytest.fixture(params=["relu", "geglu"])
def world(request: pytest.FixtureRequest) -> tuple[ImageSubject, Any, torch.Tensor, torch.Tensor]:
    kind: Kind = request.param
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = FeedForward(n_pixels=30, hidden_dim=8, n_classes=4, kind=kind).requires_grad_(requires_grad=False)
        images, mean = torch.rand(40, 6, 5), torch.randn(model.d_pre)
        std = torch.rand(model.d_pre) + 0.5
    return ImageSubject(model, mean, std), small_sae(model.d_pre), images, torch.arange(40) % 4


def test_edits_are_what_they_say(world: tuple[ImageSubject, Any, torch.Tensor, torch.Tensor]) -> None:
    subject, sae, images, _ = world
    x = subject.activations(images)
    f = sae.encode(x)
    k = int((f != 0).sum(0).argmax())
    direction = unit(sae.W_dec[k])
    assert torch.allclose(direction.norm(), torch.tensor(1.0))
    assert torch.allclose(steer(direction, 3.0)(x) - x, 3 * direction.expand_as(x), atol=1e-5)
    assert torch.allclose(x - ablate(sae, k)(x), f[:, k : k + 1] * sae.W_dec[k], atol=1e-5)
    assert torch.allclose(reconstruct(sae)(x), f @ sae.W_dec + sae.b_dec, atol=1e-5)
    assert torch.allclose(reconstruct_boolean(sae)(x), (f != 0).float() @ sae.W_dec + sae.b_dec, atol=1e-5)
    with pytest.raises(InputError, match="length zero"):
        unit(torch.zeros(3))


def test_outputs_without_an_edit_are_the_models(world: tuple[ImageSubject, Any, torch.Tensor, torch.Tensor]) -> None:
    subject, _, images, _ = world
    assert torch.allclose(subject.outputs(images, edit=lambda x: x), subject.model(images), atol=1e-5)
    with pytest.raises(InputError, match=r"no site 'blocks.0.hook_resid_post'; it has ffn.hook_pre"):
        subject.activations(images, "blocks.0.hook_resid_post")


def test_input_pattern_equals_finite_differences(world: tuple[ImageSubject, Any, torch.Tensor, torch.Tensor]) -> None:
    subject, sae, images, _ = world
    k = 5
    pattern = feature_input_pattern(subject.model, sae, subject.mean, subject.std, k, image_shape=(6, 5))
    averaged = feature_input_pattern(subject.model, sae, subject.mean, subject.std, k, images=images)
    assert np.allclose(pattern, averaged, atol=1e-5)
    double = subject.model.double()

    def preactivation(image: torch.Tensor) -> torch.Tensor:
        z = (double.preactivations(image[None]) - subject.mean.double()) / subject.std.double()
        return (z @ sae.W_enc.double() + sae.b_enc.double())[0, k]

    step = 1e-4
    image = images[0].double()
    for row in range(6):
        for column in range(5):
            nudge = torch.zeros_like(image)
            nudge[row, column] = step
            slope = (preactivation(image + nudge) - preactivation(image - nudge)) / (2 * step)
            assert abs(float(slope) - pattern[row, column]) < 1e-4


def test_logit_effect_equals_two_passes(world: tuple[ImageSubject, Any, torch.Tensor, torch.Tensor]) -> None:
    subject, sae, images, labels = world
    model, mean, std = subject.model, subject.mean, subject.std
    z = model.preactivations(images)
    f = sae.encode((z - mean) / std)
    k = int((f != 0).sum(0).argmax())
    own = f[:, k][f[:, k] != 0].mean()
    edited = ((z - mean) / std + 2.0 * own * sae.W_dec[k]) * std + mean
    expected = (model.logits_of(edited) - model.logits_of(z)).mean(0)
    loader = [(images[:15], labels[:15]), (images[15:], labels[15:])]
    delta, top = feature_logit_effect(model, loader, sae, mean, std, k, alpha=2.0, n_eval=100)
    assert np.allclose(delta, expected.numpy(), atol=1e-5)
    assert top == int(expected.argmax())
    with pytest.raises(InputError, match="no feature 24; the SAE has the features 0 to 23"):
        feature_logit_effect(model, loader, sae, mean, std, 24)


def test_bank_equals_a_slow_loop(world: tuple[ImageSubject, Any, torch.Tensor, torch.Tensor]) -> None:
    subject, sae, images, labels = world
    loader = [(images[:13], labels[:13]), (images[13:20], labels[13:20]), (images[20:], labels[20:])]
    bank = collect_bank(loader, subject, sae, SITE, n_labels=4, top_k=3)
    acts = sae.encode(subject.activations(images))
    for k in range(acts.shape[1]):
        column = acts[:, k]
        fired = column != 0
        order = sorted(range(len(column)), key=lambda row: (-float(column[row]), row))[:3]
        expected = [row if column[row] > 0 else -1 for row in order]
        assert bank.top_rows[k].tolist() == expected
        assert bank.label_counts[k].tolist() == [int((fired & (labels == c)).sum()) for c in range(4)]
        assert float(bank.mean_active[k]) == pytest.approx(float(fired.float().mean()))
        assert float(bank.mean_activation[k]) == pytest.approx(
            float(column[fired].mean()) if fired.any() else 0, abs=1e-5
        )


def smooth_score(x: torch.Tensor) -> torch.Tensor:
    return (x.flatten(1).tanh() * torch.linspace(-1, 2, x[0].numel())).sum(1) ** 2


def test_integrated_gradients_are_complete() -> None:
    x = torch.rand(5, 6, 5, generator=torch.Generator().manual_seed(2))
    attributed = integrated_gradients(smooth_score, x, steps=64).flatten(1).sum(1)
    difference = smooth_score(x) - smooth_score(torch.zeros_like(x))
    assert torch.allclose(attributed, difference, rtol=0.01)


def test_linear_scores_agree_in_every_method() -> None:
    weight = torch.tensor([1.0, -2.0, 3.0])

    def score(x: torch.Tensor) -> torch.Tensor:
        return x @ weight

    x = torch.tensor([[2.0, 1.0, -1.0]])
    expected = x * weight
    variants = x.repeat(3, 1) * (1 - torch.eye(3))
    assert torch.allclose(input_gradient(score, x), weight[None])
    assert torch.allclose(input_times_gradient(score, x), expected)
    assert torch.allclose(integrated_gradients(score, x, steps=3), expected)
    assert torch.allclose(leave_one_out(score, variants, x), expected[0])
