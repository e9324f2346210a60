"""What belongs together: twins, near-duplicates, the data's own split, and whole values held out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conceptatlas.base.errors import InputError
from conceptatlas.concepts import (
    TRAITS,
    build_concept,
    check_concept,
    group_near_duplicates,
    holdout_mask,
    load_concept,
    split_hash_of,
)
from conceptatlas.concepts import similarity as similarity_module
from conceptatlas.concepts.grouping import joined_groups, near_groups
from conceptatlas.concepts.similarity import jaccard, near_pairs, normalised, shingles

STORY = "On the way home she told the old clerk at the desk that the green bag had been quite new all along"
NEAR = STORY.replace("green", "brown")


def twins_of(text: str) -> list[str]:
    return [
        text.upper(),
        f"  {text}!",
        text.replace(" ", "\u00a0"),
        "".join(chr(ord(c) + 0xFEE0) if "a" <= c <= "z" else c for c in text),
    ]


def test_twins_share_a_group_and_the_name_stays() -> None:
    texts = [STORY, *twins_of(STORY), "A tree."]
    items = build_concept("c", texts, [3] * 5 + [0]).items
    assert items["group"].n_unique() == 2
    assert items["split_hash"].n_unique() == 2
    # An item alone, and items of the very same text, are called what they always were.
    alone = build_concept("c", ["A tree.", "A tree."], [0, 0]).items
    assert alone["group"].to_list() == ["text:A tree."] * 2
    assert alone["split_hash"].to_list() == [split_hash_of("text:A tree.")] * 2
    assert items["group"].to_list()[-1] == "text:A tree."


def test_no_twin_straddles_the_split() -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{k}" for k in rng.integers(0, 99, 9)) for _ in range(100)]
    texts += [text.title() + "." for text in texts]
    concept = build_concept("c", texts, [0, 3] * 100)
    held = holdout_mask(concept.labels, concept.items["split_hash"].to_numpy())
    assert held[:100].tolist() == held[100:].tolist()
    assert 40 <= held.sum() <= 80


def test_groups_that_a_twin_connects_are_one() -> None:
    groups = joined_groups(["a b", "A B!", "c d", "e f", "C d"], ["g2", None, "g2", "g1", "g1"])
    assert groups == ["g1"] * 5


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abcdeABCDE"), st.sampled_from([None, "x", "y", "z"])), max_size=12),
    st.randoms(),
)
def test_joined_groups_against_repeated_merging(rows: list[tuple[str, str | None]], random) -> None:
    """The slow oracle: merge any two sets that share a text or a group until none does; order plays no part."""
    texts, given_groups = [t for t, _ in rows], [g for _, g in rows]
    sets = [{i} for i in range(len(rows))]

    def alike(i: int, j: int) -> bool:
        same_group = given_groups[i] is not None and given_groups[i] == given_groups[j]
        return same_group or normalised(texts[i]) == normalised(texts[j])

    merged = True
    while merged:
        merged = False
        for a in range(len(sets)):
            for b in range(a + 1, len(sets)):
                if any(alike(i, j) for i in sets[a] for j in sets[b]):
                    sets[a] |= sets.pop(b)
                    merged = True
                    break
            if merged:
                break
    found = joined_groups(texts, given_groups)
    assert {frozenset(i for i, g in enumerate(found) if g == name) for name in found} == {frozenset(s) for s in sets}
    order = list(range(len(rows)))
    random.shuffle(order)
    again = joined_groups([texts[i] for i in order], [given_groups[i] for i in order])
    assert again == [found[i] for i in order]


def test_a_split_that_tears_a_group_or_twins_is_named(tmp_path: Path) -> None:
    path = tmp_path / "torn.csv"
    path.write_text(
        "sentence,concept_strength_label,group,split\nHe lied.,3,,discovery\nA tree.,0,g,discovery\n"
        "he LIED,3,,holdout\nA bush.,0,g,holdout\nA stone.,0,,holdout\n"
    )
    with pytest.raises(
        InputError, match=r"torn.csv, line 4, column 'split': it is hold-out, and .*line 2.*\(and 1 more"
    ):
        load_concept(path)
    concept = load_concept(path, skip_bad_rows=True)
    assert concept.texts == ["He lied.", "A tree.", "A stone."]
    assert [row.kind for row in concept.bad_rows] == ["split", "split"]
    with pytest.raises(InputError, match="item 1 is hold-out, and item 0"):
        build_concept("c", ["He lied.", "he lied"], [3, 3], splits=["discovery", "holdout"])


def test_an_item_without_a_split_goes_with_its_group() -> None:
    items = build_concept("c", ["He lied.", "he lied", "x"], [3, 3, 0], splits=["holdout", None, None]).items
    assert items["split"].to_list() == ["holdout", "holdout", None]


def test_the_identity_of_the_data_is_that_of_what_was_given() -> None:
    from hashlib import sha256

    concept = build_concept("c", ["He lied.", "he lied"], [3, 3])
    rows = [("He lied.", 3, "text:He lied.", None), ("he lied", 3, "text:he lied", None)]
    assert concept.data_hash == sha256("".join(map(repr, rows)).encode()).hexdigest()
    assert group_near_duplicates(concept)[0].data_hash == concept.data_hash


# Near-duplicates ------------------------------------------------------------------------------------------------------


def test_near_duplicates_are_joined_whatever_their_labels() -> None:
    concept = build_concept(
        "c", [STORY, NEAR, "A tree stood there.", "He ran home."], [3, 0, 0, 3], groups=["a", "b", None, None]
    )
    joined, found = group_near_duplicates(concept)
    assert jaccard(shingles(STORY), shingles(NEAR)) >= 0.8
    assert joined.items["group"].to_list() == ["a", "a", "text:A tree stood there.", "text:He ran home."]
    assert (found.n_pairs, found.n_joined, found.n_items, found.largest) == (1, 2, 2, 2)
    assert "2 items in 2 groups are near-duplicates" in found.notes[0]
    assert joined.items["split_hash"][0] == joined.items["split_hash"][1] == split_hash_of("a")


def test_the_data_s_own_split_wins_over_near_duplicates() -> None:
    found = near_groups([STORY, NEAR], ["a", "b"], ["discovery", "holdout"])
    assert found.groups == ["a", "b"]
    assert found.n_torn == 2
    assert "other side of the data's own split" in found.notes[0]


def test_sentences_of_one_template_are_not_chained() -> None:
    """A hundred sentences that differ in one word: one group of all would leave nothing to split."""
    names = [f"name{i}" for i in range(100)]
    texts = [STORY.replace("clerk", name) for name in names] + [f"other text number {i} {i * 7}" for i in range(100)]
    found = near_groups(texts, [f"g{i}" for i in range(200)], [None] * 200)
    assert found.groups == [f"g{i}" for i in range(200)]
    assert found.n_long == 100
    assert "sentences of one template" in found.notes[0]


@pytest.mark.parametrize("trait", TRAITS)
def test_built_in_sets_do_not_collapse(trait: str) -> None:
    concept = load_concept(f"builtin:{trait}")
    joined, found = group_near_duplicates(concept)
    assert joined.items["group"].n_unique() >= 0.9 * concept.items["group"].n_unique()
    assert found.largest <= 20


def test_a_search_that_is_cut_short_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [STORY.replace("clerk", f"name{i}") for i in range(40)]
    assert near_pairs(texts, threshold=0.8).complete
    monkeypatch.setattr(similarity_module, "_MAX_CANDIDATES", 100)
    found = near_pairs(texts, threshold=0.8)
    assert not found.complete
    assert "stopped at its limit" in near_groups(texts, texts, [None] * 40).notes[-1]


# Whole values held out ------------------------------------------------------------------------------------------------


def test_check_knows_joined_groups() -> None:
    assert check_concept(build_concept("c", [STORY, STORY.upper(), "x y z"], [3, 3, 0])).n_groups == 2
