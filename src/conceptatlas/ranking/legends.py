"""What the columns and marks of a table mean: the same words in the terminal, the report, the explorer and notebooks.

Each says on which items its figure was computed and how sure it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from conceptatlas.ranking.baselines import NOT_FITTED

if TYPE_CHECKING:
    from conceptatlas.ranking.figures import Figures

# A feature that comes back in fewer re-splits than this is called unstable.
UNSTABLE = 0.5
# Stands behind a figure of a baseline that is cross-validated, beside figures of features, which are not.
CROSS_VALIDATED = "†"
# How an item's rows become its score.
POOL_WORDS = {
    "final": "activation at the last token",
    "max": "largest activation in the sentence",
    "mean": "mean activation over the sentence",
}


def score_words(facts: Mapping[str, Any]) -> str:
    """Return what an item's score is."""
    sinks = ", without attention sinks" if facts["options"].get("without_sinks") else ""
    return POOL_WORDS[facts["pool"]] + sinks


def marks_of(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the cautions that stand beside a feature's name: (mark, what it means of this feature)."""
    out = []
    if row.get("direction") == "down":
        out.append(
            ("falls", "its score falls as the grade rises, so that an AUROC or C below 0.5 is the better the lower")
        )
    if row.get("dense"):
        share = row.get("density")
        out.append(("dense", f"active on {share:.0%} of the recorded rows, so that it seldom stands for one thing"))
    if row.get("confounded"):
        out.append(
            (
                "confounded",
                "more than half of its correlation with the grade goes with sentence length, token count and the words "
                "alone (bag of words)",
            )
        )
    back = row.get("comes_back")
    if back is not None and back < UNSTABLE:
        out.append(("unstable", f"it comes back in {back:.0%} of the random re-splits of the discovery items"))
    low, high = row.get("auroc_holdout_low"), row.get("auroc_holdout_high")
    if low is not None and high is not None and (high >= 0.5 if row.get("direction") == "down" else low <= 0.5):
        out.append(
            ("not held", f"the 95% interval of its hold-out AUROC, {low:.2f} to {high:.2f}, does not lie beyond 0.5")
        )
    return out


def held_items(facts: Mapping[str, Any]) -> str:
    """Return how many held-out items, in how many groups, the two grades compared have."""
    items, groups = facts["holdout_items"], facts["holdout_groups"]
    sides = []
    for grade in reversed(facts["grades"]):
        n_items, n_groups = items.get(str(grade), 0), groups.get(str(grade), 0)
        in_groups = f" in {n_groups} groups" if n_groups < n_items else ""
        sides.append(f"{n_items} of grade {grade}{in_groups}")
    return f"held-out items ({', '.join(sides)})"


def units(null: Mapping[str, Any]) -> str:
    """Return what was shuffled: ``of the grades over 120 items``."""
    if " within " in null["permuted"]:
        return f"of the grades among {null['n_units']:,} groups and within them"
    return f"of the grades over {null['n_units']:,} {null['permuted']}"


def filter_words(facts: Mapping[str, Any]) -> str:
    """Return the classic filters with the limits that were asked for."""
    options = facts["options"]
    pearson = {"up": f"Pearson ≥ {options['min_pearson']:g}", "down": f"Pearson ≤ {-options['min_pearson']:g}"}
    both = f"Pearson beyond ±{options['min_pearson']:g}"
    return (
        f"{pearson.get(options['direction'], both)}, means monotonic from "
        f"grade to grade, TPR ≥ {options['min_tpr']:g}, FPR ≤ {options['max_fpr']:g}"
    )


def failed(fails: str | None) -> list[str]:
    """Return the classic filters that a feature does not pass, by name: its column ``fails`` in short."""
    names = {"means": "monotonic", "tpr": "TPR", "fpr": "FPR"}
    heads = [part.split(" ")[0] for part in (fails or "").split("; ") if part]
    return [names.get(head, head) for head in heads]


def is_cross_validated(entry: Mapping[str, Any]) -> bool:
    """Return whether the AUROC on discovery of an entry of ``baselines.json`` comes from cross-validation."""
    return entry["auroc_discovery"] is not None and entry["baseline"] not in NOT_FITTED


# What a page heads each column of ``legend`` with; the terminal, which is narrow, takes the keys.
HEADS = {"held-out": "AUROC hold-out", "discovery": "AUROC discovery", "shuffles": "shuffles as good"}


def legend(ranking: Figures) -> dict[str, str]:
    """Return what each column of a table of features or baselines means, with its items and its uncertainty.

    The keys are the columns' names in the terminal (``HEADS`` has those of pages).
    """
    facts, null = ranking.facts, ranking.null
    low, high = facts["grades"]
    found = f"the {facts['n_discovery']:,} discovery items"
    turned = (
        "" if facts["options"]["direction"] == "up" else "; of a feature that falls, with the signs and grades turned"
    )
    out = {}
    if facts["n_holdout"]:
        out["held-out"] = (
            f"how often an item of grade {high} scores above one of grade {low} (ties count one half, 0.5 is chance), on "
            f"{held_items(facts)} that chose nothing; with its 95% interval (Newcombe, by group)"
        )
        out["C"] = (
            f"concordance, the same over all pairs of different grade among the {facts['n_holdout']:,} held-out items; with "
            "its 95% interval"
        )
    out["discovery"] = (
        f"the AUROC on {found}, on which features were chosen: it flatters them, and has no interval; {CROSS_VALIDATED} of a "
        "baseline: cross-validated on these items"
    )
    out["Pearson"] = f"correlation of score and grade on {found}; no interval"
    out["score"] = (
        f"0.4 × Pearson + 0.3 × separation (mean of grade {high} − mean of grade {low}, in standard deviations) + 0.3 × "
        f"(TPR − FPR), on {found}{turned}; those that pass every classic filter come first, sorted by it, then "
        "the others; no interval"
    )
    out["L0"] = "mean active features a row of the whole SAE, as its own files state it; not of the feature"
    out["fails"] = (
        f"which of the classic filters it does not pass, on {found}: {filter_words(facts)}; TPR and FPR are the shares of "
        f"grade {high} and of grade {low} above the 95th percentile of grade {low}{turned}, so that FPR is hardly "
        "above 0.05 on "
        "these items; the feature's card has both on the hold-out"
    )
    if null.get("permutations"):
        out["shuffles"] = (
            f"in how many of {null['permutations']:,} shuffles {units(null)} some feature of the "
            f"{facts['counts']['searched']:,} searched reaches so high a Pearson correlation on {found}"
        )
    out["marks"] = (
        "dense: active on more than half of the recorded rows; confounded: more than half of its correlation with the grade "
        f"goes with length, token count and words; unstable: in fewer than {UNSTABLE:.0%} of "
        f"{facts['options'].get('resplits', 0)} random re-splits it is among the "
        f"first {facts['options'].get('top_n', 0)} again; "
        "falls: the score falls as the grade rises, so that an AUROC or C below 0.5 is the better the lower; "
        "not held: the 95% interval of its hold-out AUROC does not lie beyond 0.5 on its side"
    )
    return out


def legend_lines(ranking: Figures) -> list[str]:
    """Return the legend as a page shows it, a line for each column."""
    return [f"{HEADS.get(name, name)}: {said}." for name, said in legend(ranking).items()]
