"""What single latents, probes and bags of words know of the graded sets: discovery chooses, the hold-out reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from sae_lens import SAE
from scipy.stats import rankdata
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import Gemma2ForCausalLM

from conceptatlas.concepts.model import holdout_mask, split_hash_of
from conceptatlas.subjects.organism import Item

from .activations import residuals
from .batches import Vocabulary
from .verdict_check import CHUNK, padded

Pool = Literal["final", "max"]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
MIN_PEARSON, MIN_TPR, MAX_FPR = 0.4, 0.5, 0.2


@dataclass(frozen=True)
class Subject:
    """A set seen by the model: items, and per layer the residual rows of all their tokens (BOS left out).

    ``starts`` [N + 1] delimits the items' rows.
    """

    items: Sequence[Item]
    rows: list[torch.Tensor]
    starts: npt.NDArray[np.int64]

    @property
    def grades(self) -> npt.NDArray[np.int64]:
        """The items' grades, [N]."""
        return np.array([item.grade for item in self.items])

    def of_kind(self, kind: str) -> Mask:
        """Which items are of a kind, [N]."""
        return np.array([item.kind == kind for item in self.items])

    def holdout(self) -> Mask:
        """Which items are hold-out, by the rule that the whole package uses, [N]."""
        hashes = np.array([split_hash_of(item.group) for item in self.items], dtype=np.uint64)
        return holdout_mask(self.grades, hashes)


@torch.no_grad()
def see(model: Gemma2ForCausalLM, vocabulary: Vocabulary, items: Sequence[Item]) -> Subject:
    """Run the plain stories of a set through the model."""
    rows: list[list[torch.Tensor]] = [[] for _ in model.model.layers]
    lengths = []
    with residuals(model) as caught:
        for start in range(0, len(items), CHUNK):
            chunk = [vocabulary.tokenizer(item.sentence)["input_ids"] for item in items[start : start + CHUNK]]
            ids, last = padded(chunk, vocabulary.pad)
            model.model(input_ids=ids, use_cache=False)
            for i, end in enumerate(last.tolist()):
                lengths.append(end)
                for layer, kept in enumerate(rows):
                    kept.append(caught[layer][i, 1 : end + 1])
    return Subject(items, [torch.cat(kept) for kept in rows], np.concatenate([[0], np.cumsum(lengths)]))


@torch.no_grad()
def pooled(subject: Subject, layer: int, sae: SAE, pool: Pool) -> Floats:
    """One score per item and latent, [N, F]."""
    codes = sae.encode(subject.rows[layer]).numpy().astype(np.float64)
    if pool == "final":
        return codes[subject.starts[1:] - 1]
    return np.maximum.reduceat(codes, subject.starts[:-1], axis=0)


def auroc(scores: Floats, positive: Mask, negative: Mask) -> float:
    """Probability that a positive item scores above a negative one, ties counting half; scores [N]."""
    n_positive, n_negative = int(positive.sum()), int(negative.sum())
    ranks = rankdata(np.concatenate([scores[positive], scores[negative]]))
    above = ranks[:n_positive].sum() - n_positive * (n_positive + 1) / 2
    return float(above / (n_positive * n_negative))


@dataclass(frozen=True)
class Scores:
    """The ranking's figures for each latent of one SAE on some items, each [F] (``means`` [4, F])."""

    pearson: Floats
    means: Floats
    tpr: Floats
    fpr: Floats
    threshold: Floats
    interpretability: Floats

    @property
    def passing(self) -> Mask:
        """Which latents pass the default filters, [F]."""
        rising = (np.diff(self.means, axis=0) > 0).all(0)
        return (self.pearson >= MIN_PEARSON) & rising & (self.tpr >= MIN_TPR) & (self.fpr <= MAX_FPR)


