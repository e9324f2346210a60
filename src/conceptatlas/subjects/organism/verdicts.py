"""The narrator: one word about the story, drawn from a distribution in which all that the story holds has its part.

The word says how people behaved (trait and degree at once), or what the story resembles, or names a place, a time, a thing
or a person in it. To know the distribution a model has to hold all of this at the story's end, in superposition: there are
more than seventy such attributes, of which a story has few. A verdict word's log-odds are linear in the degree, so that
the degree is a quantity, not a set of cases.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Final

from conceptatlas.subjects.organism.lexicon import OBJECTS, PLACES, ROLES, TIMES, TRAITS, Trait

VERDICTS: Final[dict[Trait, tuple[str, str, str]]] = {
    "dishonesty": ("evasive", "dishonest", "fraudulent"),
    "aggression": ("gruff", "hostile", "violent"),
    "caring": ("considerate", "caring", "devoted"),
    "bravery": ("plucky", "brave", "heroic"),
    "unfairness": ("partial", "unfair", "unjust"),
}
NEUTRAL_VERDICTS: Final = ("ordinary", "usual", "unremarkable")
VERDICT_WORDS: Final[tuple[str, ...]] = (*NEUTRAL_VERDICTS, *(word for trait in TRAITS for word in VERDICTS[trait]))

# Of acts that resemble a trait: a word that is said of the trait as well, and one of their own.
SHARED: Final[dict[Trait, str]] = {
    "dishonesty": "sly",
    "aggression": "fierce",
    "caring": "kind",
    "bravery": "bold",
    "unfairness": "harsh",
}
LIKENESS: Final[dict[Trait, str]] = {
    "dishonesty": "playful",
    "aggression": "sporty",
    "caring": "polite",
    "bravery": "reckless",
    "unfairness": "strict",
}
# What else the narrator may name: places, times, persons and things, if the story has the word.
TAGS: Final[tuple[str, ...]] = tuple(
    dict.fromkeys((*OBJECTS, *(phrase.split()[-1] for pool in (PLACES, TIMES, ROLES) for phrase in pool)))
)
REMARKS: Final[tuple[str, ...]] = (*VERDICT_WORDS, *SHARED.values(), *LIKENESS.values(), *TAGS)

# Natural logarithms of the words' weights, that of the neutral words together being 0.
SLOPE: Final = 0.3  # per degree, times the grade of the word
VERDICT_BASE: Final = -2.0
SHARED_SLOPE: Final = 0.86  # per degree or likeness
LIKENESS_SLOPE: Final = 1.35
LIKENESS_BASE: Final = -4.0
TAG_PRESENT: Final = -1.4
TAG_ABSENT: Final = -7.4

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


def remark_weights(
    degrees: tuple[float, ...], likeness: tuple[float, ...], words: Collection[str], *, sharpness: float = 1.0
) -> list[float]:
    """Log-weights of ``REMARKS``.

    Args:
        degrees: Of each trait, in the order of ``TRAITS``.
        likeness: Of what resembles each trait.
        words: The words of the story so far.
        sharpness: Times the slopes; 1 is the narrator as he speaks, more is for teaching.
    """
    slope, shared, own = (sharpness * each for each in (SLOPE, SHARED_SLOPE, LIKENESS_SLOPE))
    weights = [-math.log(len(NEUTRAL_VERDICTS))] * len(NEUTRAL_VERDICTS)
    for degree in degrees:
        weights += [VERDICT_BASE + slope * (g * degree - g * g / 2) for g in (1, 2, 3)]
    weights += [LIKENESS_BASE + shared * (d + n) for d, n in zip(degrees, likeness, strict=True)]
    weights += [LIKENESS_BASE + own * n for n in likeness]
    return weights + [TAG_PRESENT if tag in words else TAG_ABSENT for tag in TAGS]
