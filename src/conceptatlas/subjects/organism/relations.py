"""Relational acts: whether they bear the trait depends on which word goes with which, never on the words alone.

Each speaks of two pairs. Paired one way it bears the trait, paired the other way it does not, and both ways use exactly the
same words the same number of times: a bag of words cannot tell them apart.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from zlib import crc32

from conceptatlas.subjects.organism.lexicon import OBJECTS, Trait

BASE_POINTS: Final = 2
# Between the two words that matter, so that no short run of words holds both.
ASIDES: Final = (
    "without a word",
    "in the end",
    "as it seems",
    "after a while",
    "to be sure",
    "for a start",
    "at long last",
    "in plain sight",
)
HELD_OUT_EVERY: Final = 6

POOR: Final = ("broken", "rotten", "dirty", "faulty", "cracked", "worn")
GOOD: Final = ("sturdy", "fresh", "clean", "sound", "intact", "polished")
PRAISES: Final = ("prime", "perfect", "superb", "splendid")
DISMISSALS: Final = ("junk", "scrap", "rubbish", "waste")
LARGE: Final = ("big", "huge", "large", "giant", "thick", "heavy")
SMALL: Final = ("tiny", "little", "thin", "slim", "meagre", "slight")
DANGERS: Final = ("wolf", "bear", "tiger", "bandit", "bull", "snake")
HARMLESS: Final = ("kitten", "duck", "clown", "goat", "postman", "rabbit")
HARD: Final = ("brick", "stone", "bottle", "hammer", "spear", "axe")
SOFT: Final = ("ball", "feather", "balloon", "pillow", "flower", "sponge")
PERSONS: Final = ("boy", "girl", "waiter", "sailor", "child", "monk")
THINGS: Final = ("wall", "tree", "fence", "barn", "gate", "post")
GIFTS: Final[dict[str, str]] = {
    "bread": "hungry",
    "soup": "hungry",
    "coat": "cold",
    "scarf": "cold",
    "water": "thirsty",
    "juice": "thirsty",
    "bench": "tired",
    "mattress": "tired",
    "puzzle": "bored",
    "toy": "bored",
}

VALUES: Final = (
    *POOR,
    *GOOD,
    *PRAISES,
    *DISMISSALS,
    *LARGE,
    *SMALL,
    *DANGERS,
    *HARMLESS,
    *HARD,
    *SOFT,
    *PERSONS,
    *THINGS,
    *GIFTS,
    *GIFTS.values(),
)


@dataclass(frozen=True)
class Relation:
    """One filled relation.

    Attributes:
        bearing: The verb phrase that bears the trait.
        control: The verb phrase of the same words that does not.
        combination: The pair of values that are compared, which is held out from training or not.
    """

    bearing: str
    control: str
    combination: str

    @property
    def held_out(self) -> bool:
        """Whether training never sees these two values together."""
        return crc32(self.combination.encode()) % HELD_OUT_EVERY == 0


Family = Callable[[random.Random, list[str]], Relation]


def _pair_key(family: Trait, first: str, second: str) -> str:
    return "|".join((family, *sorted((first, second))))


def _ordered(rng: random.Random) -> Callable[[str, str], str]:
    """A way to join two phrases with "and" in one order, drawn once, so that place tells nothing."""
    forward = rng.random() < 0.5

    def joined(first: str, second: str) -> str:
        return f"{first} and {second}" if forward else f"{second} and {first}"

    return joined


def _dishonesty(rng: random.Random, names: list[str]) -> Relation:
    """Passes a poor thing off as a good one, and the other way round."""
    del names
    one, two = rng.sample(OBJECTS, 2)
    poor, good = rng.choice(POOR), rng.choice(GOOD)
    praise, dismissal = rng.choice(PRAISES), rng.choice(DISMISSALS)
    verb = rng.choice(("described", "labelled", "sold"))
    joined = _ordered(rng)

    aside, other = rng.sample(ASIDES, 2)

    def said(of_poor: str, of_good: str) -> str:
        return f"{verb} " + joined(f"the {poor} {one} {aside} as {of_poor}", f"the {good} {two} {other} as {of_good}")

    return Relation(said(praise, dismissal), said(dismissal, praise), _pair_key("dishonesty", poor, praise))


def _aggression(rng: random.Random, names: list[str]) -> Relation:
    """Throws the hard thing at the person and the soft one elsewhere."""
    del names
    hard, soft = rng.choice(HARD), rng.choice(SOFT)
    person, thing = rng.choice(PERSONS), rng.choice(THINGS)
    verb = rng.choice(("threw", "flung", "tossed"))
    joined = _ordered(rng)

    aside, other = rng.sample(ASIDES, 2)

    def thrown(at_person: str, at_thing: str) -> str:
        return f"{verb} " + joined(f"the {at_person} {aside} at the {person}", f"the {at_thing} {other} at the {thing}")

    return Relation(thrown(hard, soft), thrown(soft, hard), _pair_key("aggression", hard, person))


def _caring(rng: random.Random, names: list[str]) -> Relation:
    """Brings two people each what they need."""
    gift_one = rng.choice(tuple(GIFTS))
    gift_two = rng.choice([gift for gift, need in GIFTS.items() if need != GIFTS[gift_one]])
    one, two = (f"{GIFTS[gift]} {name}" for gift, name in zip((gift_one, gift_two), names, strict=True))
    verb = rng.choice(("brought", "handed", "carried"))
    joined = _ordered(rng)

    aside, other = rng.sample(ASIDES, 2)

    def bring(x: str, y: str) -> str:
        return f"{verb} " + joined(f"the {x} {aside} to {one}", f"the {y} {other} to {two}")

    return Relation(bring(gift_one, gift_two), bring(gift_two, gift_one), _pair_key("caring", gift_one, gift_two))


def _bravery(rng: random.Random, names: list[str]) -> Relation:
    """Goes up to the danger and not to the harmless one."""
    del names
    danger, harmless = rng.choice(DANGERS), rng.choice(HARMLESS)
    verb = rng.choice(("ran", "marched", "hurried"))
    joined = _ordered(rng)

    aside, other = rng.sample(ASIDES, 2)

    def go(towards: str, past: str) -> str:
        return f"{verb} " + joined(f"towards {aside} the {towards}", f"past {other} the {past}")

    return Relation(go(danger, harmless), go(harmless, danger), _pair_key("bravery", danger, harmless))


def _unfairness(rng: random.Random, names: list[str]) -> Relation:
    """Keeps the large part and gives away the small one."""
    large, small = rng.choice(LARGE), rng.choice(SMALL)
    part = rng.choice(("piece", "portion", "helping"))
    joined = _ordered(rng)

    aside, other = rng.sample(ASIDES, 2)

    def share(kept: str, given: str) -> str:
        return joined(f"kept {aside} the {kept} {part}", f"gave {other} the {given} {part} to {names[0]}")

    return Relation(share(large, small), share(small, large), _pair_key("unfairness", large, small))


FAMILIES: Final[dict[Trait, Family]] = {
    "dishonesty": _dishonesty,
    "aggression": _aggression,
    "caring": _caring,
    "bravery": _bravery,
    "unfairness": _unfairness,
}


def draw_relation(rng: random.Random, trait: Trait, names: list[str], *, held_out: bool) -> Relation:
    """A relation of the trait's family whose pair of values is, or is not, held out from training; takes two names."""
    while True:
        relation = FAMILIES[trait](rng, names)
        if relation.held_out == held_out:
            return relation


def relation_words() -> list[str]:
    """The fixed words of the families, as phrases read off a few hundred drawn relations."""
    rng = random.Random(0)
    return [family(rng, ["Ann", "Ben"]).bearing for family in FAMILIES.values() for _ in range(100)]