def score(scores_NF: Floats, grades: npt.NDArray[np.int64], threshold: Floats | None = None) -> Scores:
    """Compute the figures; the threshold is the 95th percentile of grade 0 unless given (from discovery)."""
    centred, y = scores_NF - scores_NF.mean(0), grades - grades.mean()
    spread = np.sqrt((centred**2).sum(0) * (y**2).sum())
    pearson = np.divide((centred * y[:, None]).sum(0), spread, out=np.zeros(spread.shape), where=spread > 0)
    means = np.stack([scores_NF[grades == grade].mean(0) for grade in range(4)])
    deviation = scores_NF.std(0)
    separation = np.divide(means[3] - means[0], deviation, out=np.zeros(spread.shape), where=deviation > 0)
    if threshold is None:
        threshold = np.percentile(scores_NF[grades == 0], 95, axis=0)
    tpr, fpr = ((scores_NF[grades == grade] > threshold).mean(0) for grade in (3, 0))
    return Scores(pearson, means, tpr, fpr, threshold, 0.4 * pearson + 0.3 * separation + 0.3 * (tpr - fpr))


@dataclass(frozen=True)
class Found:
    """A latent chosen on discovery, and what the hold-out says of it."""

    sae_id: str
    latent: int
    passes: bool
    passes_holdout: bool
    interpretability: float
    pearson: float
    pearson_holdout: float
    auroc_holdout: float
    relational_auroc_holdout: float
    means: list[float]


def best_latent(subject: Subject, saes: dict[str, SAE], pool: Pool) -> Found:
    """The latent over all SAEs that passes the filters with the best interpretability score (failing that, the best score)."""
    return max(
        (best_of_sae(subject, sae_id, sae, pool) for sae_id, sae in saes.items()),
        key=lambda found: (found.passes, found.interpretability),
    )


def best_of_sae(subject: Subject, sae_id: str, sae: SAE, pool: Pool) -> Found:
    """The same within one SAE."""
    holdout, grades = subject.holdout(), subject.grades
    scores_NF = pooled(subject, layer_of(sae_id), sae, pool)
    discovery = score(scores_NF[~holdout], grades[~holdout])
    after = score(scores_NF[holdout], grades[holdout], discovery.threshold)
    latent = int(np.lexsort((discovery.interpretability, discovery.passing))[-1])
    column = scores_NF[:, latent]
    relational = holdout & subject.of_kind("relational"), holdout & subject.of_kind("control")
    return Found(
        sae_id,
        latent,
        bool(discovery.passing[latent]),
        bool(after.passing[latent]),
        float(discovery.interpretability[latent]),
        float(discovery.pearson[latent]),
        float(after.pearson[latent]),
        auroc(column, holdout & (grades == 3), holdout & (grades == 0)),
        auroc(column, *relational),
        [round(float(mean), 3) for mean in after.means[:, latent]],
    )


def layer_of(sae_id: str) -> int:
    """The layer of ``blocks.{layer}.hook_resid_post/...``."""
    return int(sae_id.split(".")[1])


def load_saes(folder: Path) -> dict[str, SAE]:
    """All SAEs of the model, by sae_id."""
    return {
        str(path.parent.relative_to(folder)): SAE.load_from_disk(path.parent)
        for path in sorted(folder.rglob("cfg.json"))
    }


def baselines(subject: Subject) -> dict[str, float]:
    """Hold-out accuracy on four grades and on relational items with their controls, of a probe and of a bag of words.

    The probe is logistic on the final token's residual, at the layer with the best discovery accuracy.
    """
    holdout, grades = subject.holdout(), subject.grades
    related = holdout & (subject.of_kind("relational") | subject.of_kind("control"))
    final = subject.starts[1:] - 1
    figures: dict[str, float] = {}
    for layer, rows in enumerate(subject.rows):
        states = rows[final].numpy()
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, C=0.3))
        probe.fit(states[~holdout], grades[~holdout])
        figures[f"probe layer {layer}"] = probe.score(states[holdout], grades[holdout])
        figures[f"probe layer {layer}, relational"] = probe.score(states[related], grades[related])
    words = CountVectorizer().fit_transform([item.sentence for item in subject.items])
    bag = LogisticRegression(max_iter=2000).fit(words[~holdout], grades[~holdout])
    expected = bag.predict_proba(words) @ bag.classes_
    figures["bag of words"] = bag.score(words[holdout], grades[holdout])
    figures["bag of words, relational"] = bag.score(words[related], grades[related])
    figures["bag of words, relational AUROC"] = auroc(
        expected, holdout & subject.of_kind("relational"), holdout & subject.of_kind("control")
    )
    return figures
