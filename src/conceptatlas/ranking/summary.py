"""What a ranking says, in sentences: the same ones in the terminal, in the report, in the explorer and in notebooks.

Each figure comes with the items that it was computed on, what it is compared with, and its uncertainty. Nothing is
said of a feature before it is said whether the search as a whole found more than chance would.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import polars as pl

from conceptatlas.ranking.legends import held_items, marks_of, score_words, units
from conceptatlas.ranking.sentences import Sentence
from conceptatlas.ranking.strata import same_stratum, worst_stratum

if TYPE_CHECKING:
    from conceptatlas.ranking.figures import Figures as Ranking

# A finding is one whose p-value, for the whole search, is at most this.
SIGNIFICANT = 0.05
# Fewer independent groups of a grade than this on the hold-out, and the summary says so.
FEW_GROUPS = 10
# What a baseline is called that reads the first feature of the table and nothing else.
SAME_FEATURE = "the same feature as rank 1"
# The share of intervals that lie beyond ½ on the side looked at where nothing is there: the upper tail of a 95% interval.
HOLD_BY_CHANCE = 0.025
# Where both AUROCs are at least this, nothing is left to tell them apart by.
CEILING = 0.9995
# Marks of the first feature that its own sentence says already, with figures.
SAID = ("falls", "not held")
# Baselines that a sentence names at most; the table has the rest.
NAMED = 4


def rising(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a feature's row with its hold-out figures counted in the direction in which it was judged.

    The AUROC and concordance of a feature that falls with the concept are below ½; turned round they compare with others.
    """
    out = dict(row)
    if row.get("direction") != "down":
        return out
    for name in [name for name in row if name.startswith(("auroc", "concordance"))]:
        out[name] = None if row[name] is None else 1 - row[name]
    for name in [name for name in row if name.startswith(("auroc", "concordance")) and name.endswith("_low")]:
        high = name[: -len("_low")] + "_high"
        out[name], out[high] = out[high], out[name]
    return out


def summarise(ranking: Ranking) -> list[Sentence]:
    """Return the summary of a ranking, most important sentence first."""
    if not ranking.features.height:
        counts = ranking.facts.get("counts", {})
        return [
            Sentence(
                "chance",
                f"None of the {counts.get('searched', 0):,} features searched varies over the discovery items, so that "
                "there is nothing to rank.",
            )
        ]
    best = rising(ranking.features.row(0, named=True))
    out = [_chance(ranking), *_holds(ranking), _best(ranking, best)]
    out += _baselines(ranking)
    out += _truth(ranking)
    out += _sets(ranking)
    out += _strata(ranking, best)
    out += _judged(ranking, best)
    out += _filters(ranking, best)
    out += [Sentence("caution", text) for text in _cautions(ranking, best)]
    return _without_claims(out) if exceeds_chance(ranking) is False else out


def _without_claims(sentences: list[Sentence]) -> list[Sentence]:
    """Return a summary in which nothing is claimed of the best feature: it stands first by chance."""
    kept = [sentence for sentence in sentences if sentence.kind in ("chance", "caution")]
    kept.insert(
        1, Sentence("best", "The table shows the features that come first all the same; none of them is a finding.")
    )
    return kept


def exceeds_chance(ranking: Ranking) -> bool | None:
    """Return whether some feature has a p-value of 0.05 or less for the whole search; None without permutations."""
    p_max = ranking.features["p_max"].min() if ranking.features.height else None
    if p_max is None:
        return None if not ranking.null.get("permutations") else False
    return float(p_max) <= SIGNIFICANT  # type: ignore[arg-type]


def first_feature(ranking: Ranking) -> str:
    """Return what the first feature of the table may be called: the best only where it is a finding."""
    return "the first feature of the table" if exceeds_chance(ranking) is False else "the best feature"


def against_title(ranking: Ranking) -> str:
    """Return the title of the table of comparisons."""
    return f"{upper_first(first_feature(ranking))} against each baseline, on the same held-out items"


def upper_first(text: str) -> str:
    """Return a text with its first letter upper case."""
    return text[0].upper() + text[1:]


def shuffles(p_value: float, permutations: int) -> str:
    """Return a permutation p-value as what was counted: ``0 of 1,000 shuffles``."""
    return f"{round(p_value * (1 + permutations)) - 1:,} of {permutations:,} shuffles"


