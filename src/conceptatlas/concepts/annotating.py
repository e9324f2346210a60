"""``annotate``: sentences graded 0–3 by a language model, and how far it agrees with people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from conceptatlas.base.provenance import write_run
from conceptatlas.concepts.agreement import Agreement, agreement
from conceptatlas.concepts.builtin import concept_text
from conceptatlas.concepts.grading import Graded, Grader, grading_instructions
from conceptatlas.concepts.sentences import Sentences, read_sentences
from conceptatlas.concepts.writing import beside, check_out, write_csv
from conceptatlas.llm import LLM, ChatRequest, default_cache_folder

LABEL_COLUMNS = ("sentence", "concept_strength_label")
# Columns that annotate and generate write; of the same name in the input they give way.
OWN_COLUMNS = ("human_label", "label_votes", "label_spread", "reason")


@dataclass(frozen=True)
class Annotation:
    """What ``annotate`` did.

    Attributes:
        concept: The concept's name.
        out: The CSV of the graded sentences.
        unlabelled_out: The CSV of those without a valid grade, or None when there are none.
        table: The graded rows, as written.
        unlabelled: The rows without a grade, with the column ``reason``.
        agreement: With the labels that people gave, where the input has any.
        n_skipped: Bad rows that were dropped on request.
        stopped: Why the model was not asked to the end, or empty.
        usage: What was asked and what it cost, in one line.
    """

    concept: str
    out: Path
    unlabelled_out: Path | None
    table: pl.DataFrame
    unlabelled: pl.DataFrame
    agreement: Agreement
    n_skipped: int
    stopped: str
    usage: str


@dataclass(frozen=True)
class AnnotateOptions:
    """How to grade.

    Attributes:
        concept: The concept's name; one of the built-in traits brings its own rubric.
        describe: What the concept is.
        rubric: A file with the rubric.
        batch_size: Sentences in one question.
        votes: Independent grades of each sentence; the median counts. Odd.
        skip_bad_rows: Drop bad rows of the input instead of refusing.
        cache_folder: Where grades are kept; the user's cache folder where None.
    """

    concept: str
    describe: str | None = None
    rubric: Path | None = None
    batch_size: int = 20
    votes: int = 1
    skip_bad_rows: bool = False
    cache_folder: Path | None = None

    def grader(self, llm: LLM) -> Grader:
        """Return the grader for these options.

        Raises:
            InputError: The concept is unknown and not described, or a number is out of range.
        """
        description, rubric = concept_text(self.concept, describe=self.describe, rubric_file=self.rubric)
        return Grader(
            llm,
            grading_instructions(self.concept, description, rubric),
            cache_folder=self.cache_folder or default_cache_folder(),
            batch_size=self.batch_size,
            votes=self.votes,
        )


def annotate(
    sentences: str | Path | pl.DataFrame | Sequence[str], out: str | Path, *, options: AnnotateOptions, llm: LLM
) -> Annotation:
    """Grade sentences 0–3 with a language model and write them to ``out``.

    A sentence without a valid grade goes to ``<out>.unlabelled.csv`` with the reason; so input = labelled + unlabelled.
    Run again, only what is missing is asked.

    Args:
        sentences: See ``read_sentences``.
        out: The CSV to write: ``sentence, concept_strength_label``, the input's further columns, ``human_label`` where
            the input has labels, ``label_votes`` and ``label_spread`` where there are several votes.
        options: The concept and how to grade.
        llm: The client.

    Raises:
        InputError: The input or the options are unusable.
    """
    path = Path(out)
    check_out(path, *([sentences] if isinstance(sentences, (str, Path)) else []))
    items = read_sentences(sentences, skip_bad_rows=options.skip_bad_rows)
    graded = options.grader(llm).grade(items.texts)
    labelled, unlabelled = table_rows(items, graded, votes=options.votes)
    columns = _columns(items, votes=options.votes)
    unlabelled_out = write_parts(path, columns, labelled, unlabelled, _unlabelled_columns(items))
    agreed = agreement(
        *_paired([(row.human, one.grade) for row, one in zip(items.rows, graded, strict=True)]),
    )
    write_run(
        path.parent,
        command="annotate",
        options=_plain(options),
        file=beside(path, "run.json").name,
        model={"name": llm.model.name, "endpoint": llm.model.endpoint},
        counts={"labelled": len(labelled), "unlabelled": len(unlabelled), "skipped": len(items.bad_rows)},
    )
    return Annotation(
        concept=options.concept,
        out=path,
        unlabelled_out=unlabelled_out,
        table=frame_of(labelled, columns),
        unlabelled=frame_of(unlabelled, _unlabelled_columns(items)),
        agreement=agreed,
        n_skipped=len(items.bad_rows),
        stopped=str(llm.stopped or ""),
        usage=llm.summary(),
    )


def plan_annotation(
    sentences: str | Path | pl.DataFrame | Sequence[str], *, options: AnnotateOptions, llm: LLM
) -> list[ChatRequest]:
    """Return the requests that ``annotate`` would send first; those already answered are left out."""
    return options.grader(llm).requests(read_sentences(sentences, skip_bad_rows=options.skip_bad_rows).texts)


def _plain(options: AnnotateOptions) -> dict[str, Any]:
    return {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()}


def _paired(pairs: Sequence[tuple[int | None, int | None]]) -> tuple[list[int], list[int]]:
    both = [(human, grade) for human, grade in pairs if human is not None and grade is not None]
    return [human for human, _ in both], [grade for _, grade in both]


def _further(items: Sentences) -> tuple[str, ...]:
    return tuple(name for name in items.columns if name not in {*LABEL_COLUMNS, *OWN_COLUMNS})


def _human(items: Sentences) -> tuple[str, ...]:
    return ("human_label",) if any(row.human is not None for row in items.rows) else ()


def _columns(items: Sentences, *, votes: int) -> tuple[str, ...]:
    own = ("label_votes", "label_spread") if votes > 1 else ()
    return (*LABEL_COLUMNS, *_further(items), *_human(items), *own)


def _unlabelled_columns(items: Sentences) -> tuple[str, ...]:
    return ("sentence", "reason", *_further(items), *_human(items))


def table_rows(
    items: Sentences, graded: Sequence[Graded], *, votes: int
) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Part sentences into rows with a grade and rows with the reason why not, each in order."""
    labelled: list[dict[str, object]] = []
    unlabelled: list[dict[str, object]] = []
    for item, one in zip(items.rows, graded, strict=True):
        row: dict[str, object] = {**item.more, "sentence": item.text, "human_label": item.human}
        if one.grade is None:
            unlabelled.append({**row, "reason": one.reason})
            continue
        row["concept_strength_label"] = one.grade
        if votes > 1:
            row |= {"label_votes": "|".join(map(str, one.votes)), "label_spread": one.spread}
        labelled.append(row)
    return labelled, unlabelled


def write_parts(
    path: Path,
    columns: Sequence[str],
    labelled: Sequence[dict[str, object]],
    unlabelled: Sequence[dict[str, object]],
    unlabelled_columns: Sequence[str],
) -> Path | None:
    """Write the graded rows to ``path`` and the others beside it; return where those are, None when there are none."""
    rest = beside(path, "unlabelled.csv")
    if unlabelled:
        write_csv(rest, unlabelled_columns, unlabelled)
    write_csv(path, columns, labelled)
    if not unlabelled:
        rest.unlink(missing_ok=True)  # what an earlier run left there is graded now
    return rest if unlabelled else None


def frame_of(rows: Sequence[dict[str, object]], columns: Sequence[str]) -> pl.DataFrame:
    """Return rows as a data frame; grades are numbers, everything else is text."""
    kinds = dict.fromkeys(("concept_strength_label", "human_label", "intended_label", "label_spread"), pl.Int8)
    return pl.DataFrame(
        [
            pl.Series(
                name,
                [row.get(name) if name in kinds else _text(row.get(name)) for row in rows],
                dtype=kinds.get(name, pl.String),
            )
            for name in columns
        ]
    )


def _text(value: object) -> str | None:
    return None if value is None else str(value)
