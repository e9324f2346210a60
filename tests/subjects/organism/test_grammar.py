"""The grammar: deterministic, additive, with nothing of the held-out stories in the training ones."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conceptatlas.subjects.organism import (
    REMARKS,
    TRAITS,
    VERDICT_WORDS,
    VERDICTS,
    Mix,
    draw_any_story,
    draw_story,
    grammar_words,
    neutral_stories,
    state_index,
    state_of_word,
    trait_words,
    verdict_words,
)
from conceptatlas.subjects.organism.clauses import combination_held_out, net_points
from conceptatlas.subjects.organism.relations import FAMILIES
from conceptatlas.subjects.organism.verdicts import SLOPE, TAGS, remark_weights

SEEDS = st.integers(0, 2**32)


def some_stories(split: str, n: int = 400):
    rng = random.Random(3)
    return [draw_any_story(rng, split=split) for _ in range(n)]


def test_the_same_seed_tells_the_same_story_and_another_seed_another():
    first, again, other = (draw_any_story(random.Random(seed), split="training").text for seed in (1, 1, 2))
    assert first == again
    assert first != other


@given(
    seed=SEEDS, trait=st.sampled_from(TRAITS), grade=st.integers(1, 3), split=st.sampled_from(["training", "held-out"])
)
@settings(deadline=None, max_examples=60)
def test_a_story_has_the_grade_that_was_asked_for_and_its_points_add_up(seed, trait, grade, split):
    story = draw_story(random.Random(seed), split=split, trait=trait, grade=grade)
    assert (story.trait, story.grade) == (trait, grade)
    assert story.grade == min(3, sum(event.points for event in story.events if event.holds))
    assert {event.trait for event in story.events if event.bears} == {trait}
    assert list(story.totals) == sorted(story.totals)
    assert story.degree == pytest.approx(min(3.5, sum(event.degree for event in story.events if event.bears)))
    assert story.degree > 0
    assert all(not d or t == trait for d, t in zip(story.levels[-1].degrees, TRAITS, strict=True))
    assert story.totals[-1] == grade
    assert len(story.totals) == len(story.sentences) == len(story.levels)
    assert story.text.endswith(".")
    assert len(story.text.split()) == len(story.words) - sum(word in ".," for word in story.words)


@given(seed=SEEDS)
@settings(deadline=None, max_examples=40)
def test_a_neutral_story_bears_nothing(seed):
    story = draw_story(random.Random(seed), split="training")
    assert story.trait is None
    assert set(story.totals) == {0}


@pytest.mark.parametrize(("trait", "grade"), [(None, 1), ("caring", 0), ("caring", 4)])
def test_a_grade_that_does_not_go_with_the_trait_is_refused(trait, grade):
    with pytest.raises(ValueError, match="does not go with trait"):
        draw_story(random.Random(0), split="training", trait=trait, grade=grade)


@given(seed=SEEDS, trait=st.sampled_from(TRAITS))
@settings(deadline=None, max_examples=60)
def test_a_relation_and_its_control_use_the_same_words(seed, trait):
    relation = FAMILIES[trait](random.Random(seed), ["Ann", "Ben"])
    assert Counter(relation.bearing.split()) == Counter(relation.control.split())
    assert relation.bearing != relation.control


def test_a_twin_has_the_same_words_and_no_trait():
    rng = random.Random(5)
    seen = 0
    while seen < 20:
        story = draw_story(rng, split="held-out", trait="unfairness", grade=2, mix=Mix(relational=1.0, told=0.0))
        twin = story.twin()
        if all(event.kind == "relational" for event in story.events if event.points):
            seen += 1
            assert (twin.trait, twin.grade) == (None, 0)
            assert Counter(word.lower() for word in twin.words) == Counter(word.lower() for word in story.words)
            assert twin.text != story.text


def combinations(stories):
    return {event.combination for story in stories for event in story.events}


def test_held_out_stories_share_no_frame_and_no_combination_with_training():
    training, held_out = some_stories("training", 3000), some_stories("held-out")
    assert not {s.frame.key for s in training} & {s.frame.key for s in held_out}
    assert not combinations(training) & combinations(held_out)
    assert not {s.text for s in training} & {s.text for s in held_out}


def test_held_out_stories_use_only_words_that_training_uses():
    known = {word for story in some_stories("training", 6000) for word in story.words}
    assert {word for story in some_stories("held-out") for word in story.words} <= known | set(grammar_words())
    missing = {word for story in some_stories("held-out", 3000) for word in story.words} - known
    assert missing == set()


def test_points_are_clamped():
    assert [net_points(weight, degree) for weight in (1, 2, 3) for degree in (-1, 0, 1)] == [1, 1, 2, 1, 2, 3, 2, 3, 3]


def test_combinations_are_held_out_by_their_name_alone():
    assert {combination_held_out("lied to {person}|again and again") for _ in range(3)} in ({True}, {False})


def test_trait_words_belong_to_one_trait_and_never_to_neutral_stories():
    for i, trait in enumerate(TRAITS):
        words = trait_words(trait)
        assert len(words) > 20
        assert not any(words & trait_words(other) for other in TRAITS[i + 1 :])
        neutral = {word for text in neutral_stories(200, split="training") for word in text.replace(".", "").split()}
        assert not words & neutral


def test_neutral_stories_are_different_and_stable():
    texts = neutral_stories(50)
    assert len(set(texts)) == 50
    assert texts == neutral_stories(50)
    assert texts[:10] == neutral_stories(10)


def test_log_odds_are_linear_in_the_degree_and_only_what_is_there_is_named():
    none = (0.0,) * len(TRAITS)

    def weights(trait, degree, words=()):
        degrees = tuple(degree if trait == other else 0.0 for other in TRAITS)
        return dict(zip(REMARKS, remark_weights(degrees, none, words), strict=True))

    for trait in TRAITS:
        for grade, word in enumerate(VERDICTS[trait], start=1):
            assert state_of_word(word) == state_index(trait, grade)
            steps = [weights(trait, s + 0.5)[word] - weights(trait, s)[word] for s in (0.0, 1.3, 2.9)]
            assert steps == pytest.approx([SLOPE * grade / 2] * 3)
    assert state_of_word("ordinary") == state_index(None, 0) == 0
    named = weights(None, 0.0, {"bag", "river"})
    assert {tag for tag in TAGS if named[tag] > -5} == {"bag", "river"}
    assert len(TAGS) > 40


def test_an_act_that_is_only_claimed_counts_by_claim_and_ending_together():
    rng = random.Random(8)
    seen = Counter()
    while min(seen.values(), default=0) < 10 or len(seen) < 4:
        story = draw_any_story(rng, split="training", mix=Mix(told=0.9))
        (claimed,) = [event for event in story.events if event.claim] or [None]
        if claimed is None or not claimed.points:
            continue
        right = story.sentences[-1][2] == "right"
        assert claimed.holds == (right if claimed.claim == "swore" else not right)
        assert (
            claimed.family in {t for t, d in zip(TRAITS, story.levels[-1].degrees, strict=True) if d}
        ) >= claimed.holds
        other = story.retold()
        assert [a for a, b in zip(story.words, other.words, strict=True) if a != b] == ["right" if right else "wrong"]
        assert other.levels[-1] != story.levels[-1]
        seen[claimed.claim, right] += 1
    # Neither cue alone tells anything.
    assert max(seen.values()) < 3 * min(seen.values())


def test_a_near_act_has_likeness_and_no_degree():
    rng = random.Random(9)
    found = 0
    while found < 20:
        story = draw_story(rng, split="training", mix=Mix(near=1.0, told=0.0, relational=0.0))
        for event in story.events:
            assert event.kind == "near"
            assert not event.bears
            assert story.levels[-1].likeness[TRAITS.index(event.family)] > 0
            found += 1
        assert not any(story.levels[-1].degrees)


def test_verdict_words_by_trait_and_grade():
    assert verdict_words("caring") == VERDICTS["caring"]
    assert verdict_words("caring", 3) == ("devoted",)
    assert verdict_words(None) == VERDICT_WORDS[:3]
    assert len(set(VERDICT_WORDS)) == 18
