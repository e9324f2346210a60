"""The effect stage: the best features of a ranking, measured on hold-out items, as a table and a JSON file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from conceptatlas.base.errors import InputError
from conceptatlas.base.kinds import EFFECTS
from conceptatlas.base.progress import progress_bar
from conceptatlas.base.ties import comparable
from conceptatlas.base.writing import may_replace_folder
from conceptatlas.concepts import holdout_of
from conceptatlas.evidence.edits import steer as steer_edit
from conceptatlas.evidence.effect_result import Effects, FeatureEffect, save_effects
from conceptatlas.evidence.features import FeatureRef, best_of_layers, column_of_rows, features_of_ranking
from conceptatlas.evidence.measuring import ALPHAS, N_CONTROLS, Scene, measure_effect, n_pairs
from conceptatlas.evidence.output_lens import score_saes
from conceptatlas.evidence.readout import LanguageOutputs, Readout, ReadoutKind, edited_text, target_ids
from conceptatlas.evidence.tensors import SAETensors, load_tensors
from conceptatlas.evidence.token_attribution import attribute_tokens
from conceptatlas.ranking import Ranking
from conceptatlas.recording import Recording
from conceptatlas.subjects import LanguageSubject, load_subject

NEW_TOKENS = 12
GENERATED_ITEMS = 3
ATTRIBUTED_ITEMS = 2


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
        out: Where to write ``effects.csv``, ``effects.json``, ``output_scores.parquet`` and ``run.json``; None writes
            nothing.
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
    inputs = {"recording": rec.path} | ({} if ranking.path is None else {"ranking": ranking.path})
    if out is not None:
        may_replace_folder(EFFECTS, Path(out), inputs.values())  # before the work, not after it
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
    counts = {name: len(items) for name, items in chosen.items()}
    pairs = n_pairs(counts, n_doses=len(alphas), n_controls=n_controls)
    with progress_bar("effects", total=pairs * len(features)) as bar:
        for feature in features:
            bar.describe(feature.label)
            rng = np.random.default_rng([seed, feature.layer, feature.feature_id])
            found.append(
                stage.measure(feature, rng, alpha=alpha, alphas=alphas, n_controls=n_controls, tick=bar.advance)
            )
    ranked = features_of_ranking(ranking, rec)
    scores, without = score_saes(subject, rec, stage.sae, ranked, stage.targets)
    options = {"top_n": top_n, "per_layer": per_layer, "alpha": alpha, "n_items": n_items, "seed": seed}
    effects = Effects(found, words, where, counts, scores, without, options)
    return effects if out is None else save_effects(effects, out, inputs)


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
        self.subject = subject
        self.outputs = LanguageOutputs(subject)
        self.items = items
        self.texts = rec.items["text"].to_list()
        self.inputs = {
            name: readout.show(subject, [self.texts[item] for item in members]) for name, members in items.items()
        }
        self.targets = targets
        self.device = device
        self.discovery = ~held
        self._sae: tuple[str, SAETensors] | None = None
        self._scenes: dict[str, Scene] = {}

    def sae(self, slug: str) -> SAETensors:
        if self._sae is None or self._sae[0] != slug:
            self._sae = (slug, load_tensors(self.rec, slug, device=self.device))
        return self._sae[1]

    def scene(self, site: str) -> Scene:
        if site not in self._scenes:
            self._scenes[site] = Scene(
                outputs=self.outputs,
                site=site,
                discovery=self.inputs["discovery"],
                neutral=self.inputs["neutral"],
                strong=self.inputs["strong"],
                targets=self.targets,
                neutral_groups=self.rec.items["split_hash"].to_numpy()[self.items["neutral"]],
                difference_of_means=self._difference_of_means(site),
            )
        return self._scenes[site]

    def _difference_of_means(self, site: str) -> torch.Tensor | None:
        if site not in self.rec.hidden_sites:
            return None
        hidden = np.asarray(self.rec.hidden_final(site), dtype=np.float32)
        labels = self.rec.items["label"].to_numpy()
        top, low = (hidden[self.discovery & (labels == grade)] for grade in (labels.max(), labels.min()))
        return torch.from_numpy(top.mean(0) - low.mean(0))

    def measure(self, feature: FeatureRef, rng: np.random.Generator, **options: Any) -> FeatureEffect:
        recorded = self.rec.sae(feature.slug)
        sae = self.sae(feature.slug)
        scene = self.scene(recorded.site)
        column = column_of_rows(self.rec, feature)
        rows = self.discovery[self.rec.item_of_row]
        own = column[rows & (column > 0)]
        effect = measure_effect(
            scene,
            sae,
            feature.feature_id,
            density_F=density(self.rec, feature.slug, rows),
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
                clear = comparable(acts)
                peaks.append((-float(clear.max()), item, int(clear.argmax())))
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
        edit = steer_edit(torch.nn.functional.normalize(sae.W_dec[feature], dim=0), amount)
        found = []
        for item, shown in list(zip(self.items["neutral"], self.inputs["neutral"], strict=True))[:GENERATED_ITEMS]:
            plain = self.subject.generate(shown.ids, max_new_tokens=NEW_TOKENS).text
            with edited_text(self.subject, site, edit, shown):
                steered = self.subject.generate(shown.ids, max_new_tokens=NEW_TOKENS).text
            found.append({"item": item, "text": self.texts[item], "without": plain, "with": steered})
        return found


def density(rec: Recording, slug: str, rows_T: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Return the share of the rows ``rows_T`` (bool [T]) on which each feature of an SAE is active, [F]."""
    columns = rec.columns(slug)
    stored = np.concatenate([[0], np.cumsum(rows_T[np.asarray(columns.rows)])])
    indptr = np.asarray(columns.indptr).astype(np.int64)
    return (stored[indptr[1:]] - stored[indptr[:-1]]) / max(1, int(rows_T.sum()))


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
    (shown,) = Readout("chat" if chat else "end").show(subject, [prompt])
    norm = float(LanguageOutputs(subject).activations([shown], site).float().norm(dim=1).mean())
    vector = torch.as_tensor(np.asarray(direction_D, dtype=np.float32), device=subject.device)
    edit = steer_edit(torch.nn.functional.normalize(vector, dim=0), alpha * norm)
    without = subject.generate(shown.ids, max_new_tokens=max_new_tokens).text
    with edited_text(subject, site, edit, shown):
        return {"without": without, "with": subject.generate(shown.ids, max_new_tokens=max_new_tokens).text}
