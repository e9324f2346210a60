"""The words from which the stories of the built-in model are made.

Everything here is plain data. A phrase is a string of words separated by single spaces; punctuation marks stand as
words of their own, so that a phrase splits into the model's tokens.
"""

from __future__ import annotations

from typing import Final, Literal

Trait = Literal["dishonesty", "aggression", "caring", "bravery", "unfairness"]

TRAITS: Final[tuple[Trait, ...]] = ("dishonesty", "aggression", "caring", "bravery", "unfairness")

WOMEN: Final = (
    "Ann",
    "Beth",
    "Clara",
    "Dora",
    "Emma",
    "Fay",
    "Grace",
    "Helen",
    "Ida",
    "Jane",
    "Kate",
    "Lena",
    "Mary",
    "Nora",
    "Olga",
    "Paula",
    "Rose",
    "Sara",
)
MEN: Final = (
    "Adam",
    "Ben",
    "Carl",
    "Dan",
    "Eric",
    "Frank",
    "Gus",
    "Hugo",
    "Ivan",
    "Jack",
    "Karl",
    "Leo",
    "Mark",
    "Ned",
    "Oscar",
    "Paul",
    "Rolf",
    "Sam",
)

ROLES: Final = (
    "the nurse",
    "the clerk",
    "the baker",
    "the new boy",
    "the old man",
    "a neighbour",
    "a cousin",
    "a stranger",
    "a tourist",
    "the guest",
    "the teacher",
    "the driver",
)

OBJECTS: Final = (
    "bag",
    "book",
    "bike",
    "box",
    "brush",
    "camera",
    "chair",
    "clock",
    "cup",
    "drum",
    "hat",
    "kite",
    "lamp",
    "map",
    "phone",
    "plate",
    "radio",
    "ring",
    "shoe",
    "table",
    "vase",
    "watch",
)

PLACES: Final = (
    "at the market",
    "in the park",
    "at school",
    "in the kitchen",
    "at the office",
    "by the river",
    "in the library",
    "at the station",
    "on the farm",
    "in the village",
    "at the harbour",
    "in the garden",
    "at the shop",
    "in the town hall",
)

TIMES: Final = (
    "one morning",
    "after lunch",
    "in the evening",
    "on Monday",
    "on a rainy day",
    "late at night",
    "during the holiday",
    "before dinner",
    "last week",
    "in the spring",
)

SCENES: Final = (
    "it was a rainy day {place}",
    "the sun was up {place}",
    "there was a lot of noise {place}",
    "everyone was busy {place}",
    "it was quiet {place}",
    "a few people were waiting {place}",
)

# Degree phrases by what they add to the points of the act in their own clause. Neutral clauses carry them as well, so
# that the phrase alone says nothing.
SOFTENERS: Final = (
    "half by accident",
    "for a brief moment",
    "with some doubt",
    "on the advice of {person}",
)
STRENGTHENERS: Final = (
    "again and again",
    "quite on purpose",
    "for weeks on end",
    "with great zeal",
)
PLAIN: Final = ""
MODIFIERS: Final[dict[str, int]] = {PLAIN: 0, **dict.fromkeys(SOFTENERS, -1), **dict.fromkeys(STRENGTHENERS, 1)}

# How one event follows another; the empty connector starts straight with the clause.
CONNECTORS: Final[dict[str, str]] = {
    "none": "",
    "then": "then",
    "later": "later ,",
    "after": "after that ,",
    "time": "{time} ,",
    "place": "{place} ,",
}
