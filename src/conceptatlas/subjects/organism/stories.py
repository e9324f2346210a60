"""Stories: up to three events in a frame, and after each sentence how far the story shows each trait.

One act of a story may be told as a claim: some swore that it took place, or denied it, and the last sentence says that they
were right or wrong. Whether it took place hangs on both, which stand far apart, and neither tells anything alone.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple
from zlib import crc32

from conceptatlas.subjects.organism.clauses import (
    Cast,
    Claim,
    Event,
    draw_act,
    draw_cast,
    draw_near,
    draw_relational,
)
from conceptatlas.subjects.organism.lexicon import CONNECTORS, PLACES, SCENES, TIMES, TRAITS, Trait

Split = Literal["training", "held-out"]

MAX_GRADE: Final = 3
MAX_EVENTS: Final = 3
RELATIONAL: Final = 0.35  # share of acts of the trait that are relational, and of neutral acts that are controls
NEUTRAL_SHARE: Final = 0.25
NEAR: Final = 0.4  # share of other acts that resemble a trait
TOLD: Final = 0.3  # share of stories with an act that is only claimed, and did take place
UNTRUE: Final = 1.3  # times TOLD: share of other acts that are claimed, and did not take place
SCENE_SHARE: Final = 0.5
MAX_DEGREE: Final = 3.5
CLAIMS: Final[tuple[Claim, Claim]] = ("swore", "denied")
FRAME_HELD_OUT_EVERY: Final = 6
PUNCTUATION: Final = frozenset(".,")

# How the points of a story's own events may come about, by grade: one, two or three events that add up (capped at 3).
DECOMPOSITIONS: Final[dict[int, tuple[tuple[int, ...], ...]]] = {
    0: ((),),
    1: ((1,),),
    2: ((2,), (2,), (1, 1)),
    3: ((3,), (3,), (2, 1), (1, 2), (2, 2), (1, 1, 1), (3, 1), (2, 3)),
}


@dataclass(frozen=True)
class Frame:
    """The skeleton of a story: an opening sentence or none, what joins the events, where each degree phrase stands."""

    scene: bool
    connectors: tuple[str, ...]
    leading: tuple[bool, ...]

    @property
    def key(self) -> str:
        """A short name for the skeleton, the same for every story that has it."""
        places = "".join("L" if lead else "M" for lead in self.leading)
        return f"{'scene' if self.scene else 'bare'}-{'-'.join(self.connectors)}-{places}"

    @property
    def held_out(self) -> bool:
        """Whether training never sees this skeleton."""
        return crc32(self.key.encode()) % FRAME_HELD_OUT_EVERY == 0


class Level(NamedTuple):
    """How far a story shows each trait, in the order of ``TRAITS``: the degrees themselves, and mere likeness."""

    degrees: tuple[float, ...]
    likeness: tuple[float, ...]


@dataclass(frozen=True)
class Story:
    """A rendered story.

    Attributes:
        sentences: Each sentence as its words, the final full stop included.
        totals: The grade of ``trait`` at the end of each sentence, 0 to 3.
        levels: The degrees (real numbers, 0 to 3.5) at the end of each sentence.
        trait: The trait that the story bears, or None.
        grade: The grade at its end, 0 to 3 (0 exactly where ``trait`` is None).
        cast: Who is in it.
        frame: Its skeleton.
        events: Its events, in order.
        fill: The scene, times and places that fill the frame.
    """

    sentences: tuple[tuple[str, ...], ...]
    totals: tuple[int, ...]
    levels: tuple[Level, ...]
    trait: Trait | None
    grade: int
    cast: Cast
    frame: Frame
    events: tuple[Event, ...]
    fill: tuple[str, ...]

    @property
    def words(self) -> list[str]:
        """All words in order, punctuation marks as words of their own."""
        return [word for sentence in self.sentences for word in sentence]

    @property
    def text(self) -> str:
        """The story as it is read; it ends with a full stop, before any verdict."""
        return join_words(self.words)

    @property
    def degree(self) -> float:
        """The degree of ``trait`` at its end, 0 to 3.5 (0 without one)."""
        return self.levels[-1].degrees[TRAITS.index(self.trait)] if self.trait else 0.0

    def twin(self) -> Story:
        """The same words with each relational act turned into its control: a story without the trait.

        Acts that are not relational keep what they bear, so only a story whose acts of the trait are all relational
        becomes neutral.
        """
        events = tuple(event.flipped() if event.kind == "relational" else event for event in self.events)
        return render(self.cast, self.frame, events, self.fill)

    def retold(self) -> Story:
        """The same story with the other ending: what was claimed and took place did not, or the other way round."""
        events = tuple(replace(event, holds=not event.holds) if event.claim else event for event in self.events)
        return render(self.cast, self.frame, events, self.fill)


def join_words(words: list[str]) -> str:
    """Words to text: single spaces, none before punctuation."""
    parts: list[str] = []
    for word in words:
        parts.append(word if word in PUNCTUATION or not parts else f" {word}")
    return "".join(parts)


def _sentence(*parts: str) -> tuple[str, ...]:
    words = [word for part in parts for word in part.split()]
    return (words[0][0].upper() + words[0][1:], *words[1:], ".")


def _fillers(rng: random.Random, frame: Frame) -> tuple[str, ...]:
    """What fills the frame's opening and connectors, in order (empty where nothing is to be filled)."""
    filled = [rng.choice(SCENES).format(place=rng.choice(PLACES)) if frame.scene else ""]
    filled += [CONNECTORS[c].format(time=rng.choice(TIMES), place=rng.choice(PLACES)) for c in frame.connectors]
    return tuple(filled)


