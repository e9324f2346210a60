"""What a feature causes, against explicit two-pass computations on a tiny model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from conceptatlas.base.errors import InputError
from conceptatlas.concepts import build_concept, holdout_mask, holdout_of
from conceptatlas.evidence import effect_stage, measure_effects, steer
from conceptatlas.evidence.edits import random_directions
from conceptatlas.evidence.edits import steer as steer_edit
from conceptatlas.evidence.effect_stage import density
from conceptatlas.evidence.effects import Dose, choose_dose, like_density, shared_dose
from conceptatlas.evidence.features import FeatureRef, best_of_layers, column_of_rows
from conceptatlas.evidence.measuring import measure_effect
from conceptatlas.evidence.readout import LanguageOutputs, Readout, edited_text, target_ids
from conceptatlas.evidence.tensors import load_tensors
from conceptatlas.ranking import Ranking, rank
from conceptatlas.recording import Recording, record
from conceptatlas.saes import resolve_saes
from conceptatlas.subjects import LanguageSubject, Site, load_subject
from tests.helpers.cli import invoke
from tests.helpers.tiny_models import tiny_model
from tests.helpers.tiny_saes import write_saelens

SITE = "blocks.1.hook_resid_post"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model("gemma2", tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def subject(model: Path) -> LanguageSubject:
    return load_subject(str(model), device="cpu")


@pytest.fixture(scope="module")
def study(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recording, Ranking, Path]:
    folder = tmp_path_factory.mktemp("study")
    sae = write_saelens(folder / "sae", "jumprelu", d_in=32, d_sae=48, site=SITE)
    good, bad = "a brave child went back for the cat", "nobody minds the quick brown fox"
    texts = [f"{bad if i % 2 else good} {'and then ' * (i % 5)}number {i}" for i in range(60)]
    concept = build_concept("planted", texts, [0 if i % 2 else 3 for i in range(60)])
    recording = record(concept, str(model), str(sae), folder / "rec", device="cpu")
    ranking = rank(recording, folder / "rank", permutations=20, baselines=False, resplits=0)
    return recording, ranking, folder


def test_readouts(subject: LanguageSubject) -> None:
    (plain,) = (shown.ids for shown in Readout("end").show(subject, ["a brave child"]))
    (chat,) = (shown.ids for shown in Readout("chat").show(subject, ["a brave child"]))
    assert Readout().settled(subject).kind == "chat"
    bos = subject.tokenizer.bos_token_id
    assert (chat == bos).sum() == 1
    assert chat[0] == bos == plain[0]
    assert subject.tokenizer.decode(chat).endswith("<start_of_turn>model\n")
    assert Readout("auto", " That was").settled(subject).kind == "end"
    with pytest.raises(InputError, match="appends nothing"):
        Readout("chat", "x").settled(subject)
    with pytest.raises(InputError, match="no readout 'start'"):
        Readout("start").settled(subject)  # type: ignore[arg-type]


def test_targets_are_single_tokens(subject: LanguageSubject) -> None:
    ids = target_ids(subject, ["child"])
    assert {subject.tokenizer.decode([i]).strip().lower() for i in ids} == {"child"}
    with pytest.raises(InputError, match="'incomprehensible' is not one token"):
        target_ids(subject, ["incomprehensible"])


def test_steering_equals_two_passes_and_leaves_bos_alone(subject: LanguageSubject) -> None:
    outputs = LanguageOutputs(subject)
    inputs = Readout("end").show(subject, ["She told him that the bag was new", "I lied"])
    direction = torch.nn.functional.normalize(torch.arange(32.0) - 11, dim=0)
    steered = outputs.outputs(inputs, site=SITE, edit=steer_edit(direction, 2.5))
    layers = subject.hf_model.model.layers
    for shown, row in zip(inputs, steered, strict=True):

        def add(_module: Any, _args: Any, output: Any) -> Any:
            hidden = output[0] if isinstance(output, tuple) else output
            moved = hidden + 2.5 * direction * (torch.arange(hidden.shape[1]) > 0)[None, :, None]
            return (moved, *output[1:]) if isinstance(output, tuple) else moved

        handle = layers[1].register_forward_hook(add)
        with torch.no_grad():
            expected = subject.hf_model(torch.tensor(shown.ids.astype(np.int64))[None]).logits[0, -1].log_softmax(-1)
        handle.remove()
        assert torch.allclose(row, expected, atol=1e-4)
    plain = outputs.outputs(inputs, site=SITE)
    assert not torch.allclose(plain, steered, atol=1e-2)
    assert torch.allclose(plain, outputs.outputs(inputs, site=SITE, edit=lambda x: x), atol=1e-5)


def test_a_direction_written_into_the_unembedding_moves_its_token_as_computed(subject: LanguageSubject) -> None:
    """Behind the last block only final norm, unembedding and soft-cap follow: the logit has a closed form."""
    inputs = Readout("end").show(subject, ["They carried the stranger home"])
    hf = subject.hf_model
    last = f"blocks.{subject.n_layers - 1}.hook_resid_post"
    outputs = LanguageOutputs(subject)
    token, amount = 40, 3.0
    direction = torch.nn.functional.normalize(hf.lm_head.weight[token].detach(), dim=0)
    x = outputs.activations(inputs, last)[-1]

    def log_probs(vector: torch.Tensor) -> torch.Tensor:
        gain = 1 + hf.model.norm.weight.detach()
        normed = vector * torch.rsqrt(vector.pow(2).mean() + hf.model.norm.eps) * gain
        logits = hf.lm_head.weight.detach() @ normed
        cap = hf.config.final_logit_softcapping
        return (cap * torch.tanh(logits / cap) if cap else logits).log_softmax(-1)

    steered = outputs.outputs(inputs, site=last, edit=steer_edit(direction, amount))[0]
    expected = log_probs(x + amount * direction)
    assert torch.allclose(steered, expected, atol=1e-4)
    assert float(steered[token]) > float(outputs.outputs(inputs, site=last)[0][token])


def test_the_tensors_are_those_of_saelens(study: tuple[Recording, Ranking, Path]) -> None:
    recording, _, folder = study
    from sae_lens import SAE

    loaded = load_tensors(recording, recording.saes[0].slug)
    oracle = SAE.load_from_disk(str(folder / "sae"))
    x = torch.randn(2, 7, 32, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(loaded.encode(x), oracle.encode(x), atol=1e-5)
    assert torch.allclose(loaded.decode(oracle.encode(x)), oracle.decode(oracle.encode(x)), atol=1e-5)


def test_effects_are_complete_and_reproducible(study: tuple[Recording, Ranking, Path]) -> None:
    recording, ranking, folder = study
    assert ranking.features.height > 0
    options = {"top_n": 2, "targets": ["child", "then"], "n_items": 4, "n_controls": 3, "device": "cpu"}
    first = measure_effects(ranking, recording, folder / "effect", **options)
    second = measure_effects(folder / "rank", folder / "rec", **options)
    assert first.table.equals(second.table)
    written = json.loads((folder / "effect" / "effects.json").read_text())
    entry = written["features"][0]
    assert len(entry["random_features"]) == len(entry["random_directions"]) == 3
    assert entry["bar"] == max(0, entry["random_features_p95"], entry["random_directions_p95"])
    assert entry["causal"] == (not entry["reasons"])
    assert entry["difference_of_means_rise"] is not None
    assert entry["kl"] >= 0
    assert [dose["alpha"] for dose in entry["doses"]] == sorted(dose["alpha"] for dose in entry["doses"])
    assert {"item", "text", "without", "with"} == entry["generated"][0].keys()
    table = pl.read_csv(folder / "effect" / "effects.csv")
    assert table.height == min(2, ranking.features.height)


def test_the_command_writes_plots_and_refuses_bad_input(study: tuple[Recording, Ranking, Path]) -> None:
    _, _, folder = study
    common = ["effect", folder / "rank", "--rec", folder / "rec", "--device", "cpu"]
    out = folder / "by_command"
    few = ["--n-items", 2, "--n-controls", 2, "--top-n", 1]
    outcome = invoke(*common, "--out", out, "--targets", "child", *few, "--json")
    assert outcome.code == 0, outcome.stderr
    (row,) = json.loads(outcome.stdout)
    assert row["rank"] == 1
    assert {"rise_flipped", "difference_of_means_rise", "ablation_change", "promoted"} <= row.keys()
    assert (out / "feature_01_dose.png").read_bytes().startswith(b"\x89PNG")
    refused = invoke(*common, "--out", folder / "none")
    assert refused.code == 2
    assert "name them with --targets" in refused.stderr
    too_much = invoke(*common, "--out", folder / "none", "--alpha", 40, "--targets", "child")
    assert too_much.code == 2
    assert "40 mean residual norms" in too_much.stderr


def test_steer_gives_text_with_and_without(model: Path) -> None:
    direction = np.random.default_rng(0).standard_normal(32)
    texts = steer(str(model), direction, SITE, "She told him", alpha=3.0, max_new_tokens=5, device="cpu")
    again = steer(str(model), 10 * direction, SITE, "She told him", alpha=3.0, max_new_tokens=5, device="cpu")
    assert texts == again
    assert texts["with"] != texts["without"]


def test_controls_are_like_and_never_the_feature_itself() -> None:
    density = np.array([0.0, 0.5, 0.11, 0.1, 0.09, 0.4, 0.0, 0.12])
    chosen = like_density(density, 3, 1, np.random.default_rng(0))
    assert set(chosen) <= {2, 4, 7}
    everything = like_density(density, 3, 50, np.random.default_rng(0))
    assert everything == [1, 2, 4, 5, 7]
    with pytest.raises(InputError, match="no control"):
        like_density(np.array([0.0, 1.0]), 1, 5, np.random.default_rng(0))
    directions = random_directions(16, 5, np.random.default_rng(1))
    assert torch.allclose(directions.norm(dim=1), torch.ones(5), atol=1e-5)


def test_the_dose_with_most_room_above_the_controls_is_used() -> None:
    assert choose_dose([Dose(0.1, 1.0, 0.1), Dose(0.4, 4.0, 0.5), Dose(1.0, 5.0, 2.5)]) == 0.4
    assert choose_dose([Dose(0.1, 1.0, -3.0), Dose(0.4, 1.0, 0.0)]) == 0.1


def test_one_dose_for_several_features_moves_most_of_them() -> None:
    def curve(*points: tuple[float, float]) -> list[Dose]:
        return [Dose(alpha, rise, bar) for alpha, (rise, bar) in zip((0.2, 0.4, 0.8), points, strict=True)]

    early = curve((3.0, 0.5), (5.0, 1.0), (6.0, 3.5))
    late = curve((1.0, 0.2), (4.0, 1.0), (6.0, 2.0))
    never = curve((0.1, 0.5), (0.2, 1.0), (9.0, 4.8))
    assert shared_dose([early]) == 0.4  # room 2 and 3: both move it, the larger counts
    assert shared_dose([early, late, never]) == 0.4
    assert shared_dose([curve((1.9, 0.0), (2.0, 1.1), (2.0, 1.0))]) == 0.8  # only there 2 nats and twice the bar
    with pytest.raises(ValueError, match="same doses"):
        shared_dose([early, early[:2]])
    with pytest.raises(ValueError, match="0 sets"):
        shared_dose([])


def test_the_best_of_each_layer_is_the_first_of_it() -> None:
    refs = [FeatureRef("s", "s", layer, 10.0, feature) for layer, feature in ((3, 7), (1, 2), (3, 1), (0, 5), (1, 9))]
    assert [(ref.layer, ref.feature_id) for ref in best_of_layers(refs)] == [(0, 5), (1, 2), (3, 7)]


def test_saes_given_as_objects_are_found_again(study: tuple[Recording, Ranking, Path], model: Path) -> None:
    _, _, folder = study
    concept = build_concept("short", ["I lied", "I ran"], [3, 0])
    recording = record(concept, str(model), resolve_saes([str(folder / "sae")]), folder / "objects", device="cpu")
    assert load_tensors(recording, recording.saes[0].slug).W_dec.shape == (48, 32)


def test_the_holdout_is_that_of_the_ranking(study: tuple[Recording, Ranking, Path]) -> None:
    recording, _, folder = study
    options = {
        "permutations": 5,
        "baselines": False,
        "resplits": 0,
        "min_pearson": -1.0,
        "min_tpr": 0.0,
        "max_fpr": 1.0,
    }
    few = {"top_n": 1, "targets": ["child"], "n_items": 99, "n_controls": 2, "device": "cpu"}
    half = measure_effects(rank(recording, holdout=0.5, **options), recording, **few)  # type: ignore[arg-type]
    held, labels = holdout_of(recording.items, share=0.5), recording.items["label"].to_numpy()
    assert half.items == {
        "discovery": int((~held & (labels == labels.min())).sum()),
        "neutral": int((held & (labels == labels.min())).sum()),
        "strong": int((held & (labels == labels.max())).sum()),
    }
    assert min(half.items.values()) > 9
    with pytest.raises(InputError, match="held out nothing"):
        measure_effects(rank(recording, folder / "all", holdout=0.0, **options), recording, **few)  # type: ignore[arg-type]


def test_items_of_one_group_are_counted_as_one(model: Path, tmp_path: Path) -> None:
    write_saelens(tmp_path / "sae", "jumprelu", d_in=32, d_sae=48, site=SITE)
    texts = [f"{'nobody minds' if i % 2 else 'a brave child'} {'and then ' * (i % 5)}number {i}" for i in range(60)]
    concept = build_concept(
        "c", texts, [0 if i % 2 else 3 for i in range(60)], groups=[f"g{i // 6}" for i in range(60)]
    )
    recording = record(concept, str(model), str(tmp_path / "sae"), tmp_path / "rec", device="cpu")
    ranking = rank(recording, permutations=0, baselines=False, resplits=0)
    (found,) = measure_effects(
        ranking, recording, top_n=1, targets=["child"], n_items=99, n_controls=2, alpha=0.2, device="cpu"
    ).features
    hashes, labels = recording.items["split_hash"].to_numpy(), recording.items["label"].to_numpy()
    neutral = holdout_of(recording.items, share=0.3) & (labels == 0)
    assert found.effect.n_items == neutral.sum()
    assert 1 < found.effect.n_groups == len(np.unique(hashes[neutral])) < neutral.sum()


def texts_with(subject: LanguageSubject, direction: torch.Tensor, amount: float, text: str, n: int) -> tuple[str, str]:
    """Return what follows a text with a direction added where it is meant to be, and added everywhere."""
    (shown,) = Readout("chat").show(subject, [text])
    edit = steer_edit(torch.nn.functional.normalize(direction, dim=0), amount)
    with edited_text(subject, SITE, edit, shown):
        right = subject.generate(shown.ids, max_new_tokens=n).text
    with subject.edited(Site.parse(SITE), edit):
        return right, subject.generate(shown.ids, max_new_tokens=n).text


def test_steered_text_leaves_special_tokens_and_the_template_alone(
    study: tuple[Recording, Ranking, Path], subject: LanguageSubject, model: Path
) -> None:
    recording, ranking, _ = study
    direction = torch.randn(32, generator=torch.Generator().manual_seed(1))
    said = steer(
        str(model), direction.numpy(), SITE, "a brave child", alpha=3, max_new_tokens=8, chat=True, device="cpu"
    )
    (shown,) = Readout("chat").show(subject, ["a brave child"])
    norm = float(LanguageOutputs(subject).activations([shown], SITE).norm(dim=1).mean())
    right, wrong = texts_with(subject, direction, 3 * norm, "a brave child", 8)
    assert said["with"] == right != wrong
    (found,) = measure_effects(
        ranking, recording, top_n=1, targets=["child"], n_items=3, n_controls=2, alpha=3, device="cpu"
    ).features
    decoder = load_tensors(recording, found.feature.slug).W_dec[found.feature.feature_id]
    pairs = [texts_with(subject, decoder, found.effect.amount, one["text"], 12) for one in found.generated]
    assert [one["with"] for one in found.generated] == [right for right, _ in pairs]
    assert any(right != wrong for right, wrong in pairs)


def test_density_and_own_activation_are_those_of_discovery_rows(
    study: tuple[Recording, Ranking, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hold-out items' rows must not count: dose and controls are chosen on discovery."""
    recording, _, folder = study
    given: list[np.ndarray] = []

    def measure(*args: Any, density_F: np.ndarray, **options: Any) -> Any:
        given.append(density_F)
        return measure_effect(*args, density_F=density_F, **options)

    monkeypatch.setattr(effect_stage, "measure_effect", measure)
    ranking = rank(recording, folder / "seventy", holdout=0.7, permutations=5, baselines=False, resplits=0)
    (effects,) = measure_effects(
        ranking, recording, top_n=1, targets=["child"], n_items=3, n_controls=2, device="cpu"
    ).features
    ref = effects.feature
    held = holdout_mask(recording.items["label"].to_numpy(), recording.items["split_hash"].to_numpy(), share=0.7)
    rows = ~held[recording.item_of_row]
    column = column_of_rows(recording, ref)
    own = [value for value, kept in zip(column.tolist(), rows.tolist(), strict=True) if kept and value > 0]
    assert effects.effect.own_p95 == pytest.approx(np.percentile(own, 95))
    assert effects.effect.own_p95 != pytest.approx(np.percentile(column[column > 0], 95))
    found = density(recording, ref.slug, rows)
    assert len(found) == 48
    np.testing.assert_array_equal(given[0], found)
    assert (found != density(recording, ref.slug, np.ones_like(rows))).any()
    for feature in range(48):
        acts = column_of_rows(recording, replace(ref, feature_id=feature))
        assert found[feature] == pytest.approx((acts[rows] > 0).mean())
    assert density(recording, ref.slug, np.zeros(recording.n_rows, dtype=bool)).sum() == 0
