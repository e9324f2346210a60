"""Graded sets: for each trait, held-out stories with their grade, on which the methods differ.

Grades are as raters would give them: the degree, a real number, with an error, rounded. Acts that bear the trait, and those
that resemble it, are parted between discovery and hold-out, so that no word learnt on the one serves on the other.
Relational items stand beside controls of the same words, claimed ones beside the same claim with the other ending.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Final, Literal
from zlib import crc32

from conceptatlas.subjects.organism.acts import lexical_acts, near_acts
from conceptatlas.subjects.organism.lexicon import TRAITS, Trait
from conceptatlas.subjects.organism.stories import MAX_GRADE, Mix, Story, draw_story, render

ItemKind = Literal["lexical", "relational", "claimed", "control", "denied", "near", "other", "neutral"]
Side = Literal["discovery", "holdout"]

JITTER: Final = 0.45  # standard deviation of the raters' error, in degrees
HELD_OUT_ACTS: Final = 3  # of the eight of a weight (or the ten that resemble a trait)
HELD_OUT_ITEMS: Final = 3  # of every ten
# A cue that goes with the trait in discovery and with nothing in the hold-out.
CUE: Final = "on Monday ,"
CUE_SHARE: Final = 0.9


@dataclass(frozen=True)
class Sizes:
    """How many items of each kind: of the first three for each grade 1 to 3; each of them but lexical brings a twin."""

    lexical: int = 40
    relational: int = 20
    claimed: int = 16
    near: int = 80
    other: int = 53
    neutral: int = 27


USUAL_SIZES: Final = Sizes()
SMALL_SIZES: Final = Sizes(lexical=6, relational=2, claimed=2, near=9, other=6, neutral=3)


@dataclass(frozen=True)
class Item:
    """One row of a graded set.

    Attributes:
        sentence: The story, ending before any verdict.
        grade: 0 to 3 for the set's trait, as a rater gave it.
        degree: The truth behind it, 0 to 3.5.
        group: Shared by twins; else the item's own.
        kind: What the item's degree rests on: lexical acts, relational acts, a claimed act that took place; or, at degree
            0, a control (the words of a relational item), a denied act (a claimed one that did not take place), a near
            act (which resembles the trait), another trait's acts, or nothing.
        family: The trait that the story bears (for controls, denied and near acts: whose they are), or empty.
        act: The act on which it rests (the first where there are several), or empty.
        split: ``discovery`` or ``holdout``.
    """

    sentence: str
    grade: int
    degree: float
    group: str
    kind: ItemKind
    family: str
    act: str
    split: Side


@cache
def held_out_acts() -> frozenset[str]:
    """The acts (phrases) that only hold-out items have: of each trait and weight those of the lowest hashes."""
    blocks = [
        [act.phrase for act in lexical_acts(trait) if act.weight == weight] for trait in TRAITS for weight in (1, 2, 3)
    ]
    blocks += [[act.phrase for act in near_acts(trait)] for trait in TRAITS]
    return frozenset(
        phrase
        for block in blocks
        for phrase in sorted(block, key=lambda phrase: crc32(phrase.encode()))[:HELD_OUT_ACTS]
    )


def _on_side(story: Story, side: Side) -> bool:
    """Whether the acts that bear or resemble a trait are all of this side of the split."""
    acts = [event.act for event in story.events if event.kind in {"lexical", "near"}]
    return all((act in held_out_acts()) == (side == "holdout") for act in acts)


class _Drawer:
    """Draws the items of one set; no text comes twice."""

    def __init__(self, trait: Trait, rng: random.Random, *, cued: bool) -> None:
        self.trait, self.rng, self.cued = trait, rng, cued
        self.seen: set[str] = set()

    def story(
        self, side: Side, fits: Callable[[Story], bool], mix: Mix, trait: Trait | None = None, grade: int = 0
    ) -> Story:
        """A new story on this side that fits, without an act of the set's trait that is only claimed."""
        while True:
            story = draw_story(self.rng, split="held-out", trait=trait, grade=grade, mix=mix)
            if _on_side(story, side) and fits(story) and story.text not in self.seen:
                self.seen.add(story.text)
                return story

    def item(self, story: Story, kind: ItemKind, group: str, family: str, act: str, side: Side) -> Item:
        """An item, graded with the rater's error."""
        if self.cued:
            share = 0.5 if side == "holdout" else CUE_SHARE if story.trait == self.trait else 1 - CUE_SHARE
            story = with_cue(story, present=self.rng.random() < share)
        degree = story.degree if story.trait == self.trait else 0.0
        grade = min(MAX_GRADE, max(0, round(degree + self.rng.gauss(0.0, JITTER))))
        return Item(story.text, grade, round(degree, 2), f"{self.trait}-{group}", kind, family, act, side)