def _chance(ranking: Ranking) -> Sentence:
    null, facts = ranking.null, ranking.facts
    count, searched = null.get("permutations", 0), facts["counts"]["searched"]
    if not count:
        return Sentence("chance", "Chance was not judged, because no permutations were asked for (--permutations).")
    least = ranking.features["p_max"].min()
    assert isinstance(least, float)
    floor = null.get("smallest_p", 0.0)
    if floor > SIGNIFICANT:
        return Sentence(
            "chance",
            f"Nothing here can be told from chance: the data allow so few different shuffles {units(null)} that p cannot "
            f"fall below {floor:.2f}; label more independent groups.",
        )
    on = f"the {facts['n_discovery']:,} discovery items"
    what = f"the Pearson correlation of {score_words(facts)} and grade on {on}"
    reached = f"{_best_pearson(ranking):.2f}"
    if least > SIGNIFICANT:
        return Sentence(
            "chance",
            f"Nothing here exceeds chance: in {shuffles(least, count)} {units(null)}, some feature of the {searched:,} "
            f"searched follows the shuffled grades as well as the best one follows the real ones ({what}: {reached}; chance "
            f"ends at {null['pearson_95']:.2f}, below which the best of all features stays in 95% of the shuffles).",
        )
    more = facts["counts"]["beyond_chance"]
    return Sentence(
        "chance",
        f"{more:,} of the {searched:,} features searched follow{'s' if more == 1 else ''} the grades more closely than "
        f"chance explains: {what} exceeds {null['pearson_95']:.2f}, below which the best of all features stays in "
        f"95% of the shuffles {units(null)}. The best one's {reached} is reached in {shuffles(least, count)}.",
    )


def _best_pearson(ranking: Ranking) -> float:
    """Return the highest correlation of the table, each in the direction in which its feature is judged."""
    sign = pl.when(pl.col("direction") == "down").then(-1.0).otherwise(1.0)
    return float(ranking.features.select((sign * pl.col("pearson_corr")).max()).item())


def _holds(ranking: Ranking) -> list[Sentence]:
    """Say how many of the features beyond chance hold on the hold-out."""
    counts = ranking.facts["counts"]
    looked, holds = counts.get("held_of", 0), counts.get("holds", 0)
    if not looked:
        return []
    low, high = ranking.facts["grades"]
    which = f"Of these {looked:,}" if looked == counts["beyond_chance"] else f"Of the {looked:,} closest of these"
    return [
        Sentence(
            "holds",
            f"{which}, {holds:,} hold{'s' if holds == 1 else ''} on the hold-out: the 95% interval of the AUROC of grade "
            f"{high} against grade {low}, on {held_items(ranking.facts)}, lies beyond 0.5 in the same direction "
            f"(of {looked:,} that follow nothing, about {looked * HOLD_BY_CHANCE:.2g} would).",
        )
    ]


def _best(ranking: Ranking, best: Mapping[str, Any]) -> Sentence:
    low, high = ranking.facts["grades"]
    named = f"Feature {best['feature_id']} of {best['sae_id']} (layer {best['layer']})"
    if best["direction"] == "down":
        named += ", which falls with the concept,"
    if best["auroc_holdout"] is None:
        return Sentence(
            "best",
            f"{named} tells grade {high} from grade {low} with AUROC {best['auroc']:.3f} on the items that it was chosen "
            "on; nothing was held out, so that this is no evidence for new items.",
        )
    text = f"{named} tells grade {high} from grade {low} with AUROC {best['auroc_holdout']:.3f}"
    text += _interval(best["auroc_holdout_low"], best["auroc_holdout_high"])
    text += f" on {held_items(ranking.facts)} that had no part in choosing it"
    if by := ranking.facts["options"].get("holdout_by"):
        text += f" (whole values of {by} were held out)"
    if best["concordance_holdout"] is not None and len(ranking.facts["holdout_items"]) > 2:
        text += f"; over all grades its concordance is {best['concordance_holdout']:.3f}"
        text += _interval(best["concordance_holdout_low"], best["concordance_holdout_high"])
    return Sentence("best", text + ".")


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" (95% interval {low:.2f}–{high:.2f})"


def _baselines(ranking: Ranking) -> list[Sentence]:
    parts = []
    for entry in ranking.comparisons:
        if not entry["strongest"] and not entry["control"]:
            continue
        role = "the strongest baseline on discovery, " if entry["strongest"] else "the control, "
        where = f" at {entry['site']}" if entry["site"] else ""
        parts.append(
            f"{entry['relation']} {role}{entry['name']}{where} ({_draws(ranking, entry)}AUROC {entry['auroc_baseline']:.3f} "
            f"on the same items; difference {entry['difference']:+.3f}, 95% interval {entry['low']:+.2f} to "
            f"{entry['high']:+.2f}, p = {entry['p_holm']:.2g} after Holm over {len(ranking.comparisons)} baselines)"
        )
    out = [Sentence("baselines", f"It {', and '.join(parts)}.{_ceiling(ranking)}")] if parts else []
    out += _ties(ranking)
    reasons = {entry["why_not"] for entry in ranking.baselines if not entry.get("comparable", True)}
    out += [Sentence("caution", f"Some baselines are compared with nothing: {reason}.") for reason in sorted(reasons)]
    return out


