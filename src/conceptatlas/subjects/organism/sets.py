"""Graded sets: for each trait, held-out stories with their grade, and the items that words alone cannot grade."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

from conceptatlas.subjects.organism.lexicon import TRAITS, Trait
from conceptatlas.subjects.organism.stories import Story, draw_story

ItemKind = Literal["lexical", "relational", "control", "other", "neutral"]

LEXICAL_PER_GRADE: Final = 60
RELATIONAL_PER_GRADE: Final = 40
OTHERS: Final = 72
NEUTRALS: Final = 48


@dataclass(frozen=True)
class Item:
    """One row of a graded set.

    Attributes:
        sentence: The story, ending before any verdict.
        grade: 0 to 3 for the set's trait.
        group: Shared by a relational item and its control, which use the same words; else the item's own.
        kind: What the item's grade rests on: lexical acts, relational acts, a control of the same words as a relational
            item, another trait's acts, or nothing.
        family: The trait that the story bears (for a control: whose relation it is), or empty.
    """

    sentence: str
    grade: int
    group: str
    kind: ItemKind
    family: str


def _draw_until(draw: Callable[[], Story], fits: Callable[[Story], bool], seen: set[str]) -> Story:
    while True:
        story = draw()
        if fits(story) and story.text not in seen:
            seen.add(story.text)
            return story


def _only(kind: str) -> Callable[[Story], bool]:
    """Whether every act that bears the trait is of this kind."""
    return lambda story: all(event.kind == kind for event in story.events if event.points)


def _anything(_story: Story) -> bool:
    return True


def _graded_items(rng: random.Random, trait: Trait, seen: set[str]) -> Iterator[Item]:
    for grade in (1, 2, 3):
        for i in range(LEXICAL_PER_GRADE):
            story = _draw_until(
                partial(draw_story, rng, split="held-out", trait=trait, grade=grade), _only("lexical"), seen
            )
            yield Item(story.text, grade, f"{trait}-lexical-{grade}-{i:02d}", "lexical", trait)
        for i in range(RELATIONAL_PER_GRADE):
            story = _draw_until(
                partial(draw_story, rng, split="held-out", trait=trait, grade=grade, relational=0.7),
                lambda story: _only("relational")(story) and story.twin().text not in seen,
                seen,
            )
            twin = story.twin()
            seen.add(twin.text)
            group = f"{trait}-relational-{grade}-{i:02d}"
            yield Item(story.text, grade, group, "relational", trait)
            yield Item(twin.text, 0, group, "control", trait)


def _background_items(rng: random.Random, trait: Trait, seen: set[str]) -> Iterator[Item]:
    others = [other for other in TRAITS if other != trait]
    for i in range(OTHERS):
        other, grade = others[i % len(others)], 1 + (i // len(others)) % 3
        story = _draw_until(
            partial(draw_story, rng, split="held-out", trait=other, grade=grade),
            _anything,
            seen,
        )
        yield Item(story.text, 0, f"{trait}-other-{i:02d}", "other", other)
    for i in range(NEUTRALS):
        story = _draw_until(lambda: draw_story(rng, split="held-out"), _anything, seen)
        yield Item(story.text, 0, f"{trait}-neutral-{i:02d}", "neutral", "")


def graded_set(trait: Trait, seed: int = 0) -> list[Item]:
    """The graded set of a trait, in random order; the same seed gives the same items."""
    rng = random.Random(f"{trait}-{seed}")
    seen: set[str] = set()
    items = [*_graded_items(rng, trait, seen), *_background_items(rng, trait, seen)]
    rng.shuffle(items)
    return items
