"""``generate``: a data set written by a language model from a few seeds, then graded independently of what was aimed at."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from conceptatlas.base.errors import InputError
from conceptatlas.base.progress import progress_bar
from conceptatlas.base.provenance import write_run
from conceptatlas.concepts.agreement import Agreement, agreement
from conceptatlas.concepts.annotating import LABEL_COLUMNS, AnnotateOptions, frame_of, write_parts
from conceptatlas.concepts.builtin import TRAITS, concept_text
from conceptatlas.concepts.grading import Graded, Grader
from conceptatlas.concepts.loading import load_concept
from conceptatlas.concepts.model import GRADES, ITEM_COLUMNS, Concept
from conceptatlas.concepts.similarity import NearDuplicates
from conceptatlas.concepts.worklog import WorkLog
from conceptatlas.concepts.writing import beside, check_out
from conceptatlas.concepts.writing_prompts import read_sentences_answer, writing_instructions, writing_request
from conceptatlas.llm import LLM, Ask, BadAnswer, ChatRequest, NoAnswer

PATIENCE = 3  # rounds in which a grade may gain next to nothing before the model counts as unable to
LEAST_YIELD = 0.05  # share of the texts asked for in those rounds that must have become of that grade
MOST_ASKED = 4.0  # no more than this many times the shortfall is asked for in one round
_WRITING_TRIES = 2


@dataclass(frozen=True)
class GenerateOptions:
    """What to write.

    Attributes:
        concept: The concept's name; built-in traits bring description, rubric and seeds.
        counts: Texts wanted of each grade, seeds not counted.
        seeds: Graded examples (see ``load_concept``); a built-in trait's own where None.
        describe: What the concept is.
        rubric: A file with the rubric.
        batch_size: Texts in one question, when writing and when grading.
        votes: Independent grades of each text; the median counts. Odd.
        seed: Draws the examples, settings and forms of each question.
        cache_folder: Where answers are kept; the user's cache folder where None.
    """

    concept: str
    counts: Mapping[int, int]
    seeds: str | Path | None = None
    describe: str | None = None
    rubric: Path | None = None
    batch_size: int = 20
    votes: int = 1
    seed: int = 0
    cache_folder: Path | None = None

    def __post_init__(self) -> None:
        wrong = {grade: count for grade, count in self.counts.items() if grade not in GRADES or count < 0}
        if wrong:
            raise InputError(f"Texts wanted of each grade must be 0 or more for grades 0 to 3, not {wrong}.")
        if self.seeds is None and self.concept not in TRAITS:
            raise InputError(f"{self.concept!r} has no built-in seeds; give some with --seed-file.")

    def load_seeds(self) -> Concept:
        """Return the seeds."""
        return load_concept(self.seeds if self.seeds is not None else f"seeds:{self.concept}", name=self.concept)

    def grading(self) -> AnnotateOptions:
        """Return how the texts are graded."""
        return AnnotateOptions(
            concept=self.concept,
            describe=self.describe,
            rubric=self.rubric,
            batch_size=self.batch_size,
            votes=self.votes,
            cache_folder=self.cache_folder,
        )

    def instructions(self) -> str:
        """Return the standing instructions for writing."""
        return writing_instructions(
            self.concept, *concept_text(self.concept, describe=self.describe, rubric_file=self.rubric)
        )


@dataclass(frozen=True)
class Generated:
    """What ``generate`` did.

    Attributes:
        out: The CSV: seeds first, then what was written.
        unlabelled_out: The CSV of texts without a valid grade, None when there are none.
        table: The rows of ``out``.
        unlabelled: The rows without a grade.
        wanted: Texts wanted, by grade.
        got: Texts written and graded so, by the grade that the labeller gave.
        duplicates: Near-duplicates that were dropped.
        gave_up: Grades that the model clearly cannot fill.
        agreement: Of the labeller with the seeds' own labels.
        stopped: Why the model was not asked to the end, or empty.
        usage: What was asked and what it cost, in one line.
    """

    out: Path
    unlabelled_out: Path | None
    table: pl.DataFrame
    unlabelled: pl.DataFrame
    wanted: Mapping[int, int]
    got: Mapping[int, int]
    duplicates: int
    gave_up: tuple[int, ...]
    agreement: Agreement
    stopped: str
    usage: str


@dataclass
class _Progress:
    """Per grade: (asked for, gained) of each round so far."""

    rounds: dict[int, list[tuple[int, int]]] = field(default_factory=lambda: {grade: [] for grade in GRADES})

    def to_ask(self, grade: int, shortfall: int) -> int:
        """Return how many texts to ask for: more than are wanting when many became of another grade."""
        asked, gained = (sum(part) for part in zip(*self.rounds[grade], strict=True)) if self.rounds[grade] else (0, 0)
        rate = gained / asked if asked else 1.0
        return math.ceil(shortfall * min(MOST_ASKED, 1 / rate if rate else MOST_ASKED))

    def hopeless(self, grade: int) -> bool:
        """Say whether the last rounds gained next to nothing."""
        last = self.rounds[grade][-PATIENCE:]
        return len(last) == PATIENCE and sum(g for _, g in last) < LEAST_YIELD * sum(a for a, _ in last)


class _Run:
    """One run: rounds of writing and grading until the counts are met or clearly cannot be."""

    def __init__(self, options: GenerateOptions, llm: LLM, log: WorkLog, seeds: Concept, grader: Grader) -> None:
        self.options, self.llm, self.log, self.seeds, self.grader = options, llm, log, seeds, grader
        self.instructions = options.instructions()
        self.graded: dict[str, Graded] = {}
        self.near = NearDuplicates()
        for text in [*seeds.texts, *(text for text, _ in log.texts)]:
            self.near.add(text)
        self.progress = _Progress()

    def got(self) -> Counter[int]:
        """Return the texts of each grade so far, by the labeller's grade."""
        grades = (self.graded[text].grade for text, _ in self.log.texts if text in self.graded)
        return Counter(grade for grade in grades if grade is not None)

    def run(self) -> None:
        """Write and grade until done."""
        self._grade()
        wanted = self.options.counts
        with progress_bar("writing", total=sum(wanted.values())) as bar:
            bar.advance(self._filled())
            while plan := self._plan():
                before, filled = self.got(), self._filled()
                self._write(plan)
                self._grade()
                after = self.got()
                for grade, asked in plan.items():
                    self.progress.rounds[grade].append((asked, after[grade] - before[grade]))
                bar.advance(self._filled() - filled)

    def _filled(self) -> int:
        got = self.got()
        return sum(min(count, got[grade]) for grade, count in self.options.counts.items())

    def _plan(self) -> dict[int, int]:
        """Return how many texts to ask for of each grade in the next round; none when there is nothing left to do."""
        if self.llm.stopped is not None:
            return {}
        got = self.got()
        short = {grade: count - got[grade] for grade, count in self.options.counts.items() if count > got[grade]}
        return {g: self.progress.to_ask(g, n) for g, n in short.items() if not self.progress.hopeless(g)}

    def requests(self, plan: Mapping[int, int]) -> list[tuple[int, ChatRequest]]:
        """Return the requests of a round, each with the grade aimed at."""
        made = []
        for grade, wanted in sorted(plan.items(), reverse=True):
            examples = [text for text, label in zip(self.seeds.texts, self.seeds.labels, strict=True) if label == grade]
            avoid = [text for text, intended in self.log.texts if intended == grade]
            for k in range(math.ceil(wanted / self.options.batch_size)):
                request = writing_request(
                    self.instructions,
                    grade,
                    min(self.options.batch_size, wanted - k * self.options.batch_size),
                    examples=examples,
                    avoid=avoid,
                    number=self.log.asked.get(grade, 0) + k,
                    seed=self.options.seed,
                )
                made.append((grade, request))
        return made

    def _write(self, plan: Mapping[int, int]) -> None:
        requests = self.requests(plan)
        asks = [Ask(request, read_sentences_answer) for _, request in requests]
        stream = self.llm.ask_all(asks, tries=_WRITING_TRIES)
        answers = dict(stream)
        for index, (grade, request) in enumerate(requests):  # in the order of asking, whatever that of answering
            written = answers[index]
            if isinstance(written, NoAnswer) and not isinstance(written, BadAnswer):
                continue  # it counts as not asked, so that a rerun asks the same
            self.log.asked[grade] = request.sample + 1
            for text in [] if isinstance(written, NoAnswer) else written:
                if self.near.has_near(text):
                    self.log.duplicates += 1
                    continue
                self.near.add(text)
                self.log.texts.append((text, grade))
        self.log.save()

    def _grade(self) -> None:
        """Grade what this run has not tried yet (an earlier run's failures are tried again, once)."""
        texts = [text for text, _ in self.log.texts if text not in self.graded]
        self.graded.update(zip(texts, self.grader.grade(texts), strict=True))