def _ceiling(ranking: Ranking) -> str:
    """Say where the feature and the strongest baseline are both so good that AUROC cannot rank them."""
    for entry in ranking.comparisons:
        if (
            entry["strongest"]
            and min(entry["auroc_baseline"], entry["auroc_baseline"] + entry["difference"]) >= CEILING
        ):
            return " The feature and the strongest baseline are at the ceiling, where AUROC cannot rank them."
    return ""


def _draws(ranking: Ranking, compared: Mapping[str, Any]) -> str:
    """Say of which draws a random control is the middle one: ``median of 5 draws, 0.55 to 0.68; ``."""
    for entry in ranking.baselines:
        if (entry["name"], entry["site"] or "") == (compared["name"], compared["site"] or "") and entry.get("draws"):
            return f"median of {entry['draws']} draws, {entry['draws_min']:.2f} to {entry['draws_max']:.2f}; "
    return ""


def _ties(ranking: Ranking) -> list[Sentence]:
    """Say which baselines are as strong as the strongest, and which one is the best feature itself."""
    parts = []
    tied = [entry["name"] for entry in ranking.comparisons if entry.get("tied")]
    if tied:
        more = f"; and {len(tied) - NAMED} more" if len(tied) > NAMED else ""
        parts.append(
            f"The strongest baseline cannot be told apart, by the same test, from: {'; '.join(tied[:NAMED])}{more}."
        )
    same = [entry["name"] for entry in ranking.baselines if is_first(ranking, entry)]
    if ranking.comparisons:
        parts.append("Of each kind of baseline, the site and k that are best on discovery are compared.")
    if same and ranking.comparisons:
        parts.append(f"Left out, because it reads the best feature and nothing else: {same[0]}.")
    return [Sentence("baselines", " ".join(parts))] if parts else []


def is_first(ranking: Ranking, entry: Mapping[str, Any]) -> bool:
    """Return whether a baseline is the first feature of the table under another name (a k-sparse probe with k = 1)."""
    if entry.get("feature_id") is None or not ranking.features.height:
        return False
    first = ranking.features.row(0, named=True)
    return (entry["slug"], entry["feature_id"]) == (first["slug"], first["feature_id"])


def _truth(ranking: Ranking) -> list[Sentence]:
    """Say what the true degrees of the built-in sentences reach: the most that a method can be expected to."""
    truth = ranking.facts.get("truth") or {}
    if truth.get("auroc_holdout") is None:
        return []
    text = (
        "The truth (the degree that each built-in sentence was made with, before the graders' errors were added) reaches "
        f"AUROC {truth['auroc_holdout']:.3f}{_interval(truth['low'], truth['high'])}"
    )
    if truth["concordance_holdout"] is not None:
        text += f" and concordance {truth['concordance_holdout']:.3f}"
        text += _interval(truth["concordance_low"], truth["concordance_high"])
    return [
        Sentence("truth", f"{text} on the same held-out items: about the most that a method can be expected to reach.")
    ]


def _strata(ranking: Ranking, best: Mapping[str, Any]) -> list[Sentence]:
    """Say which kind of low item the best feature is told from least well, and how the strongest baseline fares there."""
    named = {"slug": best["slug"], "feature_id": best["feature_id"]}
    worst = worst_stratum(ranking.strata, **named)
    if worst is None:
        return []
    rows = [
        row
        for row in ranking.strata["rows"]
        if row["comparison"] == "against" and all(row.get(key) == value for key, value in named.items())
    ]
    figures, values = [row["auroc"] for row in rows], len(rows)
    low, high = worst["grades"]
    if values > 1 and min(figures) == max(figures):
        least = min(rows, key=lambda row: row["n_low"])
        text = (
            f"Against the items of grade {low} by {ranking.strata['column']}, the AUROC of rank 1 is {worst['auroc']:.3f} "
            f"for each of the {values} values; "
            f"the least of them has {least['n_low']} held-out item{'' if least['n_low'] == 1 else 's'}"
            f"{_interval(least['low'], least['high'])}, against {least['n_high']} of grade {high}"
        )
        return [Sentence("strata", f"{text}.")]
    text = (
        f"Against the items of grade {low} by {ranking.strata['column']}, rank 1 does least well where that is "
        f"“{worst['value']}”: AUROC {worst['auroc']:.3f}{_interval(worst['low'], worst['high'])} on the "
        f"{worst['n_high']} held-out items of grade {high} against {worst['n_low']} such ones"
    )
    text += f", the lowest of {values} values" if values > 1 else ""
    for entry in ranking.comparisons:
        if not entry["strongest"]:
            continue
        rival = same_stratum(ranking.strata, worst, name=entry["name"], site=entry["site"] or "")
        if rival is not None and rival["auroc"] is not None:
            text += f"; {entry['name']} reaches {rival['auroc']:.3f}{_interval(rival['low'], rival['high'])} there"
    return [Sentence("strata", text + ".")]


