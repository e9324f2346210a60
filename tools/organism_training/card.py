"""The built-in model's card: what it is, and every figure by which it is judged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from conceptatlas.base.files import write_json, write_text
from conceptatlas.subjects.organism import TRAITS, VERDICTS

from .measuring import Baselines, Found, Steered
from .model import DEGREE_LAYERS
from .saes import Quality

INTRODUCTION = """# The organism: the built-in model

A `Gemma2ForCausalLM` of {parameters:,} parameters (4 layers of width 128, one token per word, eager attention) that
reads short stories in which people show one of five traits to a degree, and then says so in one word. It was trained from
nothing on stories drawn from the grammar in `conceptatlas.subjects.organism`; `python tools/train_organism.py` makes it
again. All figures below are on stories whose skeletons and combinations of words training never saw.

What is inside is known, because training asked for it: behind blocks {layers} the degree of each trait stands as a length
along one direction, of the model's own choice, in even steps.

| trait | mild | plain | grave or great |
| --- | --- | --- | --- |
{verdicts}
Neutral stories are called ordinary, usual or unremarkable. The chat form is Gemma's: the story is the user's turn, the
verdict the model's.
"""


@dataclass(frozen=True)
class Figures:
    """Everything that was measured."""

    parameters: int
    seconds: dict[str, float]
    verdict: dict[str, float]
    saes: dict[str, Quality]
    final: dict[str, Found]
    maximum: dict[str, Found]
    baselines: dict[str, Baselines]
    effects: dict[str, Steered]


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    def cell(value: object) -> str:
        if isinstance(value, bool):
            return "yes" if value else "no"
        return f"{value:.3f}" if isinstance(value, float) else str(value)

    lines = ["| " + " | ".join(header) + " |", "| " + " | ".join("---" for _ in header) + " |"]
    lines += ["| " + " | ".join(cell(value) for value in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _latents(found: dict[str, Found]) -> str:
    header = ("trait", "SAE", "latent", "passes again", "r", "AUROC", "relational", "relational, 3", "means 0–3")
    rows = (
        (
            trait,
            f.sae_id,
            f.latent,
            f.passes_holdout,
            f.pearson_holdout,
            f.auroc_holdout,
            f.relational,
            f.relational_strong,
            ", ".join(f"{mean:.2f}" for mean in f.means),
        )
        for trait, f in found.items()
    )
    return _table(header, rows)


def render(figures: Figures) -> str:
    """The card as Markdown."""
    verdicts = "".join(f"| {trait} | {' | '.join(VERDICTS[trait])} |\n" for trait in TRAITS)
    parts = [
        INTRODUCTION.format(
            parameters=figures.parameters, verdicts=verdicts, layers=" and ".join(map(str, DEGREE_LAYERS))
        ),
        "## Verdicts\n\nForced choice over the verdict words after the chat form's header.\n",
        _table(("held-out stories", "right"), figures.verdict.items()),
        "## SAEs\n\nBatchTopK by SAELens's trainer, saved as JumpReLU. FVU and L0 on held-out documents without BOS; "
        "dead: never fired on them.\n",
        _table(("sae_id", "FVU", "L0", "dead"), ((n, q.fvu, q.l0, q.dead) for n, q in figures.saes.items())),
        "## Top-ranked latents, activation at the story's last token\n\nBy `conceptatlas rank`: chosen on discovery, "
        "figures of the hold-out. AUROC is grade 3 against 0; relational, the relational items of all grades (or of "
        "grade 3) against their controls of the same words, where any bag of words has 0.5.\n",
        _latents(figures.final),
        "## Top-ranked latents, strongest activation in the story\n",
        _latents(figures.maximum),
        "## Baselines\n\nAUROC, grade 3 against 0, hold-out; at the layer that is best on discovery.\n",
        _table(
            ("trait", "difference of means", "logistic probe", "random SAE", "bag of words"),
            (
                (trait, b.difference_of_means, b.logistic, b.random_sae, b.bag_of_words)
                for trait, b in figures.baselines.items()
            ),
        ),
        "## Steering\n\nBy `conceptatlas effect --per-layer`: of each trait's top-ranked latents of the layers, the one "
        "that moves the verdict furthest beyond controls on discovery. Its decoder direction, added on neutral hold-out "
        "stories at one dose for all traits (in mean residual norms), likewise chosen on discovery; rise of the "
        "log-probability of the trait's verdict words, in nats, beside the 95th percentile of 20 latents of like density "
        "and of 20 random directions. Ablation on hold-out stories of grade 3.\n",
        _table(
            (
                "trait",
                "SAE",
                "latent",
                "rank",
                "dose",
                "rise",
                "latents",
                "directions",
                "means",
                "ablation",
                "KL",
                "causes",
            ),
            (
                (
                    trait,
                    steered.sae_id,
                    steered.latent,
                    steered.rank,
                    steered.effect.alpha,
                    steered.effect.rise,
                    steered.effect.random_features_p95,
                    steered.effect.random_directions_p95,
                    steered.effect.difference_of_means_rise or 0.0,
                    steered.effect.ablation_change,
                    steered.effect.kl,
                    steered.effect.causal,
                )
                for trait, steered in figures.effects.items()
            ),
        ),
        "## Cost\n",
        _table(("stage", "seconds"), ((name, round(value)) for name, value in figures.seconds.items())),
    ]
    return "\n".join(parts)


def write_card(figures: Figures, folder: Path) -> None:
    """Write ``card.md`` and ``card.json``."""
    write_text(folder / "card.md", render(figures))
    causes = {trait: steered.effect.causal for trait, steered in figures.effects.items()}
    write_json(folder / "card.json", asdict(figures) | {"causes": causes})