def generate(out: str | Path, *, options: GenerateOptions, llm: LLM) -> Generated:
    """Write a graded data set with a language model.

    Per grade, in batches, shown seeds of that grade; near-duplicates are dropped; every text is then graded without
    regard to the grade aimed at, and the labeller's grade wins. Grades that are short are topped up until the counts are
    met or the model clearly cannot. Run again, the work goes on where it stopped.

    Args:
        out: The CSV to write: ``sentence, concept_strength_label, intended_label, origin`` (seed or generated), the
            seeds' further columns, and ``label_votes, label_spread`` where there are several votes. Beside it stand
            ``.unlabelled.csv``, ``.work.json`` (what was written so far) and ``.run.json``.
        options: What to write.
        llm: The client.

    Raises:
        InputError: The seeds or options are unusable, or the work beside ``out`` was made with others.
    """
    path = Path(out)
    check_out(path, *([options.seeds] if options.seeds is not None else []))
    seeds = options.load_seeds()
    grader = options.grading().grader(llm)
    run = _Run(options, llm, WorkLog.open(beside(path, "work.json"), _settings(options, llm, seeds)), seeds, grader)
    graded_seeds = grader.grade(seeds.texts)
    run.run()
    return _finish(path, run, graded_seeds)


def plan_generation(*, options: GenerateOptions, llm: LLM) -> tuple[list[ChatRequest], int]:
    """Return the requests of the first round of writing, and about how many calls grading will take."""
    seeds = options.load_seeds()
    grader = options.grading().grader(llm)
    run = _Run(options, llm, WorkLog(Path(), {}), seeds, grader)
    wanted = {grade: count for grade, count in options.counts.items() if count}
    texts = sum(wanted.values()) + len(seeds)
    return [r for _, r in run.requests(wanted)], options.votes * math.ceil(texts / options.batch_size)


