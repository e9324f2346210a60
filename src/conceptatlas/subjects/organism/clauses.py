"""Events: one thing that the protagonist does (or is said to have done), with its points."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from functools import cache
from typing import Final, Literal
from zlib import crc32

from conceptatlas.subjects.organism.acts import NEAR_WEIGHT, Act, lexical_acts, near_acts, neutral_acts
from conceptatlas.subjects.organism.lexicon import MEN, MODIFIERS, OBJECTS, PLAIN, ROLES, WOMEN, Trait
from conceptatlas.subjects.organism.relations import BASE_POINTS, Relation, draw_relation

EventKind = Literal["lexical", "relational", "control", "near", "neutral"]
Claim = Literal["", "swore", "denied"]

HELD_OUT_EVERY: Final = 5
PLAIN_COPIES: Final = 6
MAX_POINTS: Final = 3
SHIFT: Final = 0.75
LEAST_DEGREE: Final = 0.5


@dataclass(frozen=True)
class Cast:
    """Who is in a story: the protagonist, the pronouns, and the names of others, no two alike."""

    name: str
    he: str
    him: str
    his: str
    others: tuple[str, ...]


@dataclass(frozen=True)
class Event:
    """One act in one story.

    Attributes:
        kind: lexical or relational (they bear ``trait``), control (a relation that does not), near (an act that only
            resembles a trait, its ``family``) or neutral.
        trait: The trait that it bears if it took place, or None.
        points: What it adds to the story's grade: whole points of ``trait``; 0 where it bears none.
        degree: What it adds to the story's degree, a real number about ``points``; of a near act, its likeness.
        modifier: The degree phrase, filled; empty for none.
        phrase: The verb phrase, filled.
        relation: The relation behind a relational act or a control, with its family.
        family: The trait whose family of relations it is from, or None.
        combination: What is held out from training or not: act and modifier, or the relation's pair of values.
        act: The act's phrase, unfilled; of a relation, its pair of values.
        shift: The modifier's part of the points: -1, 0 or 1.
        claim: Whether the story says that some swore to it, or denied it; empty where it is simply told.
        holds: Whether it took place; a claimed act may not have.
    """

    kind: EventKind
    trait: Trait | None
    points: int
    modifier: str
    phrase: str
    combination: str
    act: str
    degree: float = 0.0
    relation: Relation | None = None
    family: Trait | None = None
    shift: int = 0
    claim: Claim = ""
    holds: bool = True

    @property
    def bears(self) -> bool:
        """Whether it took place and bears a trait."""
        return self.holds and self.points > 0

    def flipped(self) -> Event:
        """The event of the same words that does not bear the trait (or, from a control, the one that does)."""
        if self.relation is None or self.family is None:
            return self
        if self.kind == "relational":
            return replace(self, kind="control", trait=None, points=0, degree=0.0, phrase=self.relation.control)
        points, degree = net_points(BASE_POINTS, self.shift), net_degree(BASE_POINTS, self.shift)
        phrase = self.relation.bearing
        return replace(self, kind="relational", trait=self.family, points=points, degree=degree, phrase=phrase)


def draw_cast(rng: random.Random) -> Cast:
    """A protagonist and eight other people."""
    woman = rng.random() < 0.5
    name = rng.choice(WOMEN if woman else MEN)
    others = [other for other in WOMEN + MEN if other != name]
    rng.shuffle(others)
    pronouns = ("she", "her", "her") if woman else ("he", "him", "his")
    return Cast(name, *pronouns, others=tuple(others[:8]))


def net_points(weight: int, degree: int) -> int:
    """Points of an act of this weight under a modifier of this degree (-1, 0 or 1): never below 1 nor above 3."""
    return min(MAX_POINTS, max(1, weight + degree))


def net_degree(worth: float, shift: int) -> float:
    """The real-valued degree of an act of this worth under a modifier, which counts SHIFT of a point; never below 0.5."""
    return max(LEAST_DEGREE, worth + SHIFT * shift)


def combination_held_out(combination: str) -> bool:
    """Whether training never sees this act with this modifier."""
    return crc32(combination.encode()) % HELD_OUT_EVERY == 0


@cache
def _act_table(trait: Trait | None, points: int, *, held_out: bool) -> tuple[tuple[Act, str], ...]:
    """Acts with modifiers that come to this many points; the plain form stands several times, since it is commoner."""
    table = []
    for act in neutral_acts() if trait is None else lexical_acts(trait):
        for modifier, degree in MODIFIERS.items():
            net = 0 if act.weight == 0 else net_points(act.weight, degree)
            if net == points and combination_held_out(f"{act.phrase}|{modifier}") == held_out:
                table.extend([(act, modifier)] * (PLAIN_COPIES if modifier == PLAIN else 1))
    return tuple(table)


def _someone(rng: random.Random, names: list[str]) -> str:
    """Somebody by name (each name once in a story) or by role."""
    return names.pop() if rng.random() < 0.5 else rng.choice(ROLES)


def _fill(rng: random.Random, phrase: str, cast: Cast, names: list[str]) -> str:
    if "{person}" in phrase:
        phrase = phrase.replace("{person}", _someone(rng, names))
    if "{object}" in phrase:
        phrase = phrase.replace("{object}", rng.choice(OBJECTS))
    return phrase.replace("{his}", cast.his).replace("{he}", cast.he).replace("{him}", cast.him)


def draw_act(
    rng: random.Random, cast: Cast, names: list[str], trait: Trait | None, points: int, *, held_out: bool
) -> Event:
    """A lexical event of the trait with this many points, or a neutral one (trait None, points 0)."""
    act, modifier = rng.choice(_act_table(trait, points, held_out=held_out))
    return Event(
        kind="lexical" if trait else "neutral",
        trait=trait,
        points=points,
        modifier=_fill(rng, modifier, cast, names),
        phrase=_fill(rng, act.phrase, cast, names),
        combination=f"{act.phrase}|{modifier}",
        act=act.phrase,
        degree=net_degree(act.weight + act.offset, MODIFIERS[modifier]) if trait else 0.0,
        family=trait,
        shift=MODIFIERS[modifier],
    )


@cache
def _near_table(family: Trait, *, held_out: bool) -> tuple[tuple[Act, str], ...]:
    """Acts that resemble the trait, with modifiers."""
    return tuple(
        (act, modifier)
        for act in near_acts(family)
        for modifier in MODIFIERS
        for _ in range(PLAIN_COPIES if modifier == PLAIN else 1)
        if combination_held_out(f"{act.phrase}|{modifier}") == held_out
    )


def draw_near(rng: random.Random, cast: Cast, names: list[str], family: Trait, *, held_out: bool) -> Event:
    """An act that resembles the trait and does not bear it."""
    act, modifier = rng.choice(_near_table(family, held_out=held_out))
    return Event(
        kind="near",
        trait=None,
        points=0,
        modifier=_fill(rng, modifier, cast, names),
        phrase=_fill(rng, act.phrase, cast, names),
        combination=f"{act.phrase}|{modifier}",
        act=act.phrase,
        degree=net_degree(NEAR_WEIGHT + act.offset, MODIFIERS[modifier]),
        family=family,
        shift=MODIFIERS[modifier],
    )


def draw_relational(
    rng: random.Random, cast: Cast, names: list[str], family: Trait, points: int, *, held_out: bool
) -> Event:
    """A relational event of the family with this many points; 0 gives a control, with any modifier."""
    fitting = [m for m, degree in MODIFIERS.items() if points in (0, net_points(BASE_POINTS, degree))]
    modifier = rng.choice(fitting + [PLAIN] * (PLAIN_COPIES if PLAIN in fitting else 0))
    relation = draw_relation(rng, family, [names.pop(), names.pop()], held_out=held_out)
    return Event(
        kind="relational" if points else "control",
        trait=family if points else None,
        points=points,
        modifier=_fill(rng, modifier, cast, names),
        phrase=relation.bearing if points else relation.control,
        combination=relation.combination,
        act=relation.combination,
        degree=net_degree(BASE_POINTS, MODIFIERS[modifier]) if points else 0.0,
        relation=relation,
        family=family,
        shift=MODIFIERS[modifier],
    )