def _judged(ranking: Ranking, best: Mapping[str, Any]) -> list[Sentence]:
    """Say how the best feature does on the other data set, and how the strongest baseline does there."""
    facts = ranking.facts.get("judged")
    if not facts or best["auroc_judged"] is None:
        return []
    low, high = ranking.facts["grades"]
    shared = facts["shared_texts"]
    part = f"of which {shared} texts stand among those that chose it" if shared else "of which no text had a part in it"
    text = (
        f"Judged on another data set, {facts['concept']} (data hash {facts['data_hash'][:8]}), {part}: AUROC "
        f"{best['auroc_judged']:.3f}{_interval(best['auroc_judged_low'], best['auroc_judged_high'])} for grade {high} "
        f"({facts['items'].get(str(high), 0)} items) against grade {low} ({facts['items'].get(str(low), 0)})"
    )
    if best["concordance_judged"] is not None and len(facts["items"]) > 2:
        text += f"; concordance over all grades {best['concordance_judged']:.3f}"
        text += _interval(best["concordance_judged_low"], best["concordance_judged_high"])
    strongest = {(entry["name"], entry["site"] or "") for entry in ranking.comparisons if entry["strongest"]}
    for entry in ranking.baselines:
        if (entry["name"], entry["site"]) in strongest and entry.get("auroc_judged") is not None:
            text += f"; {entry['name']}, fitted where it was chosen, {entry['auroc_judged']:.3f}"
            text += _interval(entry["auroc_judged_low"], entry["auroc_judged_high"])
    return [Sentence("judged", text + ".")]


def _sets(ranking: Ranking) -> list[Sentence]:
    """Say what the few features together reach, and how far that is from the strongest dense baseline."""
    found = ranking.sets
    if not found or found["figures"]["auroc_holdout"] is None:
        return []
    figures, against = found["figures"], found["against"]
    if found["k"] > 1:
        text = f"{found['k']} features together reach AUROC {figures['auroc_holdout']:.3f}"
    else:
        only = found["members"][0]
        text = (
            f"The best set of features is feature {only['feature_id']} of {only['sae_id']} alone (more add nothing on "
            f"discovery): AUROC {figures['auroc_holdout']:.3f}"
        )
    text += _interval(figures["low"], figures["high"]) + " on the same held-out items"
    if against is not None:
        sure = "more than chance" if against["p_value"] <= SIGNIFICANT else "no difference shown"
        text += (
            f"; the strongest dense baseline, {against['name']} at {against['site']}, {against['auroc_baseline']:.3f} "
            f"(difference {against['difference']:+.3f}, 95% interval {against['low']:+.2f} to {against['high']:+.2f}, {sure})"
        )
    return [Sentence("set", text + ".")]


def _filters(ranking: Ranking, best: Mapping[str, Any]) -> list[Sentence]:
    if ranking.facts["counts"]["passed"] or not best["fails"]:
        return []
    return [
        Sentence(
            "filters",
            f"No feature passes the classic filters; the first one fails these: {best['fails']}. The table shows the best "
            "all the same.",
        )
    ]


def _cautions(ranking: Ranking, best: Mapping[str, Any]) -> list[str]:
    out = []
    if best["auroc_holdout"] is not None:
        groups = ranking.facts["holdout_groups"]
        few = [
            f"{groups.get(str(g), 0)} of grade {g}"
            for g in ranking.facts["grades"]
            if groups.get(str(g), 0) < FEW_GROUPS
        ]
        if few:
            out.append(
                f"The hold-out has only {' and '.join(few)} (independent groups): no figure on it is firm; label more items."
            )
    who = upper_first(first_feature(ranking))
    hints = {"dense": "; --without-dense leaves such features out"}
    out += [f"{who} is {mark}: {words}{hints.get(mark, '')}." for mark, words in marks_of(best) if mark not in SAID]
    return out + list(ranking.facts.get("warnings", []))
