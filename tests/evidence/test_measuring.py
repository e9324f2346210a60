"""Rises, damage and verdicts: against the whole pass with a hook, and on a model whose features' effects are planted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conceptatlas.evidence.edits import ablate, ablate_each, feature_activations, steer_each
from conceptatlas.evidence.effects import (
    BAR_FACTOR,
    MIN_RISE,
    Dose,
    Effect,
    TargetToken,
    choose_dose,
    effect_sentence,
    shared_dose,
)
from conceptatlas.evidence.measuring import Items, Scene, measure_effect
from conceptatlas.evidence.readout import LanguageOutputs, Readout, Shown, edited_text
from conceptatlas.evidence.rises import grouped_interval
from conceptatlas.evidence.tensors import SAETensors
from conceptatlas.saes import resolve_saes
from conceptatlas.subjects import LanguageSubject, Site, load_subject
from tests.helpers.tiny_models import tiny_model
from tests.helpers.tiny_saes import write_saelens

SITE = "blocks.1.hook_resid_post"
TEXTS = ["She told him that the bag was new", "I lied", "A brave child went back for the cat", "nobody minds the fox"]
TARGETS = [40, 41, 77]


@pytest.fixture(scope="module", params=["gemma2", "llama"])
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LanguageSubject:
    return load_subject(str(tiny_model(request.param, tmp_path_factory.mktemp("model"))), device="cpu")


def whole_pass(
    subject: LanguageSubject, shown: Sequence[Shown], site: str, vector: torch.Tensor, rows: Any = None
) -> torch.Tensor:
    """The slow way: text by text, the whole model with a hook; log-probabilities in float64, [T, V]."""
    found = []
    for number, one in enumerate(shown):
        moved = torch.from_numpy(one.edited.astype(np.float32))[None, :, None] * vector
        with subject.edited(Site.parse(site), lambda x, moved=moved: x + moved):
            found.append(subject.logits([one.ids], None if rows is None else [rows[number]]))
    return torch.cat(found).double().log_softmax(-1)


def test_rises_and_divergences_are_those_of_the_whole_pass(subject: LanguageSubject) -> None:
    shown = Readout("end").show(subject, TEXTS)
    items = Items(LanguageOutputs(subject), shown, SITE, TARGETS)
    vectors = 3 * torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    moved, changes = items.moved(steer_each(vectors)), items.token_changes(steer_each(vectors))
    base = whole_pass(subject, shown, SITE, torch.zeros(32))
    others = np.setdiff1d(np.arange(base.shape[1]), TARGETS)
    for edit, vector in enumerate(vectors):
        steered = whole_pass(subject, shown, SITE, vector)
        rise = steered[:, TARGETS].logsumexp(-1) - base[:, TARGETS].logsumexp(-1)
        assert moved.rise[edit] == pytest.approx(rise.numpy(), abs=1e-4)
        assert moved.kl[edit] == pytest.approx(float((base.exp() * (base - steered)).sum(-1).mean()), abs=1e-4)
        p, q = base[:, others].log_softmax(-1), steered[:, others].log_softmax(-1)
        assert moved.kl_other[edit] == pytest.approx(float((p.exp() * (p - q)).sum(-1).mean()), abs=1e-4)
        assert torch.allclose(changes[edit].double(), (steered - base).mean(0), atol=1e-4)
    assert torch.allclose(items.base.mean.double(), base.mean(0), atol=1e-4)


def test_the_loss_is_that_of_the_whole_pass_on_text_tokens(subject: LanguageSubject) -> None:
    for kind in ("end", "chat"):
        shown = Readout(kind).show(subject, TEXTS)  # type: ignore[arg-type]
        items = Items(LanguageOutputs(subject), shown, SITE, TARGETS)
        vectors = 2 * torch.randn(2, 32, generator=torch.Generator().manual_seed(2))
        found = items.loss(steer_each(vectors))
        assert found is not None
        for edit, vector in enumerate(vectors):
            losses = []
            for one in shown:
                log_probs = whole_pass(subject, [one], SITE, vector, rows=[np.ones(len(one.ids), dtype=bool)])
                losses += [-float(log_probs[t - 1, one.ids[t]]) for t in range(1, len(one.ids)) if one.text[t]]
            assert found[edit] == pytest.approx(np.mean(losses), abs=1e-4)


def test_an_encoder_has_no_loss_on_next_tokens(tmp_path: Path) -> None:
    subject = load_subject(str(tiny_model("bert", tmp_path)), device="cpu")
    items = Items(LanguageOutputs(subject), Readout("end").show(subject, TEXTS), SITE, TARGETS)
    assert items.loss(steer_each(torch.ones(1, 32))) is None


def test_ablations_together_are_ablations_one_by_one(tmp_path: Path) -> None:
    write_saelens(tmp_path / "sae", "topk", d_in=32, d_sae=24)
    (source,) = resolve_saes([str(tmp_path / "sae")])
    sae = SAETensors(source.load_encoder("cpu"), source.load_decoder("cpu"))
    x = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0))
    together = ablate_each(sae, [3, 0, 7])(x)
    for row, feature in enumerate((3, 0, 7)):
        assert torch.equal(together[row], ablate(sae, feature)(x))
    assert float(feature_activations(sae, x, 3).max()) > 0


# Special tokens and templates --------------------------------------------------------------------------------------------


def test_only_the_items_own_text_is_steered(subject: LanguageSubject) -> None:
    """By id wherever a special token stands, and by place in the template, also where the item repeats the template."""
    special = set(subject.token_rules.special_ids.tolist())
    end = next(iter(sorted(special - {subject.tokenizer.bos_token_id})))
    inside = subject.tokenizer.convert_ids_to_tokens(int(end))
    (plain,) = Readout("end").show(subject, [f"I lied {inside} to my friend"])
    assert end in plain.ids
    assert [bool(t) for t in plain.text] == [int(i) not in special for i in plain.ids]
    (chat,) = Readout("chat").show(subject, ["user model assistant I lied"])
    words = subject.tokenizer.decode(chat.ids[chat.text])
    assert words.strip() == "user model assistant I lied"
    assert not chat.text[0]
    assert not chat.text[-1]
    # Where the model begins to speak is edited as what it writes itself.
    assert chat.edited.tolist() == [*chat.text[:-1].tolist(), True]
    direction = torch.randn(32, generator=torch.Generator().manual_seed(3))
    for shown in (plain, chat):
        kept = LanguageOutputs(subject).kept([shown], SITE)
        seen: list[torch.Tensor] = []
        with subject.edited(Site("hook_resid_pre", 2), lambda x, seen=seen: seen.append(x) or x):
            list(kept.logits(steer_each(50 * direction[None])))
        moved = (seen[-1][0] - kept.values(0)).norm(dim=1) > 1
        assert moved.tolist() == shown.edited.tolist()


def test_generation_leaves_special_tokens_alone(subject: LanguageSubject) -> None:
    (shown,) = Readout("chat").show(subject, ["I lied to my friend"])
    given: list[torch.Tensor] = []
    got: list[torch.Tensor] = []
    with (
        subject.edited(Site.parse(SITE), lambda x: given.append(x.clone()) or x),
        edited_text(subject, SITE, lambda x: x + 7, shown),
        subject.edited(Site.parse(SITE), lambda x: got.append(x.clone()) or x),
    ):
        out = subject.generate(shown.ids, max_new_tokens=4)
    changed = [(after - before).abs().amax(-1)[0] > 1 for before, after in zip(given, got, strict=True)]
    assert changed[0].tolist() == shown.edited.tolist()
    special = subject.token_rules.special_ids.tolist()
    for token, step in zip(out.new_ids, changed[1:], strict=False):
        assert bool(step[0]) == (int(token) not in special)
    assert len(changed) > 1


def test_special_tokens_behind_the_prompt_are_left_alone(subject: LanguageSubject) -> None:
    """Whatever the model writes, or is given, after the prompt: by its id."""
    (shown,) = Readout("chat").show(subject, ["I lied to my friend"])
    special = int(subject.token_rules.special_ids[0])
    word = int(shown.ids[shown.text][0])
    longer = np.append(shown.ids, [word, special, word]).astype(np.int32)
    given: list[torch.Tensor] = []
    got: list[torch.Tensor] = []
    with (
        subject.edited(Site.parse(SITE), lambda x: given.append(x.clone()) or x),
        edited_text(subject, SITE, lambda x: x + 7, shown),
        subject.edited(Site.parse(SITE), lambda x: got.append(x.clone()) or x),
    ):
        subject.logits([longer])
    changed = (got[0] - given[0]).abs().amax(-1)[0] > 1
    assert changed.tolist() == [*shown.edited.tolist(), True, False, True]


# Planted effects ---------------------------------------------------------------------------------------------------------

CLEAN, LIFT_ALL, WRECK, OFF = 0, 1, 2, 3
WIDTH = 128  # wide enough that a random direction has little of any planted axis
TARGET = 300


class PlantedSAE:
    """Decoder directions of our choosing: three planted axes and axes that the model does nothing with."""

    W_dec = torch.eye(WIDTH)[:32]

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return (x @ self.W_dec.T - 0.5).relu()


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> LanguageSubject:
    """A model in which three axes of the residual stream go straight to the unembedding.

    Axis 0 writes the target alone; axis 1 writes a third of the vocabulary, all of it unlikely, the target among it; axis
    2 writes the target, and another token still more. Nothing within the blocks reads or writes them.
    """
    subject = load_subject(
        str(tiny_model("llama", tmp_path_factory.mktemp("planted"), hidden_size=WIDTH)), device="cpu"
    )
    model, size = subject.hf_model, subject.vocabulary
    rng = np.random.default_rng(0)
    with torch.no_grad():
        axes = [CLEAN, LIFT_ALL, WRECK, OFF]
        for block in model.model.layers:
            for module in (block.self_attn.o_proj, block.mlp.down_proj):
                module.weight[axes] = 0
            for module in (block.self_attn.q_proj, block.self_attn.k_proj, block.self_attn.v_proj):
                module.weight[:, axes] = 0
            for module in (block.mlp.gate_proj, block.mlp.up_proj):
                module.weight[:, axes] = 0
        model.model.embed_tokens.weight[:, axes] = 0
        model.model.embed_tokens.weight[:, OFF] = 80.0
        head = model.lm_head.weight
        head *= 0.15
        head[:, axes] = 0
        common = rng.choice(np.setdiff1d(np.arange(size), [TARGET]), 20, replace=False)
        head[common, OFF] = 3.0
        rare = rng.choice(np.setdiff1d(np.arange(size), [TARGET, *common]), int(0.35 * size), replace=False)
        head[TARGET, CLEAN] = 10.0
        head[rare, LIFT_ALL] = torch.from_numpy(rng.uniform(7, 9, len(rare)).astype(np.float32))
        head[TARGET, LIFT_ALL] = 8.0
        head[TARGET, WRECK] = 10.0
        head[rare[0], WRECK] = 12.0
    return subject


@pytest.fixture(scope="module")
def scene(planted: LanguageSubject) -> Scene:
    shown = Readout("end").show(planted, [f"{text} and {text}" for text in TEXTS * 2])
    return Scene(LanguageOutputs(planted), SITE, shown[:4], shown, shown[:3], [TARGET], np.arange(8))


def effect_of(scene: Scene, feature: int, **options: Any) -> Effect:
    density = np.full(32, 0.1)
    density[[axis for axis in (CLEAN, LIFT_ALL, WRECK, OFF) if axis != feature]] = 0.9  # no controls for each other
    return measure_effect(
        scene, PlantedSAE(), feature, density_F=density, own_p95=1.0,  # type: ignore[arg-type]
        rng=np.random.default_rng(0), n_controls=6, **options,
    )  # fmt: skip


def test_a_clean_feature_is_accepted(scene: Scene) -> None:
    found = effect_of(scene, CLEAN)
    assert found.missing == found.damage == []
    assert found.causal
    assert found.rise > 3
    assert found.like_percentile == 100
    assert found.loss_rise is not None
    assert found.loss_rise < 0.5
    assert found.rise_low is not None
    assert 0 < found.rise_low < found.rise
    assert found.verdict.startswith(
        f"It causes: {found.rise:+.2f} nats on 8 hold-out items of the lowest grade in 8 groups, 95%"
    )
    assert f"Damage: KL {found.kl:.2f}" in found.verdict


def test_the_interval_of_the_rise_is_that_by_group(scene: Scene) -> None:
    """Every text stands twice: by group the interval is that of four texts."""
    groups = np.arange(8) % 4
    found = effect_of(replace(scene, neutral_groups=groups), CLEAN, alpha=0.2)
    rises = scene.on_neutral.moved(steer_each(found.amount * torch.eye(WIDTH)[CLEAN][None])).rise[0]
    assert (found.n_items, found.n_groups) == (8, 4)
    assert (found.rise_low, found.rise_high) == pytest.approx(grouped_interval(rises, groups), abs=1e-4)
    alone = grouped_interval(rises, np.arange(8))
    assert alone is not None
    assert found.rise_low is not None
    assert found.rise_low < alone[0] - 1e-3


def test_a_feature_that_lifts_everything_is_refused(scene: Scene) -> None:
    """By the old rule (2 nats and twice the bar) a third of the vocabulary was "caused"."""
    found = effect_of(scene, LIFT_ALL, alpha=0.1)
    assert found.damage == []
    assert found.rise >= MIN_RISE
    assert found.rise >= BAR_FACTOR * found.bar
    items = scene.on_neutral
    change = items.token_changes(steer_each(found.amount * torch.eye(WIDTH)[LIFT_ALL][None]))[0]
    caused = (change >= MIN_RISE) & (change >= BAR_FACTOR * found.bar)
    assert float(caused.double().mean()) > 0.3
    assert found.like_percentile is not None
    assert found.like_percentile < 95
    assert any("tokens of like probability rise more" in reason for reason in found.missing)
    assert not found.causal


def test_a_feature_that_wrecks_the_rest_has_no_clean_effect(scene: Scene) -> None:
    found = effect_of(scene, WRECK, alpha=0.2)
    assert found.missing == []
    assert found.kl_other > 1
    assert not found.causal
    assert found.verdict.startswith("No clean effect: ")
    assert "the other tokens' distribution moves by more than 1 nat" in found.verdict
    assert f"KL {found.kl:.2f}" in found.verdict


def test_a_feature_that_does_nothing_is_not_shown_to_cause(scene: Scene) -> None:
    found = effect_of(scene, 9)
    assert found.missing[0] == "the targets rise by less than 2 nats"
    assert found.verdict.startswith("Not shown to cause")


def good() -> Effect:
    """An effect that every rule accepts."""
    return Effect(
        alpha=0.4, amount=3.0, own_p95=1.0, base_logprob=-9.0, rise=6.0, rise_flipped=-1.0, random_features_p95=1.0,
        random_directions_p95=0.5, difference_of_means_rise=None, direct_rise=0.5, kl=1.2, ablation_change=-0.5,
        ablation_random=0.0, promoted=[], suppressed=[], direct_promoted=[], rise_low=5.0, rise_high=7.0, n_items=32,
        n_groups=30, like_percentile=99.0, n_like=200, kl_other=0.4, kl_random_directions=0.3, loss=3.0, loss_rise=0.1,
        target_tokens=[TargetToken("lie", -9.0, 6.0, 99.0)],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rise": 1.9, "random_features_p95": 0.4, "random_directions_p95": 0.4}, "rise by less than 2 nats"),
        ({"random_features_p95": 3.1}, "controls of the same norm reach 3.10 nats"),
        ({"random_directions_p95": 3.1}, "controls of the same norm reach 3.10 nats"),
        ({"rise_low": -0.1}, "its interval over items is not above 0"),
        ({"rise_low": None, "rise_high": None}, "fewer than two groups"),
        ({"like_percentile": 94.0}, "6% of the 200 tokens of like probability rise more"),
        ({"like_percentile": None}, "no tokens of like probability"),
    ],
)
def test_each_rule_alone_refuses(change: dict[str, float | None], words: str) -> None:
    assert good().causal
    found = replace(good(), **change)  # type: ignore[arg-type]
    assert not found.causal
    assert len(found.missing) == 1
    assert words in found.missing[0]
    assert found.verdict.startswith("Not shown to cause: ")
    assert words in found.verdict


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        ({}, "yes"),
        ({"rise": 2.1, "rise_low": 1.9, "rise_high": 2.3}, "at the limit"),
        ({"rise": 1.9, "rise_low": 1.7, "rise_high": 2.1}, "at the limit"),
        ({"rise": 2.1, "rise_low": 2.0, "rise_high": 2.3}, "yes"),
        ({"rise": 1.9, "rise_low": 1.85, "rise_high": 1.99}, "not shown"),
        ({"rise": 2.1, "rise_low": 1.9, "rise_high": 2.3, "like_percentile": 50.0}, "not shown"),
        ({"rise": 2.1, "rise_low": 1.9, "rise_high": 2.3, "loss_rise": 0.6}, "no clean effect"),
        ({"rise": 2.1, "rise_low": -0.1, "rise_high": 4.3}, "not shown"),
    ],
)
def test_a_rise_whose_interval_holds_the_limit_is_no_flat_yes(change: dict[str, float], answer: str) -> None:
    found = replace(good(), random_features_p95=0.1, random_directions_p95=0.1, **change)  # type: ignore[arg-type]
    assert found.answer == answer
    heads = {
        "yes": "It causes",
        "at the limit": "At the limit",
        "no clean effect": "No clean",
        "not shown": "Not shown",
    }
    assert found.verdict.startswith(heads[answer])
    assert ("The interval reaches below the 2 nats" in found.verdict) == (answer == "at the limit")


def test_the_first_feature_measured_is_said_in_a_sentence() -> None:
    limit = replace(good(), rise=2.1, rise_low=1.9, rise_high=2.3, random_features_p95=0.1, random_directions_p95=0.1)
    entries = [
        {
            "rank": rank,
            "sae_id": "a/b",
            "feature_id": 7,
            "causal": one.causal,
            "answer": one.answer,
            "verdict": one.verdict,
        }
        for rank, one in enumerate((limit, good(), replace(good(), like_percentile=1.0)), start=1)
    ]
    assert effect_sentence({"targets": ["lie", "cheat"], "features": entries}) == (
        "Steering with feature 7 of a/b (rank 1) makes the next tokens lie, cheat (their summed probability) likelier, at the "
        "limit of what "
        "counts as an effect: +2.10 nats on 32 hold-out items of the lowest grade in 30 groups, 95% interval +1.90 to +2.30; "
        "controls of the same norm reach 0.10 (95th percentile); percentile 99 among 200 tokens of like probability. The "
        "interval reaches below the 2 nats that count as an effect, so that none is established. "
        "Damage: KL 1.20, over the other tokens 0.40, loss on the items' text +0.10 nats "
        "per "
        "token. Of 3 features measured: 1 clear, 1 at the limit, 1 not shown."
    )
    earlier = {"rank": 1, "sae_id": "a/b", "feature_id": 7, "causal": False, "verdict": "It detects."}
    assert effect_sentence({"targets": ["lie"], "features": [earlier]}) == (
        "Steering with feature 7 of a/b (rank 1) is not shown to make the next tokens lie likelier: It detects."
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kl_other": 1.1, "kl": 13.0}, "the other tokens' distribution moves by more than 1 nat"),
        ({"loss_rise": 0.6}, "the loss on the items' text rises by more than 0.5 nats per token"),
    ],
)
def test_each_bound_of_damage_alone_refuses(change: dict[str, float], words: str) -> None:
    found = replace(good(), **change)  # type: ignore[arg-type]
    assert not found.causal
    assert found.damage == [words]
    assert found.verdict.startswith("No clean effect: +6.00 nats")
    assert f"KL {found.kl:.2f}" in found.verdict


def test_an_unmeasured_loss_passes_no_bound() -> None:
    assert replace(good(), loss=None, loss_rise=None).causal


def test_doses_within_the_bounds_of_damage_come_first() -> None:
    mild, strong = Dose(0.2, 3.0, 0.5, 0.3, 0.1), Dose(1.0, 9.0, 0.5, 4.0, 0.1)
    assert choose_dose([mild, strong]) == 0.2
    assert choose_dose([strong, replace(strong, alpha=0.8, rise=8.0)]) == 1.0
    assert choose_dose([mild, replace(strong, kl_other=0.5)]) == 1.0
    assert choose_dose([mild, replace(strong, kl_other=0.5, loss_rise=0.6)]) == 0.2
    assert shared_dose([[mild, strong], [mild, replace(strong, kl_other=0.5)]]) == 0.2
