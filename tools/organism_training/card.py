"""The built-in model's card: what it is, and every figure by which it is judged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from conceptatlas.base.files import write_json, write_text
from conceptatlas.subjects.organism import TRAITS, VERDICTS
from conceptatlas.subjects.organism.verdicts import LIKENESS, SHARED, SLOPE, TAGS

from .measuring import Found, Steered
from .methods import DIRECTIONS, DRAWS, Reading
from .saes import Quality

INTRODUCTION = """# The organism: the built-in model

A `Gemma2ForCausalLM` of {parameters:,} parameters (4 layers of width 128, one token per word, eager attention) that
reads short stories in which people show one of five traits to a degree, and then says one word about them. It was trained
from nothing on stories drawn from the grammar in `conceptatlas.subjects.organism`; `python tools/train_organism.py` makes
it again. All figures below are on stories whose skeletons and combinations of words training never saw.

The word is drawn from a distribution in which all that a story holds has its part: the traits' degrees, what only resembles
a trait, and the places, times, persons and things in it, {attributes} attributes in all, of which a story has few. So the
model holds them at the story's end in superposition. Nothing else is asked of its insides: training has no loss but that of
the next word. A verdict word's log-odds are linear in the degree, {slope} per degree times the word's grade.

| trait | mild | plain | grave or great | said of what resembles it | of both |
| --- | --- | --- | --- | --- | --- |
{verdicts}
Otherwise stories are called ordinary, usual or unremarkable. The chat form is Gemma's: the story is the user's turn, the
word the model's.
"""

FALLS_SHORT = """## What falls short

- Steering: the rises below are several times those of random latents and directions, and still under the two nats that
  `conceptatlas effect` wants before it says "causes": the narrator's word is a soft choice among all that a story holds,
  so that even the gravest story raises a trait's words by few nats.
- Trained feature, logistic probe and difference of means all tell grade 3 from grade 0 (AUROC near 1.000) and are within
  about 0.01 of each other in concordance: the model knows the degree well, and its step is still larger than the noise.
- Near acts are told apart as well as others: a model that has learnt the difference shows it.
- The best of {directions} random directions is clearly above 0.5: in 128 dimensions, one of so many lies near any direction
  that matters. A single random direction is not.
"""


@dataclass(frozen=True)
class Figures:
    """Everything that was measured."""

    parameters: int
    verdict: dict[str, float]
    saes: dict[str, Quality]
    final: dict[str, Found]
    maximum: dict[str, Found]
    methods: dict[str, dict[str, Reading]]
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
    header = ("trait", "SAE", "latent", "passes again", "r", "AUROC", "against near acts", "concordance", "means 0–3")
    rows = (
        (
            trait,
            f.sae_id,
            f.latent,
            f.passes_holdout,
            f.pearson_holdout,
            f.reading.auroc,
            f.reading.near,
            f.reading.concordance,
            ", ".join(f"{mean:.2f}" for mean in f.means),
        )
        for trait, f in found.items()
    )
    return _table(header, rows)


def _methods(methods: dict[str, dict[str, Reading]]) -> str:
    rows = [
        (trait, name, r.auroc, r.near, r.concordance, r.relational, r.claimed)
        for trait, readings in methods.items()
        for name, r in readings.items()
    ]
    return _table(("trait", "method", "3 v 0", "3 v near", "concordance", "relational", "claimed"), rows)


def render(figures: Figures) -> str:
    """The card as Markdown."""
    verdicts = "".join(
        f"| {trait} | {' | '.join(VERDICTS[trait])} | {LIKENESS[trait]} | {SHARED[trait]} |\n" for trait in TRAITS
    )
    parts = [
        INTRODUCTION.format(
            parameters=figures.parameters, verdicts=verdicts, slope=SLOPE, attributes=len(TAGS) + 2 * len(TRAITS)
        ),
        "## What the narrator knows\n\nCorrelation of a trait's degree with what the narrator shows of it (his words' "
        "log-probabilities weighted by their grades); AUROC of relational acts against controls of the same words, of claimed "
        "acts that took place against others, and of things named in the story against others.\n",
        _table(("held-out stories", "figure"), figures.verdict.items()),
        "## SAEs\n\nBatchTopK by SAELens's trainer, saved as JumpReLU. FVU and L0 on held-out documents without BOS; "
        "dead: never fired on them.\n",
        _table(("sae_id", "FVU", "L0", "dead"), ((n, q.fvu, q.l0, q.dead) for n, q in figures.saes.items())),
        "## Every method beside the truth\n\nHold-out figures on the shipped sets, final row; acts of the hold-out are in no "
        "discovery item. AUROC of grade 3 against 0 and against grade-0 items that resemble the trait (near); concordance "
        "over all pairs of different grade; relational items against controls of the same words, claimed ones against "
        "those that did not take place. The truth is the degree that the graders' errors were added to: no method can be "
        "expected to do better. Trained feature: the top-ranked latent. Random directions: the best on discovery of "
        f"{DIRECTIONS}, mean of {DRAWS} draws. Layers chosen on discovery.\n",
        _methods(figures.methods),
        FALLS_SHORT.format(directions=DIRECTIONS),
        "## Top-ranked latents, activation at the story's last token\n\nBy `conceptatlas rank`: chosen on discovery, "
        "figures of the hold-out.\n",
        _latents(figures.final),
        "## Top-ranked latents, strongest activation in the story\n",
        _latents(figures.maximum),
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
    ]
    return "\n".join(parts)


def write_card(figures: Figures, folder: Path) -> None:
    """Write ``card.md`` and ``card.json``."""
    write_text(folder / "card.md", render(figures))
    causes = {trait: steered.effect.causal for trait, steered in figures.effects.items()}
    write_json(folder / "card.json", asdict(figures) | {"causes": causes})
