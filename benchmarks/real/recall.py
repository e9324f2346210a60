"""How often the ranking puts the planted feature first, on SAEs with known truth.

SAELens's synthetic model makes the states: sparse ground-truth features with Zipfian firing probabilities, in superposition,
with or without correlation between them. A BatchTopK SAE is trained on it. A concept is one ground-truth feature: grade 0
where it is off, grades 1 to 3 by thirds of its magnitude where it is on; a share of the grades is then drawn anew.
The answer is the latent whose decoder is nearest to the planted direction.

    python -m benchmarks.real.recall --out recall.json
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.recordings import write_recording
from conceptatlas.concepts import build_concept
from conceptatlas.ranking import rank
from conceptatlas.recording import SparseColumns

N_TRUE, D, D_SAE = 512, 128, 512
POOL_ROWS = 60_000
# Concepts that fire neither too seldom to be graded nor on most rows.
FIRING = (0.01, 0.2)
RECOVERED = 0.8


@dataclass(frozen=True)
class World:
    """A pool of rows with their truth, and an SAE trained on more of the same.

    Attributes:
        truth: Magnitude of each ground-truth feature, float32 [T, N_TRUE].
        latents: The SAE's activations, float32 [T, D_SAE].
        cosine: Of each ground-truth direction with each decoder direction, float32 [N_TRUE, D_SAE].
    """

    truth: npt.NDArray[np.float32]
    latents: npt.NDArray[np.float32]
    cosine: npt.NDArray[np.float32]


def make_world(correlation: float, samples: int, seed: int) -> World:
    """Train an SAE on a synthetic model whose features correlate on the scale ``correlation``."""
    from sae_lens import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
    from sae_lens.synthetic import LowRankCorrelationConfig, SyntheticModel, SyntheticModelConfig, train_toy_sae

    torch.manual_seed(seed)
    model = SyntheticModel(
        SyntheticModelConfig(
            num_features=N_TRUE,
            hidden_dim=D,
            correlation=LowRankCorrelationConfig(rank=8, correlation_scale=correlation, seed=seed)
            if correlation
            else None,
            std_firing_magnitudes=0.3,
            seed=seed,
        )
    )
    _, some = model.sample_with_features(2000)
    k = float((some > 0).sum(1).float().mean())
    sae = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(d_in=D, d_sae=D_SAE, k=k))
    train_toy_sae(sae, model.feature_dict, model.activation_generator, training_samples=samples, lr=1e-3)
    with torch.no_grad():
        states, truth = model.sample_with_features(POOL_ROWS)
        latents = sae.encode(states)
        unit = torch.nn.functional.normalize
        cosine = unit(model.feature_dict.feature_vectors, dim=1) @ unit(sae.W_dec, dim=1).T
    return World(truth.numpy(), latents.numpy(), cosine.numpy())


def graded(
    magnitude: npt.NDArray[np.float32], n: int, noise: float, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Draw ``n`` rows, as many of each grade, and return their numbers and their grades with noise."""
    on = magnitude > 0
    cuts = np.quantile(magnitude[on], [1 / 3, 2 / 3])
    grade = np.where(on, 1 + np.searchsorted(cuts, magnitude), 0)
    rows = np.concatenate([rng.choice(np.flatnonzero(grade == g), n // 4, replace=False) for g in range(4)])
    grades = grade[rows]
    wrong = rng.random(len(rows)) < noise
    return rows, np.where(wrong, rng.integers(0, 4, len(rows)), grades)


def place_of(
    world: World, feature: int, n: int, noise: float, rng: np.random.Generator, folder: Path
) -> tuple[int | None, bool]:
    """Rank the SAE's latents against one planted concept; return the rank of its latent, and whether anything beat chance."""
    rows, grades = graded(world.truth[:, feature], n, noise, rng)
    latents = np.ascontiguousarray(world.latents[rows].T)
    indptr = np.concatenate([[0], np.cumsum((latents != 0).sum(1))]).astype(np.int64)
    columns = SparseColumns(indptr, np.nonzero(latents)[1].astype(np.int32), latents[latents != 0])
    concept = build_concept("planted", [f"row {row}" for row in rows], grades.tolist())
    rec = write_recording(folder, concept, [(0, 10.0, columns)])
    ranking = rank(rec, baselines=False, families=False, resplits=0, permutations=200, top_n=20)
    found = ranking.features.filter(ranking.features["feature_id"] == int(world.cosine[feature].argmax()))
    return (int(found["rank"][0]) if found.height else None), ranking.facts["counts"]["beyond_chance"] > 0


@dataclass(frozen=True)
class Recall:
    """One line of the table."""

    correlation: float
    n: int
    noise: float
    concepts: int
    first: float
    in_ten: float
    beyond_chance: float


def main() -> None:
    """Print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--samples", type=int, default=2_000_000, help="rows that each SAE is trained on")
    parser.add_argument("--concepts", type=int, default=30, help="planted concepts of each setting")
    args = parser.parse_args()
    lines: list[Recall] = []
    worlds: list[dict[str, float]] = []
    for correlation in (0.0, 0.1):
        world = make_world(correlation, args.samples, seed=0)
        firing = (world.truth > 0).mean(0)
        able = np.flatnonzero((firing > FIRING[0]) & (firing < FIRING[1]))
        recovered = able[world.cosine[able].max(1) >= RECOVERED]
        worlds.append({"correlation": correlation, "features": len(able), "recovered": len(recovered)})
        print(worlds[-1])
        rng = np.random.default_rng(0)
        chosen = rng.choice(recovered, min(args.concepts, len(recovered)), replace=False)
        for n, noise in itertools.product((40, 100, 400), (0.0, 0.3, 0.6)):
            with tempfile.TemporaryDirectory() as folder:
                places = [place_of(world, int(f), n, noise, rng, Path(folder) / str(i)) for i, f in enumerate(chosen)]
            ranks = [place for place, _ in places]
            lines.append(
                Recall(
                    correlation,
                    n,
                    noise,
                    len(ranks),
                    float(np.mean([r == 1 for r in ranks])),
                    float(np.mean([r is not None and r <= 10 for r in ranks])),
                    float(np.mean([some for _, some in places])),
                )
            )
            print(lines[-1])
    if args.out:
        args.out.write_text(json.dumps({"worlds": worlds, "recall": [asdict(line) for line in lines]}, indent=2) + "\n")


if __name__ == "__main__":
    main()