def _settings(options: GenerateOptions, llm: LLM, seeds: Concept) -> dict[str, object]:
    return {
        "concept": options.concept,
        "description or rubric": hashlib.sha256(options.instructions().encode()).hexdigest()[:16],
        "seed file": seeds.data_hash[:16],
        "model": llm.model.name,
        "endpoint": llm.model.endpoint,
        "seed": options.seed,
    }


def _finish(path: Path, run: _Run, graded_seeds: Sequence[Graded]) -> Generated:
    options, seeds = run.options, run.seeds
    further = _further(seeds)
    labelled = _seed_rows(seeds, further)
    unlabelled: list[dict[str, object]] = []
    for text, intended in run.log.texts:
        one = run.graded[text]
        row: dict[str, object] = {"sentence": text, "intended_label": intended, "origin": "generated"}
        if one.grade is None:
            unlabelled.append({**row, "reason": one.reason})
        else:
            votes = {"label_votes": "|".join(map(str, one.votes)), "label_spread": one.spread}
            labelled.append({**row, "concept_strength_label": one.grade, **votes})
    votes_columns = ("label_votes", "label_spread") if options.votes > 1 else ()
    columns = (*LABEL_COLUMNS, "intended_label", "origin", *further, *votes_columns)
    unlabelled_columns = ("sentence", "reason", "intended_label", "origin")
    unlabelled_out = write_parts(path, columns, labelled, unlabelled, unlabelled_columns)
    both = [
        (int(human), one.grade) for human, one in zip(seeds.labels, graded_seeds, strict=True) if one.grade is not None
    ]
    agreed = agreement([human for human, _ in both], [grade for _, grade in both])
    got = run.got()
    result = Generated(
        out=path,
        unlabelled_out=unlabelled_out,
        table=frame_of(labelled, columns),
        unlabelled=frame_of(unlabelled, unlabelled_columns),
        wanted=dict(options.counts),
        got={grade: got[grade] for grade in GRADES},
        duplicates=run.log.duplicates,
        gave_up=tuple(
            grade for grade in GRADES if got[grade] < options.counts.get(grade, 0) and run.progress.hopeless(grade)
        ),
        agreement=agreed,
        stopped=str(run.llm.stopped or ""),
        usage=run.llm.summary(),
    )
    write_run(
        path.parent,
        command="generate",
        options={key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()},
        file=beside(path, "run.json").name,
        settings=dict(run.log.settings),
        counts={"got": result.got, "unlabelled": len(unlabelled), "near-duplicates dropped": result.duplicates},
        agreement_with_seeds=vars(agreed),
    )
    return result


def _further(seeds: Concept) -> tuple[str, ...]:
    """Return the seeds' columns that are carried over: group and split where the seeds have them, and all further ones."""
    items = seeds.items
    given = {"group": not items["group"].str.starts_with("text:").all(), "split": items["split"].is_not_null().any()}
    own = {"intended_label", "origin", "label_votes", "label_spread", *LABEL_COLUMNS}
    more = [name for name in items.columns if name not in ITEM_COLUMNS and name not in own]
    return (*(name for name, there in given.items() if there), *more)


def _seed_rows(seeds: Concept, further: Sequence[str]) -> list[dict[str, object]]:
    rows = []
    for item in seeds.items.iter_rows(named=True):
        row: dict[str, object] = {name: item[name] for name in further}
        if str(row.get("group", "")).startswith("text:"):
            row["group"] = None
        label = item["label"]
        rows.append(
            {
                "sentence": item["text"],
                "concept_strength_label": label,
                "intended_label": label,
                "origin": "seed",
                **row,
            }
        )
    return rows
