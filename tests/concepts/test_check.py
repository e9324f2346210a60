"""``check``: planted faults are found, and their absence is not reported as one."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from conceptatlas.concepts import BadRow, Concept, build_concept, check, check_concept, load_concept
from conceptatlas.concepts.confounds import confound
from conceptatlas.concepts.similarity import NearDuplicates, jaccard, near_pairs, normalised, shingles
from tests.helpers.cli import invoke

WORDS = [f"w{i}" for i in range(60)]


def random_sentences(n: int, *, seed: int = 0, words: int = 12) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, words)) for _ in range(n)]


def concept_of(texts: list[str], labels: list[int], **more: object) -> Concept:
    return build_concept("planted", texts, labels, **more)  # type: ignore[arg-type]


def verdict(concept: Concept, about: str) -> tuple[str, str]:
    found = {v.about: v for v in check_concept(concept).verdicts}[about]
    return found.level, found.text


def test_clean_noise_has_nothing_against_it() -> None:
    texts = random_sentences(400)
    found = check_concept(concept_of(texts, [i % 4 for i in range(400)]))
    assert found.label_counts == {0: 100, 1: 100, 2: 100, 3: 100}
    assert (found.duplicates_within, found.duplicates_across, found.n_near_across, found.n_missing) == (0, 0, 0, 0)
    assert found.length.auroc == 0.5
    assert found.length.spearman is None
    assert found.bag_of_words.auroc is not None
    assert 0.35 < found.bag_of_words.auroc < 0.65
    assert {v.level for v in found.verdicts} == {"fine"}
    assert found.ok


def test_length_confound_is_the_exact_auroc() -> None:
    texts = ["a b c", "a b c d", "a b c d e", "a b c d", "a b"]
    labels = np.array([0, 0, 3, 3, 1])
    # pairs (3, 0): 5>3, 5>4, 4>3, 4=4 -> 3.5 / 4
    found = check_concept(concept_of(texts, labels.tolist()))
    assert found.length.auroc == 3.5 / 4
    lengths = [3, 4, 5, 4, 2]
    assert found.length.spearman == pytest.approx(stats.spearmanr(lengths, labels).statistic)
    many = [f"{text}{i}" for i in range(40) for text in texts]
    assert verdict(concept_of(texts, labels.tolist()), "length")[0] == "note"  # five items: it may be chance
    assert verdict(concept_of(many, labels.tolist() * 40), "length")[0] == "problem"


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 3)), max_size=30))
def test_auroc_equals_counting_the_pairs(pairs: list[tuple[int, int]]) -> None:
    scores = np.array([s for s, _ in pairs], dtype=float)
    labels = np.array([label for _, label in pairs], dtype=int)
    top, bottom = labels.max(initial=0), labels.min(initial=3)
    wins = [(h > low) + 0.5 * (h == low) for h in scores[labels == top] for low in scores[labels == bottom]]
    found = confound(scores, labels, np.arange(len(labels)), None)
    assert found.auroc == (pytest.approx(np.mean(wins)) if top > bottom else None)


def test_fourteen_items_claim_nothing() -> None:
    texts = random_sentences(14)
    found = check_concept(concept_of(texts, [3 * (i % 2) for i in range(14)]))
    words = found.bag_of_words
    assert words.auroc is not None
    assert words.auroc_high - words.auroc_low > 0.4
    assert "takes more than words" not in " ".join(v.text for v in found.verdicts)
    assert verdict(concept_of(texts, [3 * (i % 2) for i in range(14)]), "words")[0] == "note"


def test_groups_are_the_units_of_the_interval() -> None:
    texts = random_sentences(80)
    labels = [3 * (i // 10 % 2) for i in range(80)]
    alone = check_concept(concept_of(texts, labels)).length
    grouped = check_concept(concept_of(texts, labels, groups=[str(i // 10) for i in range(80)])).length
    assert grouped.auroc == alone.auroc
    assert grouped.auroc_high - grouped.auroc_low > 2 * (alone.auroc_high - alone.auroc_low)


def test_the_grades_are_named_as_the_data_have_them() -> None:
    texts = [*random_sentences(50), *random_sentences(50, seed=1, words=20)]
    found = check_concept(concept_of(texts, [1] * 50 + [2] * 50))
    assert (found.highest, found.lowest) == (2, 1)
    assert found.length.auroc == 1.0
    assert "tells 2 from 1 with AUROC 1.00 (95% interval 0.9" in {v.about: v for v in found.verdicts}["length"].text
    assert "tells 2 from 1 with AUROC" in {v.about: v for v in found.verdicts}["words"].text
    assert "label 3" not in " ".join(v.text for v in found.verdicts)


def test_near_duplicate_groups_are_reported() -> None:
    base = random_sentences(60, words=25)
    found = check_concept(concept_of([*base, base[0] + " more"], [0, 3] * 30 + [3]))
    assert (found.n_near_groups, found.n_near_items, found.near_largest) == (2, 2, 2)
    assert "2 items in 2 groups" in {v.about: v for v in found.verdicts}["near-duplicate groups"].text


def test_a_word_that_gives_the_label_away_is_seen_and_folds_respect_groups() -> None:
    texts = random_sentences(200)
    labels = [3 * (i % 2) for i in range(200)]
    marked = [f"{t} villain" if label else f"{t} table" for t, label in zip(texts, labels, strict=True)]
    assert check_concept(concept_of(marked, labels)).bag_of_words.auroc == 1.0
    # The give-away word is the group's own, so no word learnt from the other groups helps.
    own = [f"{t} q{i // 4}" for i, t in enumerate(texts)]
    by_group = [3 * (i // 4 % 2) for i in range(200)]
    grouped = check_concept(concept_of(own, by_group, groups=[str(i // 4) for i in range(200)]))
    assert grouped.bag_of_words.auroc is not None
    assert grouped.bag_of_words.auroc < 0.7


def test_too_few_groups_are_not_judged() -> None:
    texts = random_sentences(40)
    found = check_concept(concept_of(texts, [3 * (i % 2) for i in range(40)], groups=[f"g{i % 2}" for i in range(40)]))
    assert found.bag_of_words.auroc is None
    assert "5 groups" in found.bag_of_words.why_not


def test_texts_without_words_are_survived() -> None:
    found = check_concept(concept_of(["!?", "...", "—"], [0, 3, 1]))
    assert found.bag_of_words.why_not == "the texts hold no words"


def test_duplicates_and_near_duplicates_are_counted_apart() -> None:
    base = random_sentences(60, words=14)
    texts = [*base, base[0].upper() + "!", base[1], base[2] + " more", base[3] + " twin"]
    labels = [0] * 30 + [3] * 30 + [0, 3, 3, 0]
    found = check_concept(concept_of(texts, labels))
    assert found.duplicates_within == 1  # base[0] again, label 0
    assert found.duplicates_across == 1  # base[1] again, label 3
    assert found.n_near_across == 1  # base[2] + more
    assert found.n_near_straddling == 1  # base[3] + twin
    assert [(p.first, p.second) for p in found.pairs] == [(1, 61), (2, 62)]
    assert found.pairs[0].similarity == 1.0
    assert not found.ok


def test_a_common_group_keeps_twins_together() -> None:
    base = random_sentences(10, words=14)
    texts = [*base, base[0] + " twin"]
    labels = [0, 3] * 5 + [0]
    assert check_concept(concept_of(texts, labels)).n_near_straddling == 1
    groups = ["g", *map(str, range(9)), "g"]
    assert check_concept(concept_of(texts, labels, groups=groups)).n_near_straddling == 0


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.sampled_from("abcde"), min_size=1, max_size=9).map(" ".join), max_size=14),
    st.sampled_from([0.3, 0.5, 0.7, 1.0]),
)
def test_near_pairs_equal_comparing_all_pairs(texts: list[str], threshold: float) -> None:
    sets = [shingles(text) for text in texts]
    expected = [(i, j) for i, j in combinations(range(len(texts)), 2) if jaccard(sets[i], sets[j]) >= threshold]
    found = near_pairs(texts, threshold=threshold)
    assert list(zip(found.first.tolist(), found.second.tolist(), strict=True)) == expected
    assert found.complete
    index = NearDuplicates(threshold)
    for i, text in enumerate(texts):
        assert index.has_near(text) == any(jaccard(sets[i], sets[j]) >= threshold for j in range(i))
        index.add(text)


def test_one_changed_word_is_near_and_other_sentences_are_not() -> None:
    first = "she told the clerk that the old bag was new"
    assert jaccard(shingles(first), shingles(first.replace("clerk", "buyer"))) >= 0.7
    assert jaccard(shingles(first), shingles("he told his aunt that the soup was cold")) < 0.3
    assert normalised(" She  told, THE clerk ") == "she told the clerk"


def test_the_search_says_when_it_stopped() -> None:
    assert not near_pairs(["a b c d e"] * 20, max_pairs=10).complete
    assert near_pairs([]).complete


def test_more_items_than_the_limit_are_sampled_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "MAX_COMPARED", 50)
    texts = random_sentences(51)
    found = check_concept(concept_of(texts, [3 * (i % 2) for i in range(len(texts))]))
    assert not found.near_complete


@pytest.mark.parametrize(
    ("labels", "level", "says"),
    [
        ([3] * 40, "problem", "same label"),
        ([1] * 20 + [3] * 20, "note", "Only 20 items of label 3 or of label 1"),
        ([0] * 10 + [3] * 30, "note", "Only 10 items"),
        ([0] * 40 + [3] * 40, "note", "No item of label 1, 2"),
        ([0] * 40 + [1] * 3 + [2] * 40 + [3] * 40, "note", "ten times"),
    ],
)
def test_label_counts_are_judged(labels: list[int], level: str, says: str) -> None:
    got, text = verdict(concept_of(random_sentences(len(labels)), labels), "labels")
    assert got == level
    assert says in text


def test_missing_labels_are_counted() -> None:
    bad = [BadRow("f.csv, line 2", "label", "", "the label is missing", "missing")]
    found = check_concept(concept_of(random_sentences(4), [0, 1, 2, 3], bad_rows=bad))
    assert found.n_missing == 1
    assert "1 of them without a label" in found.verdicts[0].text


def test_command_prints_plots_and_gives_json(tmp_path: Path) -> None:
    plot = tmp_path / "deep" / "plot.png"
    shown = invoke("check", "seeds:bravery", "--plot", plot)
    assert shown.code == 0, shown.stderr
    assert "bravery: 20 items in 20 groups" in shown.stdout
    assert "A bag of words" in shown.stdout
    assert plot.read_bytes().startswith(b"\x89PNG")
    data = json.loads(invoke("check", "seeds:bravery", "--json").stdout)
    assert data["n_items"] == 20
    assert data["label_counts"] == {"0": 5, "1": 5, "2": 5, "3": 5}


def test_command_lists_bad_rows_then_refuses_unless_told_to_skip(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("sentence,concept_strength_label\nfine,1\nbad,4\nworse,\n")
    shown = invoke("check", path)
    assert shown.code == 2
    assert f"{path}, line 3, column 'concept_strength_label': '4' is not a grade" in shown.stderr
    assert "line 4" in shown.stdout
    assert invoke("check", path, "--skip-bad-rows").code == 0
    assert invoke("check", tmp_path / "none.csv").code == 2


@pytest.mark.parametrize("trait", ["dishonesty", "aggression", "caring", "bravery", "unfairness"])
def test_seeds_are_not_told_apart_by_length(trait: str) -> None:
    auroc = check_concept(load_concept(f"seeds:{trait}")).length.auroc
    assert auroc is not None
    assert abs(auroc - 0.5) < 0.3
