"""Loading: what is accepted, and that every bad row is named by file, line and value."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import conceptatlas as ca
from conceptatlas.base.errors import InputError
from conceptatlas.concepts import TRAITS, load_concept

HEADER = "sentence,concept_strength_label\n"


@pytest.fixture
def write(tmp_path: Path):
    def _write(content: str | bytes, name: str = "data.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return _write


def test_csv_with_group_split_and_further_columns(write) -> None:
    path = write(
        "sentence,concept_strength_label,group,split,kind,text\nHe lied.,3,g1,holdout,lexical,x\nA tree.,0,,,,\n"
    )
    concept = load_concept(path)
    assert concept.name == "data"
    assert concept.texts == ["He lied.", "A tree."]
    assert concept.labels.tolist() == [3, 0]
    assert concept.items["group"].to_list() == ["g1", "text:A tree."]
    assert concept.items["split"].to_list() == ["holdout", None]
    assert concept.items["kind"].to_list() == ["lexical", ""]
    assert concept.items["data_text"].to_list() == ["x", ""]


def test_jsonl_keeps_the_types_of_further_columns(write) -> None:
    lines = [{"content": "a\u2028b", "label": 2, "n": 1}, {"content": "c", "label": 0, "n": 5, "tags": ["x"]}]
    path = write("\n".join(json.dumps(line, ensure_ascii=False) for line in lines) + "\n\n", "data.jsonl")
    concept = load_concept(path, name="mine")
    assert concept.name == "mine"
    assert concept.texts == ["a\u2028b", "c"]
    assert concept.items["n"].to_list() == [1, 5]
    assert concept.items["tags"].to_list() == [None, '["x"]']


def test_a_byte_order_mark_and_crlf_are_no_part_of_the_data(write) -> None:
    concept = load_concept(write(b"\xef\xbb\xbfsentence,concept_strength_label\r\nHe lied.,3\r\n"))
    assert concept.texts == ["He lied."]


def test_frames_and_pairs_equal_the_file(write) -> None:
    pairs = [("He lied.", 3), ("A tree.", 0)]
    texts, labels = zip(*pairs, strict=True)
    path = write(HEADER + "He lied.,3\nA tree.,0\n")
    expected = load_concept(path).data_hash
    frame = {"sentence": list(texts), "concept_strength_label": list(labels)}
    assert load_concept(pairs).data_hash == expected
    assert load_concept(pl.DataFrame(frame)).data_hash == expected
    assert load_concept(pd.DataFrame(frame)).data_hash == expected
    concept = load_concept(path)
    assert load_concept(concept) is concept


@pytest.mark.parametrize("value", ["4", "-1", "1.5", "two", "3,0", "１", "true", "1e0"])
def test_a_label_that_is_no_grade_is_named(write, value: str) -> None:
    path = write(HEADER + f'He lied.,3\n"An old\n\ntree.",0\nShe hit him.,"{value}"\n')
    with pytest.raises(InputError) as caught:
        load_concept(path)
    message = str(caught.value)
    assert f"{path}, line 6, column 'concept_strength_label': {value!r} is not a grade 0, 1, 2 or 3" in message


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (HEADER + "He lied.,\n", "line 2, column 'concept_strength_label': the label is missing"),
        (HEADER + "ok,1\n  ,3\n", "line 3, column 'sentence': the sentence is empty"),
        (HEADER + "He lied, again,3\n", "line 2: there are 3 fields where the header has 2"),
        (HEADER + "He lied.\n", "line 2: there are 1 fields where the header has 2"),
        (HEADER + 'ok,1\n"He lied,3\nA tree.,0\n', "line 3: this is not CSV"),
        ("sentence,label\nHe lied.,3\n", "no column 'concept_strength_label'; it has 'sentence', 'label'"),
        ("a,b\nHe lied.,3\n", "no column 'sentence' nor 'concept_strength_label'; it has 'a', 'b'"),
        ("sentence,sentence\na,b\n", "line 1: column 'sentence' stands twice"),
        (HEADER, "has a header and no rows"),
        ("", "is empty"),
        (b"\xef\xbb\xbf\n \n", "is empty"),
        (
            "sentence,concept_strength_label,split\nHe lied.,3,test\n",
            "line 2, column 'split': 'test' is not 'discovery'",
        ),
        (HEADER.encode() + b"ok,1\nna\xefve,2\n", "line 3, column 'sentence': 'na\\xefve' is not valid UTF-8"),
        ("hé".encode("utf-16"), "is UTF-16"),
    ],
)
def test_bad_csv_says_what_and_where(write, content: str | bytes, says: str) -> None:
    path = write(content)
    with pytest.raises(InputError) as caught:
        load_concept(path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"content": "a", "label": 4}\n', "line 1, column 'label': '4' is not a grade"),
        ('{"content": "a", "label": 1}\n\n{"content": "b", "label": true}\n', "line 3, column 'label': 'True'"),
        ('{"content": "a", "label": 1}\n{"label": 1}\n', "line 2, column 'content': the sentence is missing"),
        ('{"content": "a", "label": null}\n', "the label is missing"),
        ('{"content": 7, "label": 1}\n', "'7' is not text"),
        ('{"content": "a", "label": 1}\n{"content": "b"\n', "line 2: this is not a JSON object"),
        ('["a", 1]\n', "line 1: '[\"a\", 1]' is not a JSON object"),
        ('{"content": "\\ud800", "label": 1}\n', "half a character pair"),
        ('{"a": "x", "label": 1}\n', "no column 'content'; it has 'a', 'label'"),
        (b'{"content": "\xff", "label": 1}\n', "line 1: "),
        ("\n\n", "is empty"),
    ],
)
def test_bad_jsonl_says_what_and_where(write, content: str | bytes, says: str) -> None:
    with pytest.raises(InputError) as caught:
        load_concept(write(content, "data.jsonl"))
    assert says in str(caught.value)


def test_skip_bad_rows_drops_counts_and_keeps_the_rest(write) -> None:
    path = write(HEADER.encode() + b"ok,1\n,3\nbad,4\nna\xefve,2\nfine,0\na,b,c\n")
    with pytest.raises(InputError, match="and 3 more bad rows"):
        load_concept(path)
    concept = load_concept(path, skip_bad_rows=True)
    assert concept.texts == ["ok", "fine"]
    assert concept.skipped == 4
    assert [row.kind for row in concept.bad_rows] == ["text", "label", "encoding", "shape"]


def test_nothing_usable_is_an_error_even_when_bad_rows_are_skipped(write) -> None:
    with pytest.raises(InputError, match="no usable row: all 2 are bad"):
        load_concept(write(HEADER + "a,7\n,1\n"), skip_bad_rows=True)


def test_missing_files_get_the_nearest_names(write, tmp_path: Path) -> None:
    write(HEADER, "bravery.csv")
    with pytest.raises(InputError, match=r"There is no file .*braverry\.csv; nearest in .*: bravery\.csv"):
        load_concept(tmp_path / "braverry.csv")
    with pytest.raises(InputError, match=r"builtin:bravery and seeds:bravery"):
        load_concept("bravery")
    with pytest.raises(InputError, match="is a folder"):
        load_concept(tmp_path)
    with pytest.raises(InputError, match=r"ends in '\.txt'"):
        load_concept(write("a", "a.txt"))


def test_unknown_builtin_names_get_the_nearest() -> None:
    with pytest.raises(InputError, match=r"Unknown built-in data set 'seeds:courage'; nearest: .*seeds:"):
        load_concept("seeds:courage")


@pytest.mark.parametrize("source", [[], pl.DataFrame({"text": [], "label": []}), 7, [("a", 1), "b2"], [("a", None)]])
def test_bad_python_sources_are_input_errors(source: object) -> None:
    with pytest.raises(InputError):
        load_concept(source)  # type: ignore[arg-type]


@pytest.mark.parametrize("trait", TRAITS)
def test_seeds_are_twenty_five_of_each_grade_and_distinct(trait: str) -> None:
    concept = ca.load_concept(f"seeds:{trait}")
    assert len(concept) == 20
    assert concept.items["label"].value_counts().sort("label").rows() == [(0, 5), (1, 5), (2, 5), (3, 5)]
    assert len(set(concept.texts)) == 20
    words = [len(text.split()) for text in concept.texts]
    assert 8 <= min(words) <= max(words) <= 26


def test_no_seed_serves_two_traits() -> None:
    texts = [text for trait in TRAITS for text in ca.load_concept(f"seeds:{trait}").texts]
    assert len(set(texts)) == len(texts)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip),
            st.integers(0, 3),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_any_text_survives_the_file_unchanged(tmp_path_factory, pairs: list[tuple[str, int]]) -> None:
    import csv

    path = tmp_path_factory.mktemp("any") / "data.csv"
    with path.open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([["sentence", "concept_strength_label"], *pairs])
    concept = load_concept(path)
    assert list(zip(concept.texts, concept.labels.tolist(), strict=True)) == pairs


def test_a_field_of_a_million_characters_is_read_and_leaves_the_limit_alone(write) -> None:
    import csv

    before = csv.field_size_limit()
    concept = load_concept(write(HEADER + "word " * 200_000 + ",1\n"))
    assert len(concept.texts[0]) == 1_000_000
    assert csv.field_size_limit() == before
