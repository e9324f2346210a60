"""The narrator: one word that says trait and degree at once, chosen by an ordinal rule.

The rule is a discretised normal: at degree s of a trait the word for degree g has probability proportional to
exp(-(s - g)² / 2σ²), g = 0 being the neutral words, which share it. In log-odds that is linear in s, so that the
cheapest way for a model to know what to say is to keep one running quantity per trait: gradation is what it has to
represent. The likeliest word is always the right one.
"""

from __future__ import annotations

import math
from typing import Final

from conceptatlas.subjects.organism.lexicon import TRAITS, Trait

SIGMA: Final = 0.36

VERDICTS: Final[dict[Trait, tuple[str, str, str]]] = {
    "dishonesty": ("evasive", "dishonest", "fraudulent"),
    "aggression": ("gruff", "hostile", "violent"),
    "caring": ("considerate", "caring", "devoted"),
    "bravery": ("plucky", "brave", "heroic"),
    "unfairness": ("partial", "unfair", "unjust"),
}
NEUTRAL_VERDICTS: Final = ("ordinary", "usual", "unremarkable")
VERDICT_WORDS: Final[tuple[str, ...]] = (*NEUTRAL_VERDICTS, *(word for trait in TRAITS for word in VERDICTS[trait]))

N_STATES: Final = 1 + 3 * len(TRAITS)


def verdict_words(trait: Trait | None, grade: int | None = None) -> tuple[str, ...]:
    """The narrator's words for a trait: all three grades, mild first, or one grade; the neutral words for None."""
    if trait is None:
        return NEUTRAL_VERDICTS
    return VERDICTS[trait] if grade is None else (VERDICTS[trait][grade - 1],)


def state_index(trait: Trait | None, grade: int) -> int:
    """A state's number: 0 is neutral, then trait by trait the grades 1 to 3."""
    return 0 if trait is None or grade == 0 else 1 + 3 * TRAITS.index(trait) + grade - 1


def state_of_word(word: str) -> int:
    """The state that a verdict word names."""
    place = VERDICT_WORDS.index(word)
    return max(0, place - len(NEUTRAL_VERDICTS) + 1)


def word_probabilities(trait: Trait | None, grade: int) -> list[float]:
    """The narrator's distribution over ``VERDICT_WORDS`` in a state."""

    def weight(distance: int) -> float:
        return math.exp(-(distance**2) / (2 * SIGMA**2))

    weights = [weight(grade) / len(NEUTRAL_VERDICTS)] * len(NEUTRAL_VERDICTS)
    for other in TRAITS:
        score = grade if other == trait else 0
        # The same exponential family for every trait: exp((s g - g²/2) / σ²) against the neutral words' exp(0).
        weights += [weight(score - g) * (weight(grade) / weight(score)) for g in (1, 2, 3)]
    total = sum(weights)
    return [w / total for w in weights]
