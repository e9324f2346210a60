"""Events: one thing that the protagonist does, with its points, and how it is put into sentences."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from functools import cache
from typing import Final, Literal
from zlib import crc32

from conceptatlas.subjects.organism.acts import Act, lexical_acts, neutral_acts
from conceptatlas.subjects.organism.lexicon import MEN, MODIFIERS, OBJECTS, PLAIN, ROLES, WOMEN, Trait
from conceptatlas.subjects.organism.relations import BASE_POINTS, Relation, draw_relation

EventKind = Literal["lexical", "relational", "control", "neutral"]

HELD_OUT_EVERY: Final = 5
PLAIN_COPIES: Final = 6
MAX_POINTS: Final = 3


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
        kind: lexical or relational (they bear ``trait``), control (a relation that does not) or neutral.
        trait: The trait that it bears, or None.
        points: What it adds to the story's degree of ``trait``; 0 where it bears none.
        modifier: The degree phrase, filled; empty for none.
        phrase: The verb phrase, filled.
        relation: The relation behind a relational act or a control, with its family.
        family: The trait whose family of relations it is from, or None.
        combination: What is held out from training or not: act and modifier, or the relation's pair of values.
    """

    kind: EventKind
    trait: Trait | None
    points: int
    modifier: str
    phrase: str
    combination: str
    relation: Relation | None = None
    family: Trait | None = None
    degree: int = 0

    def flipped(self) -> Event:
        """The event of the same words that does not bear the trait (or, from a control, the one that does)."""
        if self.relation is None or self.family is None:
            return self
        if self.kind == "relational":
            return replace(self, kind="control", trait=None, points=0, phrase=self.relation.control)
        points = net_points(BASE_POINTS, self.degree)
        return replace(self, kind="relational", trait=self.family, points=points, phrase=self.relation.bearing)


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
        degree=MODIFIERS[modifier],
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
        relation=relation,
        family=family,
        degree=MODIFIERS[modifier],
    )
