"""Make the built-in model from nothing: model, SAEs, graded sets, prompts, card.

    python tools/train_organism.py

takes about half an hour on two cores and writes into the package (``src/conceptatlas/subjects/organism/data`` and
``src/conceptatlas/concepts/data/organism``). ``--stages`` runs some stages only, on what the others left.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ.setdefault("WANDB_MODE", "disabled")

from organism_training import card, measuring, saes, shipping, verdict_check
from organism_training.activations import collect_rows
from organism_training.batches import Vocabulary
from organism_training.model import train_model
from transformers import Gemma2ForCausalLM

from conceptatlas.base.files import ensure_folder

SOURCE = Path(__file__).parents[1] / "src" / "conceptatlas"
STAGES = ("model", "saes", "sets", "card")
CHECK_ROWS = 20_000


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


def measure(model: Gemma2ForCausalLM, vocabulary: Vocabulary, data: Path, seed: int) -> card.Figures:
    """Everything on the card; the graded sets drawn with ``seed``."""
    check = collect_rows(model, vocabulary, CHECK_ROWS, seed=12 + seed, split="held-out")
    folders = sorted(path.parent for path in (data / "saes").rglob("cfg.json"))
    quality = {
        str(folder.relative_to(data / "saes")): saes.measure_sae(folder, check[saes.layer_of(folder)])
        for folder in folders
    }
    with TemporaryDirectory() as temporary:
        studies = measuring.study_traits(data, Path(temporary), seed)
        return card.Figures(
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            verdict=verdict_check.verdict_figures(model, vocabulary, seed=77 + seed),
            saes=quality,
            final={trait: measuring.found_in(study, "final") for trait, study in studies.items()},
            maximum={trait: measuring.found_in(study, "max") for trait, study in studies.items()},
            methods={trait: measuring.methods_of(study) for trait, study in studies.items()},
            effects=measuring.effects_of(studies),
        )


def main() -> None:
    """Run the stages asked for, in order."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--out", type=Path, default=SOURCE / "subjects" / "organism" / "data")
    parser.add_argument("--sets-out", type=Path, default=SOURCE / "concepts" / "data" / "organism")
    parser.add_argument("--card-out", type=Path, default=None, help="where the card goes, if not beside the model")
    parser.add_argument(
        "--set-seed", type=int, default=0, help="draw the card's stories anew (to choose settings on; 0 is what ships)"
    )
    arguments = parser.parse_args()
    vocabulary = Vocabulary()
    ensure_folder(arguments.out)
    ensure_folder(arguments.sets_out)
    for stage in STAGES:
        if stage not in arguments.stages:
            continue
        if stage == "model":
            shipping.ship_model(train_model(vocabulary), vocabulary, arguments.out / "model")
        elif stage == "saes":
            make_saes(shipping.load_model(arguments.out / "model"), vocabulary, arguments.out / "saes")
        elif stage == "sets":
            shipping.ship_sets(arguments.sets_out)
            shipping.ship_prompts(arguments.out / "prompts.jsonl")
        else:
            model = shipping.load_model(arguments.out / "model")
            figures = measure(model, vocabulary, arguments.out, arguments.set_seed)
            card.write_card(figures, ensure_folder(arguments.card_out or arguments.out))


if __name__ == "__main__":
    main()
