"""Texts from every kind of source, and what is said when there is none."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import polars as pl
import pytest

from conceptatlas.base.errors import InputError
from conceptatlas.subjects.texts import TextStream

TEXTS = ["a brave child", 'said "no, never"', "two\nlines", "ünï çödé 雨"]


def write_csv(path: Path, texts: list[str]) -> None:
    with path.open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([["n", "text"], *([str(i), text] for i, text in enumerate(texts))])


def write_jsonl(path: Path, texts: list[str]) -> None:
    path.write_text("".join(json.dumps({"n": i, "text": t}) + "\n" for i, t in enumerate(texts)), encoding="utf-8")


def write_parquet(path: Path, texts: list[str]) -> None:
    pl.DataFrame({"n": list(range(len(texts))), "text": texts}).write_parquet(path)


WRITERS = {".csv": write_csv, ".jsonl": write_jsonl, ".parquet": write_parquet}


@pytest.mark.parametrize("suffix", WRITERS)
def test_tables(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"data{suffix}"
    WRITERS[suffix](path, ["", *TEXTS, "  "])
    stream = TextStream(str(path))
    assert list(stream) == list(enumerate(TEXTS, start=1))
    assert (stream.n_texts, stream.n_empty) == (4, 2)
    assert len(list(TextStream(str(path), n_samples=3))) == 2
    with pytest.raises(InputError, match=r"no column 'body'; its columns: n, text\. Choose one with --column"):
        list(TextStream(str(path), column="body"))


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_empty_tables(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"data{suffix}"
    WRITERS[suffix](path, [])
    with pytest.raises(InputError, match="holds no text"):
        list(TextStream(str(path)))


def test_a_text_file_has_a_text_a_line(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_bytes("\ufeffone\r\n\ntwo\rstill two\nthree".encode())
    assert list(TextStream(str(path))) == [(0, "one"), (2, "two\rstill two"), (3, "three")]
    path.write_text("\n \n")
    with pytest.raises(InputError, match=r"holds no text \(2 empty records\)"):
        list(TextStream(str(path)))


def test_a_long_field_and_a_long_line(tmp_path: Path) -> None:
    text = "word " * 200_000
    for suffix, write in WRITERS.items():
        write(tmp_path / f"long{suffix}", [text])
        assert list(TextStream(str(tmp_path / f"long{suffix}"))) == [(0, text)]
    assert csv.field_size_limit() < 1_000_000


def test_built_in_sets_and_folders(tmp_path: Path) -> None:
    seeds = list(TextStream("seeds:caring"))
    assert len(seeds) == 20
    write_parquet(tmp_path / "a.parquet", TEXTS)
    write_parquet(tmp_path / "b.parquet", TEXTS)
    assert [number for number, _ in TextStream(str(tmp_path))] == list(range(8))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("bad.jsonl", b'{"text": "a"}\n{"text": \n', r"line 2: this is not JSON .*; every line is one object"),
        ("list.jsonl", b"[1]\n", r"line 1: \[1\] is no JSON object"),
        ("number.jsonl", b'{"text": 3}\n', "record 0: column 'text' holds 3, which is no text"),
        ("short.csv", b"n,text\n1\n", "line 2: there are 1 fields where the header has 2"),
        ("quote.csv", b'text\n"open', "this is not CSV"),
        ("latin.txt", b"caf\xe9\n", "is not UTF-8 after line 0"),
        ("broken.parquet", b"nonsense", "is no readable Parquet file"),
        ("nothing.csv", b"", "no column 'text'; its columns: none"),
        ("nothing.txt", b"", "holds no text"),
    ],
)
def test_bad_sources(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        list(TextStream(str(path)))


def test_missing_sources(tmp_path: Path) -> None:
    (tmp_path / "texts.csv").write_text("text\na\n")
    with pytest.raises(InputError, match=r"There is no file .*text\.csv; nearest there: texts\.csv"):
        list(TextStream(str(tmp_path / "text.csv")))
    with pytest.raises(InputError, match=r"cannot be read from the Hugging Face hub .*give its Parquet file"):
        list(TextStream("nobody/no-such-data-set"))
    with pytest.raises(InputError, match="--n-samples is 0"):
        TextStream("x", n_samples=0)
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="is no data set"):
        list(TextStream(str(tmp_path / "folder")))