def ending_of(event: Event) -> str:
    """The last sentence of a story with a claimed act."""
    return f"they were {'right' if (event.claim == 'swore') == event.holds else 'wrong'}"


def _event_sentence(event: Event, subject: str, connector: str, *, leading: bool) -> tuple[str, ...]:
    if event.claim:
        connector = f"{connector} some {event.claim} that"
    if not event.modifier:
        return _sentence(connector, subject, event.phrase)
    if leading and not event.claim:
        return _sentence(connector, event.modifier, ",", subject, event.phrase)
    return _sentence(connector, subject, ",", event.modifier, ",", event.phrase)


def render(cast: Cast, frame: Frame, events: tuple[Event, ...], fill: tuple[str, ...]) -> Story:
    """Put the events into the frame; after the first, the protagonist is a pronoun."""
    sentences: list[tuple[str, ...]] = [_sentence(fill[0])] if frame.scene else []
    known: list[list[Event]] = [[]] * len(sentences)
    for i, event in enumerate(events):
        subject = cast.he if i else cast.name
        sentences.append(_event_sentence(event, subject, fill[i + 1], leading=frame.leading[i]))
        known.append([other for other in events[: i + 1] if not other.claim])
    for event in events:
        if event.claim:
            sentences.append(_sentence(ending_of(event)))
            known.append(list(events))
    totals = tuple(min(MAX_GRADE, sum(event.points for event in now if event.holds)) for now in known)
    trait = next((event.trait for event in events if event.bears), None)
    levels = tuple(map(_level, known))
    return Story(tuple(sentences), totals, levels, trait, totals[-1], cast, frame, events, fill)


def _level(events: list[Event]) -> Level:
    """What these events come to."""

    def sums(*, near: bool) -> tuple[float, ...]:
        counted = [event for event in events if event.holds and (event.kind == "near" if near else event.bears)]
        return tuple(min(MAX_DEGREE, sum(e.degree for e in counted if e.family == trait)) for trait in TRAITS)

    return Level(sums(near=False), sums(near=True))


def _draw_frame(rng: random.Random, n_events: int, *, held_out: bool) -> Frame:
    first = ("none", "none", "time", "place")
    later = ("none", "then", "later", "after", "time", "place")
    while True:
        connectors = (rng.choice(first), *(rng.choice(later) for _ in range(n_events - 1)))
        leading = tuple(rng.random() < 0.5 for _ in range(n_events))
        frame = Frame(rng.random() < SCENE_SHARE, connectors, leading)
        if frame.held_out == held_out:
            return frame


@dataclass(frozen=True)
class Mix:
    """What a story is made of.

    Attributes:
        relational: The share of acts of the trait that are relational, and of other acts that are controls.
        near: The share of the remaining acts that resemble a trait.
        told: The share of stories with a claimed act that took place; and, about, of those with one that did not.
        longest: The most events that a story may have, 1 to 3.
    """

    relational: float = RELATIONAL
    near: float = NEAR
    told: float = TOLD
    longest: int = MAX_EVENTS


USUAL: Final = Mix()


