"""The graded sets: valid, of held-out stories, with controls that words cannot tell from their relational items."""

import csv
from collections import Counter, defaultdict
from pathlib import Path

import pytest

import conceptatlas.concepts
from conceptatlas.subjects.organism import TRAITS, graded_set, grammar_words

FOLDER = Path(conceptatlas.concepts.__file__).parent / "data" / "organism"


def rows_of(trait):
    with (FOLDER / f"{trait}.csv").open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


@pytest.mark.parametrize("trait", TRAITS)
def test_the_shipped_set_is_what_the_grammar_gives(trait):
    shipped = [tuple(row.values()) for row in rows_of(trait)]
    drawn = [(i.sentence, str(i.grade), i.group, i.kind, i.family) for i in graded_set(trait)]
    assert shipped == drawn


@pytest.mark.parametrize("trait", TRAITS)
def test_the_set_has_every_grade_and_kind(trait):
    items = graded_set(trait)
    assert len(items) >= 400
    assert len({item.sentence for item in items}) == len(items)
    assert min(Counter(item.grade for item in items).values()) >= 100
    assert {item.kind for item in items if item.grade == 0} == {"control", "other", "neutral"}
    assert {item.kind for item in items if item.grade} == {"lexical", "relational"}
    assert all(item.family != trait for item in items if item.kind == "other")
    known = {word.lower() for word in grammar_words()}
    words = {word.strip(".,").lower() for item in items for word in item.sentence.split()}
    assert words <= known


@pytest.mark.parametrize("trait", TRAITS)
def test_a_relational_item_and_its_control_share_group_and_words(trait):
    groups = defaultdict(list)
    for item in graded_set(trait):
        groups[item.group].append(item)
    pairs = [group for group in groups.values() if len(group) > 1]
    assert len(pairs) == 120
    for pair in pairs:
        assert {item.kind for item in pair} == {"relational", "control"}
        first, second = (Counter(item.sentence.lower().replace(".", "").split()) for item in pair)
        assert first == second
