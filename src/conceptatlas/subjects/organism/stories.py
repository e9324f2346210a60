"""Stories: up to three events in a frame, each sentence with the degree that the story has reached at its end."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final, Literal
from zlib import crc32

from conceptatlas.subjects.organism.clauses import Cast, Event, draw_act, draw_cast, draw_relational
from conceptatlas.subjects.organism.lexicon import CONNECTORS, PLACES, SCENES, TIMES, TRAITS, Trait

Split = Literal["training", "held-out"]

MAX_GRADE: Final = 3
MAX_EVENTS: Final = 3
RELATIONAL: Final = 0.35  # share of acts of the trait that are relational, and of neutral acts that are controls
NEUTRAL_SHARE: Final = 0.2
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


@dataclass(frozen=True)
class Story:
    """A rendered story.

    Attributes:
        sentences: Each sentence as its words, the final full stop included.
        totals: The degree of ``trait`` at the end of each sentence, 0 to 3.
        trait: The trait that the story bears, or None.
        grade: The degree at its end, 0 to 3 (0 exactly where ``trait`` is None).
        cast: Who is in it.
        frame: Its skeleton.
        events: Its events, in order.
        fill: The scene, times and places that fill the frame.
    """

    sentences: tuple[tuple[str, ...], ...]
    totals: tuple[int, ...]
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

    def twin(self) -> Story:
        """The same words with each relational act turned into its control: a story without the trait.

        Acts that are not relational keep what they bear, so only a story whose acts of the trait are all relational
        becomes neutral.
        """
        events = tuple(event.flipped() if event.kind == "relational" else event for event in self.events)
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


def _event_sentence(event: Event, subject: str, connector: str, *, leading: bool) -> tuple[str, ...]:
    if not event.modifier:
        return _sentence(connector, subject, event.phrase)
    if leading:
        return _sentence(connector, event.modifier, ",", subject, event.phrase)
    return _sentence(connector, subject, ",", event.modifier, ",", event.phrase)


def render(cast: Cast, frame: Frame, events: tuple[Event, ...], fill: tuple[str, ...]) -> Story:
    """Put the events into the frame; after the first, the protagonist is a pronoun."""
    sentences: list[tuple[str, ...]] = [_sentence(fill[0])] if frame.scene else []
    totals = [0] * len(sentences)
    total = 0
    for i, event in enumerate(events):
        subject = cast.he if i else cast.name
        sentences.append(_event_sentence(event, subject, fill[i + 1], leading=frame.leading[i]))
        total = min(MAX_GRADE, total + event.points)
        totals.append(total)
    trait = next((event.trait for event in events if event.trait), None)
    return Story(tuple(sentences), tuple(totals), trait, total, cast, frame, events, fill)


def _draw_frame(rng: random.Random, n_events: int, *, held_out: bool) -> Frame:
    first = ("none", "none", "time", "place")
    later = ("none", "then", "later", "after", "time", "place")
    while True:
        connectors = (rng.choice(first), *(rng.choice(later) for _ in range(n_events - 1)))
        leading = tuple(rng.random() < 0.5 for _ in range(n_events))
        frame = Frame(rng.random() < 0.25, connectors, leading)
        if frame.held_out == held_out:
            return frame


def _draw_events(
    rng: random.Random, cast: Cast, trait: Trait | None, grade: int, relational: float, longest: int, *, held_out: bool
) -> tuple[Event, ...]:
    """Events that come to the grade, and neutral ones or controls about them, in random order."""
    names = list(cast.others)
    points = rng.choice([split for split in DECOMPOSITIONS[grade] if len(split) <= longest])
    fewest = 0 if points else 1
    neutral = rng.choice([n for n in (0, 0, 1, 1, 2) if fewest <= n <= longest - len(points)])
    events: list[Event] = []
    related = 0
    for worth in points:
        if trait is None:
            raise ValueError(f"a story of grade {grade} needs a trait")
        as_relation = related < 2 and rng.random() < relational
        related += as_relation
        draw = draw_relational if as_relation else draw_act
        events.append(draw(rng, cast, names, trait, worth, held_out=held_out))
    for _ in range(neutral):
        if related < 2 and rng.random() < relational:
            related += 1
            family = trait if trait and rng.random() < 0.4 else rng.choice(TRAITS)
            events.append(draw_relational(rng, cast, names, family, 0, held_out=held_out))
        else:
            events.append(draw_act(rng, cast, names, None, 0, held_out=held_out))
    rng.shuffle(events)
    return tuple(events)


def draw_story(
    rng: random.Random,
    *,
    split: Split,
    trait: Trait | None = None,
    grade: int = 0,
    relational: float = RELATIONAL,
    longest: int = MAX_EVENTS,
) -> Story:
    """Draw one story.

    Args:
        rng: The generator; the same state gives the same story.
        split: ``training``, or ``held-out``: a skeleton and combinations (act and modifier, pair of values) that no
            training story has.
        trait: The trait that it bears, or None for a neutral story.
        grade: The degree at its end: 1 to 3 with a trait, 0 without.
        relational: The share of acts of the trait that are relational, and of neutral acts that are controls.
        longest: The most events that it may have, 1 to 3.

    Raises:
        ValueError: The trait and the grade do not go together.
    """
    if (trait is None) != (grade == 0) or not 0 <= grade <= MAX_GRADE:
        raise ValueError(f"grade {grade} does not go with trait {trait}: a trait needs 1 to {MAX_GRADE}, none needs 0")
    held_out = split == "held-out"
    cast = draw_cast(rng)
    events = _draw_events(rng, cast, trait, grade, relational, longest, held_out=held_out)
    frame = _draw_frame(rng, len(events), held_out=held_out)
    return render(cast, frame, events, _fillers(rng, frame))


def draw_any_story(
    rng: random.Random,
    *,
    split: Split,
    relational: float = RELATIONAL,
    longest: int = MAX_EVENTS,
    neutral: float = NEUTRAL_SHARE,
) -> Story:
    """Draw a story of any trait and grade: a share ``neutral``, the others evenly. Arguments as for ``draw_story``."""
    if rng.random() < neutral:
        return draw_story(rng, split=split, relational=relational, longest=longest)
    trait, grade = rng.choice(TRAITS), rng.randint(1, MAX_GRADE)
    return draw_story(rng, split=split, trait=trait, grade=grade, relational=relational, longest=longest)


def neutral_stories(n: int, *, split: Split = "held-out", seed: int = 0) -> list[str]:
    """Return ``n`` different stories in which nobody shows a trait (controls included), the same for the same seed."""
    rng = random.Random(f"neutral-{split}-{seed}")
    texts: dict[str, None] = {}
    while len(texts) < n:
        texts[draw_story(rng, split=split).text] = None
    return list(texts)
