"""A small study with a planted concept, made without any model, for the tests of the views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import conceptatlas as ca
from conceptatlas.base.provenance import write_run
from conceptatlas.ranking import rank
from conceptatlas.views import write_concepts
from tests.helpers.recordings import write_synthetic_recording

WHO = ("Mara", "Ben", "Ida", "Tom", "Lena", "Otto")
THING = ("bag", "coat", "clock", "lamp", "boat")
ACTS = (
    "and told her the truth about it",
    "and left out one small detail",
    "and hid the bill from her friend",
    "and swore to a thing that was plainly false",
)
AFTER = ("The rain kept on until the evening .", "They had tea and talked about the garden .")


def sentence(grade: int, rng: np.random.Generator) -> str:
    """Return a sentence of about twenty words for a grade."""
    return f"{rng.choice(WHO)} sold the old {rng.choice(THING)} {ACTS[grade]} . {rng.choice(AFTER)}"


def study_parts(
    n_items: int, *, n_layers: int = 4, n_features: int = 48, seed: int = 0
) -> tuple[dict[str, np.ndarray], list[int], list[int], list[str], dict[str, np.ndarray]]:
    """Return columns, labels, rows per item, texts and hidden states: from layer 1 on feature 3 reads the grade."""
    rng = np.random.default_rng(seed)
    labels = [i % 4 for i in range(n_items)]
    texts = [sentence(grade, rng) for grade in labels]
    lengths = [len(text.split()) for text in texts]
    n_rows = sum(lengths)
    of_row = np.repeat(np.arange(n_items), lengths)
    place = np.concatenate([np.linspace(0, 1, n) for n in lengths])
    grade = np.array(labels)[of_row]
    columns, hidden = {}, {}
    for layer in range(n_layers):
        acts = rng.gamma(1.0, 1.0, size=(n_rows, n_features)) * (rng.random((n_rows, n_features)) < 0.08)
        strength = (0.0, 0.55, 1.0, 0.9)[layer % 4]
        for number, onset in ((3, 0.45), (11, 0.75), (20, 0.1)):
            wave = np.clip((place - onset) / 0.3, 0, 1)
            noise = rng.normal(0, 0.8, n_rows) + rng.normal(0, 0.6, n_items)[of_row]
            acts[:, number] = np.maximum(strength * grade * wave * 1.3 + noise - 0.6, 0) * (strength > 0)
        columns[f"blocks.{layer}.hook_resid_post__l0_12"] = acts.astype(np.float32)
        direction = rng.normal(size=16)
        hidden[f"blocks.{layer}.hook_resid_post"] = (
            rng.normal(size=(n_items, 16)) * 2 + strength * np.outer(labels, direction) * 0.35
        )
    return columns, labels, lengths, texts, hidden


def write_study(
    path: Path,
    n_items: int = 120,
    *,
    texts: Mapping[int, str] | None = None,
    groups: Sequence[str | None] | None = None,
    saes: Mapping[str, Mapping[str, Any]] | None = None,
    name: str = "dishonesty",
    keep: str = "all",
    sinks: Sequence[int] = (),
    **options: Any,
) -> Path:
    """Write ``path/rec`` and ``path/rank`` and return ``path``; ``texts`` replaces those items' texts."""
    columns, labels, lengths, own, hidden = study_parts(n_items)
    for item, text in (texts or {}).items():
        own[item] = text
    if keep == "final":
        final = np.cumsum(lengths) - 1
        for acts in columns.values():
            mask = np.ones(len(acts), dtype=bool)
            mask[final] = False
            acts[mask] = 0
    facts: dict[str, dict[str, Any]] = {
        slug: {"average_l0": 12.0 + layer, "architecture": "jumprelu", "sae_id": f"layer_{layer}/l0_12"}
        for layer, slug in enumerate(columns)
    }
    for slug, more in (saes or {}).items():
        facts[slug] |= more
    recording = write_synthetic_recording(
        path / "rec",
        columns,
        labels,
        lengths,
        hidden=hidden,
        groups=groups,
        texts=own,
        saes=facts,
        keep=keep,
        sinks=sinks,
        subject="organism",
        name=name,
    )
    write_run(path / "rec", command="record", options={"data": "builtin:dishonesty", "model": "organism"})
    rank(recording, path / "rank", **{"permutations": 200, **options})
    return path


CONCEPTS = ("courage", "care & <b>", "anger")


def write_study_set(folder: Path) -> Path:
    """Write a study of three concepts, compared: feature k follows concept k alone, feature 3 the first two."""
    for c, name in enumerate(CONCEPTS):
        rng = np.random.default_rng(c)
        labels = rng.permutation(np.arange(120) % 4)
        drive = np.zeros((120, 8))
        drive[:, c] = labels
        drive[:, 3] = 1.5 * labels * (c < 2)
        acts = np.maximum(drive + rng.normal(0, 1, drive.shape), 0).astype(np.float32)
        rec = write_synthetic_recording(
            folder / name / "rec", {"s": acts}, labels.tolist(), [1] * 120, name=name, subject="organism"
        )
        rank(rec, folder / name / "rank", baselines=False, resplits=0, families=False, permutations=99)
        ca.report(folder / name)
    write_concepts(folder, "three <i>", CONCEPTS)
    parts = [folder / name for name in CONCEPTS]
    ca.compare_concepts([p / "rank" for p in parts], [p / "rec" for p in parts], folder / "compare", top=2)
    return folder
