"""The plain words of ``check``: each figure, what it means, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from conceptatlas.concepts.model import GRADES

if TYPE_CHECKING:
    from conceptatlas.concepts.check import ConceptCheck
    from conceptatlas.concepts.confounds import Confound

Level = Literal["fine", "note", "problem"]

FEW = 36  # best of 16,384 features of pure noise reaches AUROC 0.77 at 36 + 36 items (simulated)
LENGTH_NOTE, LENGTH_PROBLEM = (
    0.10,
    0.20,
)  # distance of the length AUROC, and of the near end of its interval, from one half
WORDS_SOME, WORDS_MUCH = 0.75, 0.90  # AUROC of a bag of words alone (of the whole interval, to say anything)
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
