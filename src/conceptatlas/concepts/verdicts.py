"""The plain words of ``check``: each figure, what it means, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from conceptatlas.concepts.model import GRADES

if TYPE_CHECKING:
    from conceptatlas.concepts.check import ConceptCheck

Level = Literal["fine", "note", "problem"]

FEW = 36  # best of 16,384 features of pure noise reaches AUROC 0.77 at 36 + 36 items (simulated)
LENGTH_NOTE, LENGTH_PROBLEM = 0.10, 0.20  # distance of the length AUROC from one half
WORDS_SOME, WORDS_MUCH = 0.75, 0.90  # AUROC of a bag of words alone
UNEVEN = 10


@dataclass(frozen=True)
class Verdict:
    """One finding in plain words; ``problem`` means that figures from this data would mislead."""

    level: Level
    about: str
    text: str


def judge(check: ConceptCheck) -> tuple[Verdict, ...]:
    """Return the verdicts on a check's figures, in the order in which they are printed."""
    return tuple(
        verdict
        for rule in (_rows, _counts, _duplicates, _near, _straddling, _length, _words)
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
    least = min(counts[GRADES[0]], counts[GRADES[-1]])
    if len(absent) == len(GRADES) - 1:
        return Verdict("problem", "labels", "All items have the same label: nothing can be ranked against it.")
    if not least:
        return Verdict("problem", "labels", "Label 3 or label 0 has no item: no AUROC can be given; add some.")
    if least < FEW:
        return Verdict(
            "note",
            "labels",
            f"Only {least} items of label 3 or of label 0: among thousands of features some will look good by chance; "
            f"aim at 200 each, and mind the max-statistic line.",
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
            f"Items that repeat an earlier text of the same label: {check.duplicates_within}; they count twice.",
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


def _straddling(check: ConceptCheck) -> Verdict | None:
    if not check.n_near_straddling:
        return None
    return Verdict(
        "note",
        "groups",
        f"Pairs of near-duplicates of one label in different groups: {check.n_near_straddling}; so a hold-out "
        "item may have its twin in discovery; give twins the same value in a group column.",
    )


def _length(check: ConceptCheck) -> Verdict:
    auroc = check.length.auroc
    if auroc is None:
        return Verdict("note", "length", "Not judged: label 3 or label 0 has no item.")
    which = "longer" if auroc > 0.5 else "shorter"
    if abs(auroc - 0.5) >= LENGTH_PROBLEM:
        few = min(check.label_counts[GRADES[0]], check.label_counts[GRADES[-1]]) < FEW  # so it may be chance
        return Verdict(
            "note" if few else "problem",
            "length",
            f"Sentence length alone tells 3 from 0 with AUROC {auroc:.2f}: label 3 is {which}. Even them out, or a "
            "feature that counts words will rank high.",
        )
    if abs(auroc - 0.5) >= LENGTH_NOTE:
        return Verdict("note", "length", f"Label 3 is somewhat {which} than label 0 (AUROC of length {auroc:.2f}).")
    return Verdict("fine", "length", f"Length says little about the label (AUROC {auroc:.2f}).")


def _words(check: ConceptCheck) -> Verdict:
    auroc = check.bag_of_words.auroc
    if auroc is None:
        return Verdict("note", "words", f"A bag of words was not judged: {check.bag_of_words.why_not}.")
    said = f"A bag of words alone tells 3 from 0 with AUROC {auroc:.2f}"
    if auroc >= WORDS_MUCH:
        return Verdict(
            "note",
            "words",
            f"{said}: a feature that stands for a few words would do as well as one for the concept. Add "
            f"label-0 items with the same words, and compare with the bag-of-words line of the ranking.",
        )
    if auroc >= WORDS_SOME:
        return Verdict("note", "words", f"{said}: part of the concept can be read off single words.")
    return Verdict("fine", "words", f"{said}: telling them apart takes more than words.")
