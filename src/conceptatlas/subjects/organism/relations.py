"""Relational acts: whether they bear the trait depends on how two sentences fit together, never on the words alone.

A premise binds two values to two things or people; the act then refers to them. One way of referring bears the trait,
the other does not, and both use exactly the same words the same number of times: a bag of words cannot tell them apart.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from zlib import crc32

from conceptatlas.subjects.organism.lexicon import OBJECTS, Trait

BASE_POINTS: Final = 2
HELD_OUT_EVERY: Final = 6

STATES: Final = ("old", "new", "full", "empty", "clean", "dirty", "cheap", "light", "dry", "safe")
NUMBERS: Final = ("two", "three", "four", "five", "six", "seven", "eight", "nine")
SPOTS: Final = ("gate", "wall", "tree", "fence", "barn", "tent", "shed", "post", "well", "cart")
DANGERS: Final = ("wolf", "bear", "tiger", "bandit", "bull")
HARMLESS: Final = ("kitten", "duck", "clown", "goat", "postman")
GIFTS: Final[dict[str, str]] = {
    "bread": "hungry",
    "soup": "hungry",
    "coat": "cold",
    "scarf": "cold",
    "water": "thirsty",
    "juice": "thirsty",
    "chair": "tired",
    "pillow": "tired",
    "puzzle": "bored",
    "toy": "bored",
}


@dataclass(frozen=True)
class Relation:
    """One filled relation.

    Attributes:
        premise: The sentence before the act.
        bearing: The act that bears the trait after this premise.
        control_premise: The premise of the control.
        control: The act that does not bear the trait after that premise; premise and act together use the same words.
        combination: The pair of values that are compared, which is held out from training or not.
    """

    premise: str
    bearing: str
    control_premise: str
    control: str
    combination: str

    @property
    def held_out(self) -> bool:
        """Whether training never sees these two values together."""
        return crc32(self.combination.encode()) % HELD_OUT_EVERY == 0


Family = Callable[[random.Random, list[str]], Relation]


def _pair_key(family: Trait, first: str, second: str) -> str:
    return "|".join((family, *sorted((first, second))))


def _either_order(rng: random.Random, first: str, second: str) -> str:
    """Two phrases joined by "and", in a random order, so that place tells nothing."""
    parts = [first, second]
    rng.shuffle(parts)
    return " and ".join(parts)


def _dishonesty(rng: random.Random, names: list[str]) -> Relation:
    """Tells somebody that two things are as they are not."""
    one, two = rng.sample(OBJECTS, 2)
    a, b = rng.sample(STATES, 2)
    verb = rng.choice(("told", "assured", "promised"))
    opening = f"{verb} {names[0]} that"
    order = rng.random() < 0.5

    def said(x: str, y: str) -> str:
        parts = [f"the {one} was {x}", f"the {two} was {y}"]
        return " and ".join(parts if order else parts[::-1])

    premise = _either_order(rng, f"the {one} was {a}", f"the {two} was {b}")
    key = _pair_key("dishonesty", a, b)
    return Relation(premise, f"{opening} {said(b, a)}", premise, f"{opening} {said(a, b)}", key)


def _unfairness(rng: random.Random, names: list[str]) -> Relation:
    """Pays two people each for the other's work."""
    one, two = names[:2]
    a, b = rng.sample(NUMBERS, 2)
    verb, coin = rng.choice((("paid", "coins"), ("gave", "points"), ("handed", "stamps")))
    order = rng.random() < 0.5

    def paid(x: str, y: str) -> str:
        parts = [f"{one} {x} {coin}", f"{two} {y} {coin}"]
        return f"{verb} " + " and ".join(parts if order else parts[::-1])

    premise = _either_order(rng, f"{one} did {a} jobs", f"{two} did {b} jobs")
    return Relation(premise, paid(b, a), premise, paid(a, b), _pair_key("unfairness", a, b))


def _caring(rng: random.Random, names: list[str]) -> Relation:
    """Brings two people each what they need."""
    one, two = names[:2]
    gift_one = rng.choice(tuple(GIFTS))
    gift_two = rng.choice([gift for gift, need in GIFTS.items() if need != GIFTS[gift_one]])
    verb = rng.choice(("brought", "handed", "carried"))
    order = rng.random() < 0.5

    def brought(x: str, y: str) -> str:
        parts = [f"the {gift_one} to {x}", f"the {gift_two} to {y}"]
        return f"{verb} " + " and ".join(parts if order else parts[::-1])

    premise = _either_order(rng, f"{one} was {GIFTS[gift_one]}", f"{two} was {GIFTS[gift_two]}")
    key = _pair_key("caring", gift_one, gift_two)
    return Relation(premise, brought(one, two), premise, brought(two, one), key)


def _aggression(rng: random.Random, names: list[str]) -> Relation:
    """Throws something at the spot where somebody is, not at the other."""
    spot, other = rng.sample(SPOTS, 2)
    verb = rng.choice(("threw a stone", "rolled a barrel", "shot an arrow"))

    def premise(taken: str, free: str) -> str:
        return f"{names[0]} stood at the {taken} and nobody stood at the {free}"

    act = f"{verb} at the {spot}"
    return Relation(premise(spot, other), act, premise(other, spot), act, _pair_key("aggression", spot, other))


def _bravery(rng: random.Random, names: list[str]) -> Relation:
    """Goes to the spot where the danger is, not to the other."""
    del names
    spot, other = rng.sample(SPOTS, 2)
    verb = rng.choice(("ran", "marched", "hurried"))
    danger, harmless = rng.choice(DANGERS), rng.choice(HARMLESS)
    order = rng.random() < 0.5

    def premise(at_danger: str, at_other: str) -> str:
        parts = [f"the {danger} was at the {at_danger}", f"the {harmless} was at the {at_other}"]
        return " and ".join(parts if order else parts[::-1])

    act = f"{verb} to the {spot}"
    return Relation(premise(spot, other), act, premise(other, spot), act, _pair_key("bravery", spot, other))


FAMILIES: Final[dict[Trait, Family]] = {
    "dishonesty": _dishonesty,
    "aggression": _aggression,
    "caring": _caring,
    "bravery": _bravery,
    "unfairness": _unfairness,
}


def draw_relation(rng: random.Random, trait: Trait, names: list[str], *, held_out: bool) -> Relation:
    """A relation of the trait's family whose pair of values is, or is not, held out from training."""
    while True:
        relation = FAMILIES[trait](rng, names)
        if relation.held_out == held_out:
            return relation
