"""Make the built-in model from nothing: model, SAEs, graded sets, prompts, card.

    python tools/train_organism.py

takes about 20 minutes on two cores and writes into the package (``src/conceptatlas/subjects/organism/data`` and
``src/conceptatlas/concepts/data/organism``). ``--stages`` runs some stages only, on what the others left.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from pathlib import Path

os.environ.setdefault("WANDB_MODE", "disabled")

import torch
from organism_training import card, detection, saes, shipping, steering, verdict_check
from organism_training.activations import collect_rows
from organism_training.batches import Vocabulary
from organism_training.model import train_model
from transformers import Gemma2ForCausalLM

from conceptatlas.base.files import ensure_folder
from conceptatlas.subjects.organism import TRAITS, graded_set, neutral_stories

SOURCE = Path(__file__).parents[1] / "src" / "conceptatlas"
STAGES = ("model", "saes", "sets", "card")
NEUTRAL_STORIES = 60
CHECK_ROWS = 40_000


def make_saes(model: Gemma2ForCausalLM, vocabulary: Vocabulary, folder: Path) -> None:
    """Train every SAE and record its measured L0."""
    shutil.rmtree(folder, ignore_errors=True)
    rows = collect_rows(model, vocabulary, saes.ROWS, seed=11)
    check = collect_rows(model, vocabulary, CHECK_ROWS, seed=12, split="held-out")
    for layer in range(model.config.num_hidden_layers):
        for k, width in saes.SETTINGS.items():
            path = folder / f"blocks.{layer}.hook_resid_post" / f"l0_{k}"
            saes.save_sae(saes.train_sae(rows[layer], layer, k, width=width), path)
            quality = saes.measure_sae(path, check[layer])
            saes.record_quality(path, quality)
            print(f"{path.relative_to(folder)}: {quality}", flush=True)


def measure(model: Gemma2ForCausalLM, vocabulary: Vocabulary, data: Path, seconds: dict[str, float]) -> card.Figures:
    """Everything on the card."""
    loaded = detection.load_saes(data / "saes")
    check = collect_rows(model, vocabulary, CHECK_ROWS, seed=12, split="held-out")
    subjects = {trait: detection.see(model, vocabulary, graded_set(trait)) for trait in TRAITS}
    final = {trait: detection.best_latent(subject, loaded, "final") for trait, subject in subjects.items()}
    maximum = {trait: detection.best_latent(subject, loaded, "max") for trait, subject in subjects.items()}
    chosen = {trait: (found.sae_id, loaded[found.sae_id], found.latent) for trait, found in final.items()}
    return card.Figures(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        seconds=seconds,
        verdict=verdict_check.verdict_figures(model, vocabulary),
        saes={sae_id: saes.measure_sae(data / "saes" / sae_id, check[detection.layer_of(sae_id)]) for sae_id in loaded},
        final=final,
        maximum=maximum,
        baselines={trait: detection.baselines(subject) for trait, subject in subjects.items()},
        effects=steering.effects(model, vocabulary, neutral_stories(NEUTRAL_STORIES), subjects[TRAITS[0]], chosen),
    )


def main() -> None:
    """Run the stages asked for, in order."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--out", type=Path, default=SOURCE / "subjects" / "organism" / "data")
    parser.add_argument("--sets-out", type=Path, default=SOURCE / "concepts" / "data" / "organism")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    vocabulary, seconds = Vocabulary(), {}
    ensure_folder(arguments.out)
    ensure_folder(arguments.sets_out)
    for stage in STAGES:
        if stage not in arguments.stages:
            continue
        began = time.monotonic()
        if stage == "model":
            shipping.ship_model(train_model(vocabulary), vocabulary, arguments.out / "model")
        elif stage == "saes":
            make_saes(shipping.load_model(arguments.out / "model"), vocabulary, arguments.out / "saes")
        elif stage == "sets":
            shipping.ship_sets(arguments.sets_out)
            shipping.ship_prompts(arguments.out / "prompts.jsonl")
        else:
            model = shipping.load_model(arguments.out / "model")
            card.write_card(measure(model, vocabulary, arguments.out, seconds), arguments.out)
        seconds[stage] = time.monotonic() - began


if __name__ == "__main__":
    main()
