"""What ``check`` found, and its plain words: each figure, what it means, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from conceptatlas.concepts.confounds import Confound
from conceptatlas.concepts.model import GRADES, BadRow

Level = Literal["fine", "note", "problem"]

FEW = 36  # best of 16,384 features of pure noise reaches AUROC 0.77 at 36 + 36 items (simulated)
LENGTH_NOTE, LENGTH_PROBLEM = (
    0.10,
    0.20,
)  # distance of the length AUROC, and of the near end of its interval, from one half
WORDS_SOME, WORDS_MUCH = 0.75, 0.90  # AUROC of a bag of words alone (of the whole interval, to say anything)
UNEVEN = 10
SHOWN_PAIRS = 20


@dataclass(frozen=True)
class Verdict:
    """One finding in plain words; ``problem`` means that figures from this data would mislead."""

    level: Level
    about: str
    text: str


@dataclass(frozen=True)
class TextPair:
    """Two items that are the same or nearly the same text, ``similarity`` being their Jaccard index (1: the same)."""

    first: int
    second: int
    label_first: int
    label_second: int
    similarity: float
    text_first: str
    text_second: str


@dataclass(frozen=True)
class ConceptCheck:
    """What ``check_concept`` found.

    Attributes:
        name: The concept.
        n_items, n_groups: Items, and groups that the split keeps together.
        label_counts: Items of each grade 0–3.
        words: Mean number of words of each grade (None where there is none).
        bad_rows: Rows that were dropped when the concept was loaded; those with no label among them are ``n_missing``.
        n_missing: Rows without a label.
        duplicates_within: Items whose text (but for case and punctuation) another item of the same label already has.
        duplicates_across: Items whose text another item of another label already has.
        n_near_across: Pairs of near-duplicates of different labels (exact ones not counted).
        n_near_straddling: Pairs of near-duplicates of the same label in different groups, which the split may part.
        n_near_groups: Groups that `record` joins because they hold near-duplicates; ``n_near_items`` their items,
            ``near_largest`` those of the largest group that comes of it, ``near_notes`` the same in words.
        near_complete: False when the comparison stopped at its limit or took a sample.
        pairs: The pairs across labels, most alike first, at most ``SHOWN_PAIRS``; exact ones included.
        length: How well the number of words alone predicts the label.
        bag_of_words: How well a bag of words alone does, out of fold, folds by group.
        verdicts: All of it in plain words.
    """

    name: str
    n_items: int
    n_groups: int
    label_counts: Mapping[int, int]
    words: Mapping[int, float | None]
    bad_rows: tuple[BadRow, ...]
    n_missing: int
    duplicates_within: int
    duplicates_across: int
    n_near_across: int
    n_near_straddling: int
    n_near_groups: int
    n_near_items: int
    near_largest: int
    near_notes: tuple[str, ...]
    near_complete: bool
    pairs: tuple[TextPair, ...]
    length: Confound
    bag_of_words: Confound
    verdicts: tuple[Verdict, ...] = field(default=())

    @property
    def highest(self) -> int:
        """The highest grade that is there."""
        return max((grade for grade, count in self.label_counts.items() if count), default=GRADES[-1])

    @property
    def lowest(self) -> int:
        """The lowest grade that is there."""
        return min((grade for grade, count in self.label_counts.items() if count), default=GRADES[0])

    @property
    def ok(self) -> bool:
        """True when no verdict is a problem."""
        return all(verdict.level != "problem" for verdict in self.verdicts)

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values, ready for JSON."""
        return asdict(self) | {"ok": self.ok, "highest": self.highest, "lowest": self.lowest}


def judge(check: ConceptCheck) -> tuple[Verdict, ...]:
    """Return the verdicts on a check's figures, in the order in which they are printed."""
    return tuple(
        verdict
        for rule in (_rows, _counts, _duplicates, _near, _joined, _straddling, _length, _words)
        if (verdict := rule(check)) is not None
    )


def _rows(check: ConceptCheck) -> Verdict | None:
    if not check.bad_rows:
        return Verdict("fine", "rows", "Every row is usable.")
    missing = f", {check.n_missing} of them without a label" if check.n_missing else ""
    return Verdict(
        "problem",
        "rows",
        f"Rows that cannot be used: {len(check.bad_rows)}{missing}; mend them, or use --skip-bad-rows.",
    )


def _counts(check: ConceptCheck) -> Verdict:
    counts = check.label_counts
    absent = [grade for grade in GRADES if not counts[grade]]
    high, low = check.highest, check.lowest
    least = min(counts[low], counts[high])
    if len(absent) == len(GRADES) - 1:
        return Verdict("problem", "labels", "All items have the same label: nothing can be ranked against it.")
    if least < FEW:
        return Verdict(
            "note",
            "labels",
            f"Only {least} items of label {high} or of label {low}: among thousands of features some will look good by "
            f"chance; aim at 200 each, and mind the max-statistic line.",
        )
    if absent:
        return Verdict(
            "note", "labels", f"No item of label {', '.join(map(str, absent))}: gradation is judged without."
        )
    if max(counts.values()) > UNEVEN * min(counts.values()):
        return Verdict("note", "labels", "One label has more than ten times the items of another.")
    return Verdict("fine", "labels", "All four labels are there, in workable numbers.")


