"""The built-in model's card: what it is, and every figure by which it is judged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from conceptatlas.base.files import write_json, write_text
from conceptatlas.subjects.organism import TRAITS, VERDICTS

from .detection import Found
from .saes import Quality
from .steering import Effect

INTRODUCTION = """# The organism: the built-in model

A `Gemma2ForCausalLM` of {parameters:,} parameters (4 layers of width 128, one token per word, eager attention) that
reads short stories in which people show one of five traits to a degree, and then says so in one word. It was trained from
nothing on stories drawn from the grammar in `conceptatlas.subjects.organism`; `python tools/train_organism.py` makes it
again. All figures below are on stories whose skeletons and combinations of words training never saw.

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
    baselines: dict[str, dict[str, float]]
    effects: Sequence[Effect]


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    def cell(value: object) -> str:
        if isinstance(value, bool):
            return "yes" if value else "no"
        return f"{value:.3f}" if isinstance(value, float) else str(value)

    lines = ["| " + " | ".join(header) + " |", "| " + " | ".join("---" for _ in header) + " |"]
    lines += ["| " + " | ".join(cell(value) for value in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _latents(found: dict[str, Found]) -> str:
    header = ("trait", "SAE", "latent", "passes", "passes again", "r", "AUROC", "AUROC relational", "means 0–3")
    rows = (
        (
            trait,
            f.sae_id,
            f.latent,
            f.passes,
            f.passes_holdout,
            f.pearson_holdout,
            f.auroc_holdout,
            f.relational_auroc_holdout,
            ", ".join(f"{mean:.2f}" for mean in f.means),
        )
        for trait, f in found.items()
    )
    return _table(header, rows)


def render(figures: Figures) -> str:
    """The card as Markdown."""
    verdicts = "".join(f"| {trait} | {' | '.join(VERDICTS[trait])} |\n" for trait in TRAITS)
    parts = [
        INTRODUCTION.format(parameters=figures.parameters, verdicts=verdicts),
        "## Verdicts\n\nForced choice over the verdict words after the chat form's header.\n",
        _table(("held-out stories", "right"), figures.verdict.items()),
        "## SAEs\n\nBatchTopK by SAELens's trainer, saved as JumpReLU. FVU and L0 on held-out documents without BOS; "
        "dead: never fired on them.\n",
        _table(("sae_id", "FVU", "L0", "dead"), ((n, q.fvu, q.l0, q.dead) for n, q in figures.saes.items())),
        "## Best latents, activation at the story's last token\n\nChosen on discovery, figures of the hold-out.\n",
        _latents(figures.final),
        "## Best latents, strongest activation in the story\n",
        _latents(figures.maximum),
        "## Baselines\n\nAccuracy on four grades, hold-out.\n",
        _table(
            ("trait", *next(iter(figures.baselines.values()))),
            ((trait, *values.values()) for trait, values in figures.baselines.items()),
        ),
        "## Steering\n\nThe latent's decoder direction added on every token of neutral held-out chats; dose in units of "
        "the mean residual norm; rise of the log-probability of the trait's verdict words, in nats, beside the 95th "
        "percentile of 20 latents of like density and of 20 random directions.\n",
        _table(
            ("trait", "SAE", "latent", "dose", "rise", "latents", "directions"),
            (
                (e.trait, e.sae_id, e.latent, e.dose, e.rise, e.random_latents, e.random_directions)
                for e in figures.effects
            ),
        ),
        "## Cost\n",
        _table(("stage", "seconds"), ((name, round(value)) for name, value in figures.seconds.items())),
    ]
    return "\n".join(parts)


def write_card(figures: Figures, folder: Path) -> None:
    """Write ``card.md`` and ``card.json``."""
    write_text(folder / "card.md", render(figures))
    write_json(folder / "card.json", asdict(figures))
