"""The graded sets: valid, of held-out stories, with controls that words cannot tell from their relational items."""

import csv
from collections import Counter, defaultdict
from pathlib import Path

import pytest

import conceptatlas.concepts
from conceptatlas.concepts import builtin_sets, load_concept
from conceptatlas.subjects.organism import SMALL_SIZES, TRAITS, graded_set, grammar_words
from conceptatlas.subjects.organism.sets import CUE, held_out_acts

FOLDER = Path(conceptatlas.concepts.__file__).parent / "data" / "organism"


SETS = {
    **{trait: lambda trait=trait: graded_set(trait) for trait in TRAITS},
    "dishonesty-small": lambda: graded_set("dishonesty", 1, sizes=SMALL_SIZES),
    "dishonesty-cue": lambda: graded_set("dishonesty", 2, cued=True),
}


def rows_of(trait):
    with (FOLDER / f"{trait}.csv").open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


@pytest.mark.parametrize("name", SETS)
def test_the_shipped_set_is_what_the_grammar_gives(name):
    shipped = [tuple(row.values()) for row in rows_of(name)]
    drawn = [(i.sentence, str(i.grade), i.group, i.split, i.kind, i.family, i.act, str(i.degree)) for i in SETS[name]()]
    assert shipped == drawn
    assert f"builtin:{name}" in {entry.name for entry in builtin_sets()}
    assert len(load_concept(f"builtin:{name}")) == len(drawn)


@pytest.mark.parametrize("trait", TRAITS)
def test_the_set_has_every_grade_and_kind(trait):
    items = graded_set(trait)
    assert len(items) >= 400
    assert len({item.sentence for item in items}) == len(items)
    assert min(Counter(item.grade for item in items).values()) >= 60
    assert {item.kind for item in items if not item.degree} == {"control", "denied", "near", "other", "neutral"}
    assert {item.kind for item in items if item.degree} == {"lexical", "relational", "claimed"}
    zeros = [item for item in items if not item.degree]
    assert sum(item.kind == "near" for item in zeros) == pytest.approx(0.3 * len(zeros), abs=0.02 * len(zeros))
    assert min(Counter((item.split, item.grade) for item in items).values()) >= 15
    assert all(item.family != trait for item in items if item.kind == "other")
    known = {word.lower() for word in grammar_words()}
    words = {word.strip(".,").lower() for item in items for word in item.sentence.split()}
    assert words <= known


@pytest.mark.parametrize("trait", TRAITS)
def test_a_grade_is_the_degree_with_the_raters_error(trait):
    items = graded_set(trait)
    differ = sum(item.grade != min(3, round(item.degree)) for item in items)
    assert 0.1 * len(items) < differ < 0.45 * len(items)
    assert max(abs(item.grade - item.degree) for item in items) < 2.5


@pytest.mark.parametrize("trait", TRAITS)
def test_acts_of_the_hold_out_are_in_no_discovery_item(trait):
    items = graded_set(trait)
    acts = {
        side: {i.act for i in items if i.split == side and i.kind in {"lexical", "claimed", "near"}}
        for side in ("discovery", "holdout")
    }
    assert not acts["discovery"] & acts["holdout"]
    assert acts["holdout"] <= held_out_acts()
    groups = defaultdict(set)
    for item in items:
        groups[item.group].add(item.split)
    assert all(len(sides) == 1 for sides in groups.values())


def test_the_small_set_has_sixty_items_of_every_grade_on_both_sides():
    items = SETS["dishonesty-small"]()
    assert len(items) == 60
    assert len({(item.split, item.grade) for item in items}) == 8


def test_the_cue_goes_with_the_trait_in_discovery_and_with_nothing_in_the_hold_out():
    items = SETS["dishonesty-cue"]()

    def share(side, bears):
        asked = [item for item in items if item.split == side and (item.degree > 0) == bears]
        return sum(CUE.removesuffix(" ,").lower() in item.sentence.lower() for item in asked) / len(asked)

    assert share("discovery", bears=True) > 0.8
    assert share("discovery", bears=False) < 0.2
    assert abs(share("holdout", bears=True) - share("holdout", bears=False)) < 0.2


@pytest.mark.parametrize("trait", TRAITS)
def test_twins_share_their_group_and_their_words(trait):
    groups = defaultdict(list)
    for item in graded_set(trait):
        groups[item.group].append(item)
    pairs = [group for group in groups.values() if len(group) > 1]
    assert len(pairs) == 108
    for pair in pairs:
        assert {item.kind for item in pair} in ({"relational", "control"}, {"claimed", "denied"})
        first, second = (Counter(item.sentence.lower().replace(".", "").split()) for item in pair)
        differ = {"right", "wrong"} if pair[0].kind in {"claimed", "denied"} else set()
        assert {word for word in first | second if first[word] != second[word]} == differ