def _duplicates(check: ConceptCheck) -> Verdict:
    if check.duplicates_across:
        return Verdict(
            "problem",
            "duplicates",
            f"Items that repeat a text of another label: {check.duplicates_across}; one of the two labels is wrong.",
        )
    if check.duplicates_within:
        return Verdict(
            "note",
            "duplicates",
            f"Items that repeat an earlier text of the same label (but for case and punctuation): "
            f"{check.duplicates_within}; they share a group, and count twice.",
        )
    return Verdict("fine", "duplicates", "No text stands twice.")


def _near(check: ConceptCheck) -> Verdict:
    limit = "" if check.near_complete else "at least "
    if check.n_near_across:
        return Verdict(
            "note",
            "near-duplicates",
            f"Pairs that differ in label and hardly in words: {limit}{check.n_near_across}. Good if meant (minimal pairs "
            "test meaning against words), wrong labels otherwise.",
        )
    partly = "" if check.near_complete else " in the part that was compared"
    return Verdict("fine", "near-duplicates", f"No near-duplicates across labels{partly}.")


def _joined(check: ConceptCheck) -> Verdict | None:
    if not check.near_notes:
        return None
    return Verdict("note", "near-duplicate groups", " ".join(check.near_notes))


def _straddling(check: ConceptCheck) -> Verdict | None:
    if not check.n_near_straddling:
        return None
    return Verdict(
        "note",
        "groups",
        f"Pairs of near-duplicates of one label in different groups: {check.n_near_straddling}; so a hold-out "
        "item may have its twin in discovery; give twins the same value in a group column.",
    )


def _figure(confound: Confound) -> str:
    return f"AUROC {confound.auroc:.2f} (95% interval {confound.auroc_low:.2f} to {confound.auroc_high:.2f})"


def _enough(check: ConceptCheck) -> bool:
    """Say whether both ends have items enough for a claim that something does not matter."""
    return min(check.label_counts[check.highest], check.label_counts[check.lowest]) >= FEW


def _length(check: ConceptCheck) -> Verdict:
    found, high, low = check.length, check.highest, check.lowest
    if found.auroc is None or found.auroc_low is None or found.auroc_high is None:
        return Verdict("note", "length", f"Not judged: {found.why_not}.")
    which = "longer" if found.auroc > 0.5 else "shorter"
    said = f"Sentence length alone tells {high} from {low} with {_figure(found)}"
    # The end of the interval that is nearer to one half, and the one that is farther from it.
    near = max(found.auroc_low - 0.5, 0.5 - found.auroc_high)
    far = max(found.auroc_high - 0.5, 0.5 - found.auroc_low)
    if near >= LENGTH_NOTE and abs(found.auroc - 0.5) >= LENGTH_PROBLEM:
        return Verdict(
            "problem",
            "length",
            f"{said}: label {high} is {which}. Even them out, or a feature that counts words will rank high.",
        )
    if near > 0 and abs(found.auroc - 0.5) >= LENGTH_NOTE:
        return Verdict("note", "length", f"{said}: label {high} is somewhat {which} than label {low}.")
    if far < LENGTH_PROBLEM and _enough(check):
        return Verdict("fine", "length", f"{said}: it says little about the label.")
    return Verdict("note", "length", f"{said}: too few items to say whether length matters.")


def _words(check: ConceptCheck) -> Verdict:
    found = check.bag_of_words
    if found.auroc is None or found.auroc_low is None or found.auroc_high is None:
        return Verdict("note", "words", f"A bag of words was not judged: {found.why_not}.")
    said = f"A bag of words alone tells {check.highest} from {check.lowest} with {_figure(found)}"
    if found.auroc_low >= WORDS_SOME and found.auroc >= WORDS_MUCH:
        return Verdict(
            "note",
            "words",
            f"{said}: a feature that stands for a few words would do as well as one for the concept. Add "
            f"items of label {check.lowest} with the same words, and compare with the bag-of-words line of the ranking.",
        )
    if found.auroc_low > 0.5 and found.auroc >= WORDS_SOME:
        return Verdict("note", "words", f"{said}: part of the concept can be read off single words.")
    if found.auroc_high < WORDS_SOME and _enough(check):  # with few items the figure out of fold is biased downwards
        return Verdict("fine", "words", f"{said}: telling them apart takes more than words.")
    return Verdict("note", "words", f"{said}: too few items, or too middling a figure, to say how far words go.")