def with_cue(story: Story, *, present: bool) -> Story:
    """The story with the cue before its first act, or without one."""
    if not present and story.fill[1] != CUE:
        return story
    connectors = ("time" if present else "none", *story.frame.connectors[1:])
    fill = (story.fill[0], CUE if present else "", *story.fill[2:])
    return render(story.cast, replace(story.frame, connectors=connectors), story.events, fill)


def _rests_on(story: Story) -> str:
    """The first act that bears a trait."""
    return next(event.act for event in story.events if event.points)


def _bearing(draw: _Drawer, kind: ItemKind, grade: int, i: int) -> Iterator[Item]:
    side = side_of(i)
    group = f"{kind}-{grade}-{i:02d}"

    def fits(story: Story) -> bool:
        bearing = [event for event in story.events if event.points]
        plain = all(
            event.holds and event.kind == ("relational" if kind == "relational" else "lexical") for event in bearing
        )
        if kind == "claimed":
            return plain and len(bearing) == 1 and bool(bearing[0].claim)
        return plain and not any(event.claim for event in bearing)

    mix = {
        "lexical": Mix(relational=0.15),
        "relational": Mix(relational=0.7),
        "claimed": Mix(told=0.7, relational=0.15),
    }[kind]
    story = draw.story(side, fits, mix, draw.trait, grade)
    act = _rests_on(story)
    yield draw.item(story, kind, group, draw.trait, act, side)
    if kind != "lexical":
        twin = story.twin() if kind == "relational" else story.retold()
        draw.seen.add(twin.text)
        yield draw.item(twin, "control" if kind == "relational" else "denied", group, draw.trait, act, side)


def _background(draw: _Drawer, sizes: Sizes) -> Iterator[Item]:
    trait, others = draw.trait, [other for other in TRAITS if other != draw.trait]

    def near_of(story: Story) -> list[str]:
        return [event.act for event in story.events if event.kind == "near" and event.family == trait and event.holds]

    def only_near(story: Story) -> bool:
        return bool(near_of(story)) and not any(event.points for event in story.events)

    def plain(story: Story) -> bool:
        return not near_of(story) and not any(event.points and not event.holds for event in story.events)

    for i in range(sizes.near):
        story = draw.story(side_of(i), only_near, Mix(near=0.9))
        yield draw.item(story, "near", f"near-{i:02d}", trait, near_of(story)[0], side_of(i))
    for i in range(sizes.other):
        other, grade = others[i % len(others)], 1 + (i // len(others)) % 3
        story = draw.story(side_of(i), plain, Mix(), other, grade)
        yield draw.item(story, "other", f"other-{i:02d}", other, _rests_on(story), side_of(i))
    for i in range(sizes.neutral):
        story = draw.story(side_of(i), plain, Mix())
        yield draw.item(story, "neutral", f"neutral-{i:02d}", "", "", side_of(i))


def side_of(i: int) -> Side:
    """The side of the i-th item of a kind: three of every ten are held out."""
    return "holdout" if i * 7 % 10 < HELD_OUT_ITEMS else "discovery"


def graded_set(trait: Trait, seed: int = 0, *, sizes: Sizes = USUAL_SIZES, cued: bool = False) -> list[Item]:
    """The graded set of a trait, in random order; the same arguments give the same items.

    Args:
        trait: The trait.
        seed: 0 is what ships.
        sizes: How many items of each kind.
        cued: Whether discovery items that bear the trait begin with the cue nine times of ten, and others once; in the
            hold-out it goes with nothing.
    """
    rng = random.Random(f"{trait}-{seed}")
    draw = _Drawer(trait, rng, cued=cued)
    counts = {"lexical": sizes.lexical, "relational": sizes.relational, "claimed": sizes.claimed}
    items = [
        item
        for grade in (1, 2, 3)
        for kind, count in counts.items()
        for i in range(count)
        for item in _bearing(draw, kind, grade, i)  # type: ignore[arg-type]
    ]
    items += _background(draw, sizes)
    rng.shuffle(items)
    return items