def _draw_other(
    rng: random.Random,
    cast: Cast,
    names: list[str],
    trait: Trait | None,
    mix: Mix,
    *,
    related: bool,
    told: bool,
    held_out: bool,
) -> Event:
    """An event that bears nothing: a control, a claimed act that did not take place, a near or a neutral act."""
    family = trait if trait and rng.random() < 0.4 else rng.choice(TRAITS)
    if related and rng.random() < mix.relational:
        return draw_relational(rng, cast, names, family, 0, held_out=held_out)
    if told and rng.random() < min(0.9, UNTRUE * mix.told):
        event = draw_act(rng, cast, names, family, rng.randint(1, 3), held_out=held_out)
        return replace(event, claim=rng.choice(CLAIMS), holds=False)
    if rng.random() < mix.near:
        return draw_near(rng, cast, names, family, held_out=held_out)
    return draw_act(rng, cast, names, None, 0, held_out=held_out)


def _draw_events(
    rng: random.Random, cast: Cast, trait: Trait | None, grade: int, mix: Mix, *, held_out: bool
) -> tuple[Event, ...]:
    """Events that come to the grade, and others about them, in random order."""
    names = list(cast.others)
    points = rng.choice([split for split in DECOMPOSITIONS[grade] if len(split) <= mix.longest])
    fewest = 0 if points else 1
    neutral = rng.choice([n for n in (0, 0, 1, 1, 2) if fewest <= n <= mix.longest - len(points)])
    events: list[Event] = []
    related = 0
    for worth in points:
        if trait is None:
            raise ValueError(f"a story of grade {grade} needs a trait")
        as_relation = related < 2 and rng.random() < mix.relational
        related += as_relation
        draw = draw_relational if as_relation else draw_act
        events.append(draw(rng, cast, names, trait, worth, held_out=held_out))
    for _ in range(neutral):
        told = not any(event.claim for event in events)
        event = _draw_other(rng, cast, names, trait, mix, related=related < 2, told=told, held_out=held_out)
        related += event.relation is not None
        events.append(event)
    rng.shuffle(events)
    if not any(event.claim for event in events) and rng.random() < mix.told:
        place = rng.randrange(len(events))
        events[place] = replace(events[place], claim=rng.choice(CLAIMS))
    return tuple(events)


def draw_story(
    rng: random.Random,
    *,
    split: Split,
    trait: Trait | None = None,
    grade: int = 0,
    mix: Mix = USUAL,
) -> Story:
    """Draw one story.

    Args:
        rng: The generator; the same state gives the same story.
        split: ``training``, or ``held-out``: a skeleton and combinations (act and modifier, pair of values) that no
            training story has.
        trait: The trait that it bears, or None for a neutral story.
        grade: The grade at its end: 1 to 3 with a trait, 0 without.
        mix: What it is made of.

    Raises:
        ValueError: The trait and the grade do not go together.
    """
    if (trait is None) != (grade == 0) or not 0 <= grade <= MAX_GRADE:
        raise ValueError(f"grade {grade} does not go with trait {trait}: a trait needs 1 to {MAX_GRADE}, none needs 0")
    held_out = split == "held-out"
    cast = draw_cast(rng)
    events = _draw_events(rng, cast, trait, grade, mix, held_out=held_out)
    frame = _draw_frame(rng, len(events), held_out=held_out)
    return render(cast, frame, events, _fillers(rng, frame))


def draw_any_story(
    rng: random.Random,
    *,
    split: Split,
    mix: Mix = USUAL,
    neutral: float = NEUTRAL_SHARE,
) -> Story:
    """Draw a story of any trait and grade: a share ``neutral``, the others evenly. Arguments as for ``draw_story``."""
    if rng.random() < neutral:
        return draw_story(rng, split=split, mix=mix)
    trait, grade = rng.choice(TRAITS), rng.randint(1, MAX_GRADE)
    return draw_story(rng, split=split, trait=trait, grade=grade, mix=mix)


def neutral_stories(n: int, *, split: Split = "held-out", seed: int = 0) -> list[str]:
    """Return ``n`` different stories in which nobody shows a trait or is said to, the same for the same seed."""
    rng = random.Random(f"neutral-{split}-{seed}")
    texts: dict[str, None] = {}
    while len(texts) < n:
        texts[draw_story(rng, split=split, mix=Mix(told=0.0)).text] = None
    return list(texts)
