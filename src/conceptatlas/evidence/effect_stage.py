"""The effect stage: the best features of a ranking, measured on hold-out items, as a table and a JSON file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from conceptatlas.base.errors import InputError
from conceptatlas.base.files import atomic_file, ensure_folder, write_json
from conceptatlas.base.progress import progress_bar
from conceptatlas.base.provenance import write_run
from conceptatlas.concepts import holdout_of
from conceptatlas.evidence.edits import steer as steer_edit
from conceptatlas.evidence.effects import ALPHAS, N_CONTROLS, N_DOSE_CONTROLS, Effect, Scene, measure_effect
from conceptatlas.evidence.features import FeatureRef, best_of_layers, column_of_rows, features_of_ranking
from conceptatlas.evidence.readout import LanguageOutputs, Readout, ReadoutKind, target_ids
from conceptatlas.evidence.tensors import SAETensors, load_tensors
from conceptatlas.evidence.token_attribution import attribute_tokens
from conceptatlas.ranking import Ranking
from conceptatlas.recording import Recording
from conceptatlas.subjects import LanguageSubject, Site, load_subject

EFFECTS_CSV = "effects.csv"
EFFECTS_JSON = "effects.json"
NEW_TOKENS = 12
GENERATED_ITEMS = 3
ATTRIBUTED_ITEMS = 2

CSV_COLUMNS = (
    "rank", "sae_id", "layer", "feature_id", "alpha", "amount", "own_p95", "base_logprob", "rise", "rise_flipped",
    "random_features_p95", "random_directions_p95", "bar", "causal", "difference_of_means_rise", "direct_rise", "kl",
    "ablation_change", "ablation_random", "promoted", "suppressed",
)  # fmt: skip


@dataclass(frozen=True)
class FeatureEffect:
    """One feature's effect, with generated text.

    Attributes:
        feature: Which feature.
        effect: What it causes.
        generated: For some neutral hold-out items: item, text, what follows without the edit, and with it.
        attributions: For some hold-out items of the top grade: item, tokens and what each pushes.
    """

    feature: FeatureRef
    effect: Effect
    generated: list[dict[str, Any]]
    attributions: list[dict[str, Any]]

    def as_json(self) -> dict[str, Any]:
        """Return everything, for ``effects.json``."""
        effect = self.effect
        return {
            "rank": self.feature.rank,
            "slug": self.feature.slug,
            "sae_id": self.feature.sae_id,
            "layer": self.feature.layer,
            "feature_id": self.feature.feature_id,
            **asdict(effect),
            "bar": effect.bar,
            "causal": effect.causal,
            "verdict": effect.verdict,
            "generated": self.generated,
            "attributions": self.attributions,
        }

    def as_row(self) -> dict[str, Any]:
        """Return the row of ``effects.csv``."""
        row = self.as_json()
        for name in ("promoted", "suppressed"):
            row[name] = " ".join(token for token, _ in row[name])
        return {name: row[name] for name in CSV_COLUMNS}


@dataclass(frozen=True)
class Effects:
    """What the effect stage found.

    Attributes:
        features: The features, in the ranking's order.
        targets: The target words.
        readout: Where the next token was read.
        items: How many items: discovery, neutral, strong.
        path: The folder, where written.
    """

    features: list[FeatureEffect]
    targets: list[str]
    readout: Readout
    items: dict[str, int]
    path: Path | None = None

    @property
    def table(self) -> pl.DataFrame:
        """The rows of ``effects.csv``."""
        return pl.DataFrame([found.as_row() for found in self.features], infer_schema_length=None)

    def _repr_html_(self) -> str:
        return self.table._repr_html_()


def measure_effects(
    ranking: Ranking | str | os.PathLike[str],
    rec: Recording | str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    top_n: int = 5,
    per_layer: bool = False,
    targets: Sequence[str] | None = None,
    readout: ReadoutKind = "auto",
    append: str = "",
    alpha: float | None = None,
    alphas: Sequence[float] = ALPHAS,
    n_items: int = 32,
    n_controls: int = N_CONTROLS,
    holdout: float | None = None,
    device: str = "auto",
    seed: int = 0,
) -> Effects:
    """Steer along, and ablate, the best features of a ranking on hold-out items, beside controls.

    Args:
        ranking: A ranking, or its folder.
        rec: The recording that was ranked, or its folder.
        out: Where to write ``effects.csv``, ``effects.json`` and ``run.json``; None writes nothing.
        top_n: How many features, from the top.
        per_layer: The best feature of each layer instead: a concept may be caused at another layer than where it is read.
        targets: Words whose log-probability is measured, each one token; for the built-in model the narrator's verdicts on
            the trait unless given.
        readout: ``chat`` (the item is the user's turn, read where the model begins to speak), ``end`` (after the item), or
            ``auto`` (``chat`` where there is a template).
        append: Text put after the item before reading (``end`` only).
        alpha: The dose in mean residual norms; chosen on discovery where None.
        alphas: The grid of the dose–response.
        n_items: How many items of each kind (discovery, neutral, strong), in order.
        n_controls: How many random features and random directions.
        holdout: The share that was held out; the ranking's own where None.
        device: Where the model runs.
        seed: Draws the controls.

    Returns:
        The effects.

    Raises:
        InputError: Nothing was ranked, a target is not one token, or there are no hold-out items.
    """
    ranking = ranking if isinstance(ranking, Ranking) else Ranking.open(ranking)
    rec = rec if isinstance(rec, Recording) else Recording.open(rec)
    if alpha is not None and not 0 < alpha <= 10:
        raise InputError(f"A dose of {alpha:g} mean residual norms is not between 0 and 10; try 0.4.")
    features = features_of_ranking(ranking, rec, top_n=None if per_layer else top_n)
    features = best_of_layers(features) if per_layer else features
    if not features:
        raise InputError(
            "The ranking holds no feature, so there is nothing to steer; rank again with other filters (--min-pearson 0.2, "
            "or --pool max)."
        )
    subject = load_subject(rec.manifest.subject.location or rec.manifest.subject.id, device=device)
    where = Readout(readout, append).settled(subject)
    words = list(targets) if targets else default_targets(rec)
    share = _held_out(ranking) if holdout is None else holdout
    held = holdout_of(rec.items, share=share, by=ranking.facts.get("options", {}).get("holdout_by"))
    chosen = _items(rec, held, n_items)
    found: list[FeatureEffect] = []
    stage = _Stage(rec, subject, where, target_ids(subject, words), chosen, held=held, device=str(subject.device))
    runs = len(alphas) * (1 + 2 * min(N_DOSE_CONTROLS, n_controls)) + 2 * n_controls + 1
    with progress_bar("effects", total=runs * len(features)) as bar:
        for feature in features:
            bar.describe(feature.label)
            rng = np.random.default_rng([seed, feature.layer, feature.feature_id])
            found.append(
                stage.measure(feature, rng, alpha=alpha, alphas=alphas, n_controls=n_controls, tick=bar.advance)
            )
    counts = {name: len(items) for name, items in chosen.items()}
    effects = Effects(found, words, where, counts, Path(out) if out is not None else None)
    if effects.path is not None:
        _save(
            effects,
            effects.path,
            options={"top_n": top_n, "per_layer": per_layer, "alpha": alpha, "n_items": n_items, "seed": seed},
        )
    return effects


def default_targets(rec: Recording) -> list[str]:
    """Return the target words of the built-in model's traits.

    Raises:
        InputError: The recording is of another model or concept.
    """
    from conceptatlas.subjects.organism import TRAITS, verdict_words

    name = rec.manifest.concept.name
    if rec.manifest.subject.id == "organism" and name in TRAITS:
        return list(verdict_words(name))
    raise InputError(
        f"Nothing says which next tokens {name!r} should move in {rec.manifest.subject.id}; name them with --targets, "
        "such as --targets dishonest,lying."
    )


def _held_out(ranking: Ranking) -> float:
    """Return the share that the ranking held out.

    Raises:
        InputError: It held out nothing, so that there is nothing to measure on.
    """
    share = float(ranking.facts.get("options", {}).get("holdout", 0.3))
    if share == 0:
        raise InputError(
            "The ranking held out nothing (--holdout 0), so there are no items to measure on; rank with a hold-out."
        )
    return share


def _items(rec: Recording, held: npt.NDArray[np.bool_], n_items: int) -> dict[str, list[int]]:
    """Return the items to use: discovery and hold-out ones of the lowest grade, hold-out ones of the top grade."""
    labels = rec.items["label"].to_numpy()
    low, high = labels.min(), labels.max()
    chosen = {
        "discovery": np.flatnonzero(~held & (labels == low))[:n_items].tolist(),
        "neutral": np.flatnonzero(held & (labels == low))[:n_items].tolist(),
        "strong": np.flatnonzero(held & (labels == high))[:n_items].tolist(),
    }
    for name, members in chosen.items():
        if not members:
            raise InputError(
                f"There are no {name} items to measure on; record more items, or hold out a share of them."
            )
    return chosen


class _Stage:
    """What stays the same from feature to feature: subject, readout, items, and one SAE in memory."""

    def __init__(
        self,
        rec: Recording,
        subject: LanguageSubject,
        readout: Readout,
        targets: list[int],
        items: dict[str, list[int]],
        *,
        held: npt.NDArray[np.bool_],
        device: str,
    ) -> None:
        self.rec = rec
        self.held = held
        self.subject = subject
        self.outputs = LanguageOutputs(subject)
        self.items = items
        self.texts = rec.items["text"].to_list()
        self.inputs = {
            name: readout.token_ids(subject, [self.texts[item] for item in members]) for name, members in items.items()
        }
        self.targets = targets
        self.device = device
        self._sae: tuple[str, SAETensors] | None = None

    def sae(self, slug: str) -> SAETensors:
        if self._sae is None or self._sae[0] != slug:
            self._sae = (slug, load_tensors(self.rec, slug, device=self.device))
        return self._sae[1]

    def scene(self, site: str) -> Scene:
        last = str(Site("hook_resid_post", self.subject.n_layers - 1))
        norms = self.outputs.activations(self.inputs["discovery"], site).float().norm(dim=1)
        return Scene(
            outputs=self.outputs,
            site=site,
            last_site=last,
            discovery=self.inputs["discovery"],
            neutral=self.inputs["neutral"],
            strong=self.inputs["strong"],
            targets=self.targets,
            residual_norm=float(norms.mean()),
            difference_of_means=self._difference_of_means(site),
        )

    def _difference_of_means(self, site: str) -> torch.Tensor | None:
        if site not in self.rec.hidden_sites:
            return None
        hidden = np.asarray(self.rec.hidden_final(site), dtype=np.float32)
        labels = self.rec.items["label"].to_numpy()
        seen = ~self.held
        top, low = hidden[seen & (labels == labels.max())], hidden[seen & (labels == labels.min())]
        return torch.from_numpy(top.mean(0) - low.mean(0))

    def measure(self, feature: FeatureRef, rng: np.random.Generator, **options: Any) -> FeatureEffect:
        recorded = self.rec.sae(feature.slug)
        sae = self.sae(feature.slug)
        scene = self.scene(recorded.site)
        column = column_of_rows(self.rec, feature)
        own = column[column > 0]
        effect = measure_effect(
            scene,
            sae,
            feature.feature_id,
            density_F=density(self.rec, feature.slug),
            own_p95=float(np.percentile(own, 95)) if len(own) else 0.0,
            rng=rng,
            **options,
        )
        return FeatureEffect(
            feature,
            effect,
            self._generate(recorded.site, sae, feature.feature_id, effect.amount),
            self._attribute(recorded.site, sae, feature.feature_id, column),
        )

    def _attribute(
        self, site: str, sae: SAETensors, feature: int, column_T: npt.NDArray[np.float32]
    ) -> list[dict[str, Any]]:
        """Attribute the feature, at its peak, to the tokens of the hold-out items of the top grade that it fires on most."""
        peaks = []
        for item in self.items["strong"]:
            rows = self.rec.row_slice(item)
            acts = column_T[rows]
            if len(acts) and acts.max() > 0:
                peaks.append((-float(acts.max()), item, int(acts.argmax())))
        found = []
        for _, item, peak in sorted(peaks)[:ATTRIBUTED_ITEMS]:
            tokenized = self.subject.tokenize([self.texts[item]])
            stop = int(np.flatnonzero(tokenized.positions[0] == peak)[0]) + 1
            ids = tokenized.token_ids[0][:stop]
            if len(ids) > 1:
                attribution = attribute_tokens(self.subject, sae, site, feature, ids)
                found.append({"item": item, **asdict(attribution)})
        return found

    def _generate(self, site: str, sae: SAETensors, feature: int, amount: float) -> list[dict[str, Any]]:
        direction = torch.nn.functional.normalize(sae.W_dec[feature], dim=0)
        edit = self.outputs.on_text(steer_edit(direction, amount))
        found = []
        for item, ids in list(zip(self.items["neutral"], self.inputs["neutral"], strict=True))[:GENERATED_ITEMS]:
            plain = self.subject.generate(ids, max_new_tokens=NEW_TOKENS).text
            with self.subject.edited(Site.parse(site), edit):
                steered = self.subject.generate(ids, max_new_tokens=NEW_TOKENS).text
            found.append({"item": item, "text": self.texts[item], "without": plain, "with": steered})
        return found


def density(rec: Recording, slug: str) -> npt.NDArray[np.float64]:
    """Return the share of recorded rows on which each feature of an SAE is active, [F]."""
    columns = rec.columns(slug)
    return np.diff(np.asarray(columns.indptr).astype(np.float64)) / max(1, rec.n_rows)


def _save(effects: Effects, folder: Path, *, options: dict[str, Any]) -> None:
    ensure_folder(folder)
    with atomic_file(folder / EFFECTS_CSV) as handle:
        effects.table.write_csv(handle)
    write_json(
        folder / EFFECTS_JSON,
        {
            "targets": effects.targets,
            "readout": asdict(effects.readout),
            "items": effects.items,
            "features": [found.as_json() for found in effects.features],
        },
    )
    write_run(folder, command="effect", options={**options, "targets": effects.targets})


def steer(
    model: str | Path,
    direction_D: npt.ArrayLike,
    site: str,
    prompt: str,
    *,
    alpha: float = 0.4,
    max_new_tokens: int = 40,
    chat: bool = False,
    device: str = "auto",
) -> dict[str, str]:
    """Return generated text with and without a direction added at a site.

    Args:
        model: ``organism``, a folder, or a hub id.
        direction_D: The direction, [D]; its length does not matter.
        site: Where it is added, such as ``blocks.12.hook_resid_post``.
        prompt: What the model continues (with ``chat``: the user's turn).
        alpha: The dose in mean residual norms of the prompt at the site.
        max_new_tokens: At most so many new tokens.
        chat: Put the prompt into the model's chat template.
        device: Where the model runs.

    Returns:
        ``without`` and ``with``.
    """
    subject = load_subject(model, device=device)
    outputs = LanguageOutputs(subject)
    (ids,) = Readout("chat" if chat else "end").token_ids(subject, [prompt])
    norm = float(outputs.activations([ids], site).float().norm(dim=1).mean())
    vector = torch.as_tensor(np.asarray(direction_D, dtype=np.float32), device=subject.device)
    edit = outputs.on_text(steer_edit(torch.nn.functional.normalize(vector, dim=0), alpha * norm))
    without = subject.generate(ids, max_new_tokens=max_new_tokens).text
    with subject.edited(Site.parse(site), edit):
        return {"without": without, "with": subject.generate(ids, max_new_tokens=max_new_tokens).text}
