"""What a feature causes, and the rules by which it is said to.

A feature is called causal where, on hold-out items, all of this holds:

1. the targets' log-probability rises by at least ``MIN_RISE`` nats,
2. and by at least ``BAR_FACTOR`` times the *bar*: the larger 95th percentile of two sets of controls of the same norm
   (random features of like density, random directions);
3. the 95% interval of the rise over items lies above 0;
4. the rise is at or above the ``MIN_PERCENTILE``-th percentile of the rises of tokens that were as likely to begin with:
   a direction that lifts every rare token causes nothing in particular;
5. the *damage* stays within bounds: KL(unedited ‖ edited) over the tokens that are no targets at most ``MAX_KL_OTHER``
   nats, and the loss on neutral text at most ``MAX_LOSS_RISE`` nats per token higher.

Where the interval of rule 3 holds ``MIN_RISE`` itself, rule 1 hangs on the items drawn: that is called *at the limit*.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from conceptatlas.base.errors import InputError

MIN_RISE = 2.0
BAR_FACTOR = 2.0
MIN_PERCENTILE = 95.0
# A convention of ours: 0.5 nats per token are a perplexity 1.65 times as high, and a model that lost that much is hardly the
# model under study any more.
MAX_LOSS_RISE = 0.5
# Where the next token is read, one nat: the probabilities of all other tokens may change by a factor of e on average.
MAX_KL_OTHER = 1.0

Answer = Literal["yes", "at the limit", "no clean effect", "not shown"]
_TOO_SMALL = f"the targets rise by less than {MIN_RISE:g} nats"


@dataclass(frozen=True)
class Dose:
    """One point of the dose–response curve, on discovery items.

    Attributes:
        alpha: The dose in mean residual norms.
        rise: Mean rise of the targets' log-probability, in nats.
        bar: 95th percentile of the rises of a few controls, in nats.
        kl_other: KL(unedited ‖ edited) over the tokens that are no targets, in nats; None where not measured.
        loss_rise: Rise of the loss on the items' own text, in nats per token; None where not measured.
    """

    alpha: float
    rise: float
    bar: float
    kl_other: float | None = None
    loss_rise: float | None = None

    @property
    def clean(self) -> bool:
        """Whether the damage is within bounds."""
        return not damage(self.kl_other, self.loss_rise)


@dataclass(frozen=True)
class TargetToken:
    """One target token on neutral hold-out items.

    Attributes:
        token: Its text.
        base_logprob: Its mean log-probability, unedited.
        rise: Its mean rise under steering, in nats.
        percentile: Of that rise among tokens of like base log-probability; None where there are none.
    """

    token: str
    base_logprob: float
    rise: float
    percentile: float | None


@dataclass(frozen=True)
class Effect:
    """What one feature causes. Log-probabilities in nats; fractions where said.

    Attributes:
        alpha: The dose used, in mean residual norms.
        amount: The same as a length: α × mean residual norm.
        own_p95: The 95th percentile of the feature's own activation where it is active, on discovery rows.
        base_logprob: Mean log-probability of the targets, unedited, on neutral hold-out items.
        rise: Its mean rise under steering.
        rise_flipped: Likewise with the sign flipped.
        random_features_p95: 95th percentile of the rise of random features of like density.
        random_directions_p95: 95th percentile of the rise of random directions.
        difference_of_means_rise: The rise of the difference of means at the same norm; None where not recorded.
        direct_rise: The rise of the same vector behind the last block, at the place where the next token is read.
        kl: Mean KL(unedited ‖ edited) where the next token is read.
        ablation_change: Mean change of the targets' log-probability on top-grade items, the feature's contribution taken out.
        ablation_random: The mean of the same for the random features.
        promoted: Tokens whose mean log-probability rises most, with the rise.
        suppressed: Those whose falls most.
        direct_promoted: As ``promoted``, by the direct path.
        rise_low: Lower end of the 95% t interval of ``rise`` over items, by group; None with fewer than two groups.
        rise_high: Its upper end.
        n_items: Neutral hold-out items.
        n_groups: Groups that they form.
        like_percentile: Of ``rise`` among the rises of tokens of like base log-probability; None where there are none.
        n_like: How many those are.
        kl_other: The same KL over the tokens that are no targets (each side renormalised).
        kl_random_directions: Median ``kl`` of the random directions.
        loss: Mean loss per token on the text of neutral hold-out items, unedited; None for a model that predicts no next
            tokens.
        loss_rise: By how much it is higher under steering.
        target_tokens: The targets one by one.
        doses: The dose–response on discovery.
        random_features: The rise of each random feature.
        random_directions: The rise of each random direction.
    """

    alpha: float
    amount: float
    own_p95: float
    base_logprob: float
    rise: float
    rise_flipped: float
    random_features_p95: float
    random_directions_p95: float
    difference_of_means_rise: float | None
    direct_rise: float
    kl: float
    ablation_change: float
    ablation_random: float
    promoted: list[tuple[str, float]]
    suppressed: list[tuple[str, float]]
    direct_promoted: list[tuple[str, float]]
    rise_low: float | None
    rise_high: float | None
    n_items: int
    n_groups: int
    like_percentile: float | None
    n_like: int
    kl_other: float
    kl_random_directions: float
    loss: float | None
    loss_rise: float | None
    target_tokens: list[TargetToken] = field(default_factory=list)
    doses: list[Dose] = field(default_factory=list)
    random_features: list[float] = field(default_factory=list)
    random_directions: list[float] = field(default_factory=list)

    @property
    def bar(self) -> float:
        """The larger of the two controls' 95th percentiles (0 where both are below)."""
        return max(0.0, self.random_features_p95, self.random_directions_p95)

    @property
    def missing(self) -> list[str]:
        """What speaks against a causal effect, damage aside; empty where nothing does."""
        found = []
        if self.rise < MIN_RISE:
            found.append(_TOO_SMALL)
        if self.rise < BAR_FACTOR * self.bar:
            found.append(f"controls of the same norm reach {self.bar:.2f} nats")
        if self.rise_low is None:
            found.append("items of fewer than two groups give no interval")
        elif self.rise_low <= 0:
            found.append("its interval over items is not above 0")
        if self.like_percentile is None:
            found.append("no tokens of like probability to compare with")
        elif self.like_percentile < MIN_PERCENTILE:
            found.append(f"{100 - self.like_percentile:.0f}% of the {self.n_like} tokens of like probability rise more")
        return found

    @property
    def damage(self) -> list[str]:
        """Which bounds of damage are passed; empty where none is."""
        return damage(self.kl_other, self.loss_rise)

    @property
    def causal(self) -> bool:
        """Whether every rule holds (see the module's text)."""
        return not self.missing and not self.damage

    @property
    def at_limit(self) -> bool:
        """Whether the interval of the rise holds ``MIN_RISE``: on other items the rise might be on the other side of it."""
        return self.rise_low is not None and self.rise_high is not None and self.rise_low < MIN_RISE <= self.rise_high

    @property
    def answer(self) -> Answer:
        """Whether it causes, in a word: a rise ``at the limit`` is neither a yes nor a no."""
        missing = [reason for reason in self.missing if not (self.at_limit and reason == _TOO_SMALL)]
        if missing:
            return "not shown"
        if self.damage:
            return "no clean effect"
        return "at the limit" if self.at_limit else "yes"

    @property
    def verdict(self) -> str:
        """The finding in one or two sentences, with items, uncertainty, controls and damage."""
        interval = "" if self.rise_low is None else f", 95% interval {self.rise_low:+.2f} to {self.rise_high:+.2f}"
        place = "unknown" if self.like_percentile is None else f"{self.like_percentile:.0f}"
        said = (
            f"{self.rise:+.2f} nats on {self.n_items} hold-out items of the lowest grade in {self.n_groups} groups{interval}; "
            f"controls of the same norm reach {self.bar:.2f} (95th percentile); percentile {place} among {self.n_like} tokens "
            "of like probability"
        )
        loss = "" if self.loss_rise is None else f", loss on the items' text {self.loss_rise:+.2f} nats per token"
        cost = f"Damage: KL {self.kl:.2f}, over the other tokens {self.kl_other:.2f}{loss}."
        if self.answer == "yes":
            return f"It causes: {said}. {cost}"
        if self.answer == "at the limit":
            return (
                f"At the limit: {said}. The interval reaches below the {MIN_RISE:g} nats that count as an effect, so that "
                f"none is established. {cost}"
            )
        if self.answer == "no clean effect":
            return f"No clean effect: {said}; but {' and '.join(self.damage)}. {cost}"
        return f"Not shown to cause: {'; '.join([*self.missing, *self.damage])}. {said}. {cost}"


def damage(kl_other: float | None, loss_rise: float | None) -> list[str]:
    """Return which bounds of damage are passed, in words; what was not measured passes none."""
    found = []
    if kl_other is not None and kl_other > MAX_KL_OTHER:
        found.append(f"the other tokens' distribution moves by more than {MAX_KL_OTHER:g} nat")
    if loss_rise is not None and loss_rise > MAX_LOSS_RISE:
        found.append(f"the loss on the items' text rises by more than {MAX_LOSS_RISE:g} nats per token")
    return found


def effect_sentence(found: Mapping[str, Any]) -> str:
    """Return what the first feature measured causes, in the words of its verdict, and how the others fare.

    Args:
        found: The content of ``effects.json``, with a feature at least.
    """
    first, features = found["features"][0], found["features"]
    who = f"Steering with feature {first['feature_id']} of {first['sae_id']} (rank {first['rank']})"
    words = {
        "yes": "makes {} likelier",
        "at the limit": "makes {} likelier, at the limit of what counts as an effect",
        "no clean effect": "makes {} likelier, but not without damage",
        "not shown": "is not shown to make {} likelier",
    }
    answers = [answer_of(entry) for entry in features]
    together = " (their summed probability)" if len(found["targets"]) > 1 else ""
    does = words[answers[0]].format(f"the next tokens {', '.join(found['targets'])}{together}")
    text = f"{who} {does}: {first['verdict'].partition(': ')[2] or first['verdict']}"
    if len(features) > 1:
        counted = ", ".join(
            f"{answers.count(name)} {'clear' if name == 'yes' else name}" for name in words if name in answers
        )
        text += f" Of {len(features)} features measured: {counted}."
    return text


def answer_of(entry: Mapping[str, Any]) -> Answer:
    """Return the answer of an entry of ``effects.json``; of one that an earlier version wrote, from its bare yes or no."""
    answer: Answer | None = entry.get("answer")
    return answer or ("yes" if entry["causal"] else "not shown")


def like_density(density_F: npt.NDArray[np.float64], feature: int, n: int, rng: np.random.Generator) -> list[int]:
    """Return ``n`` other features that fire about as often as ``feature``: drawn from the 3n nearest in log density.

    Raises:
        InputError: The SAE has no other feature that fires.
    """
    firing = np.flatnonzero(density_F > 0)
    others = firing[firing != feature]
    if len(others) == 0:
        raise InputError(
            "No other feature of this SAE fires on these items, so there is no control; record more items."
        )
    distance = np.abs(np.log(density_F[others]) - np.log(max(density_F[feature], 1e-12)))
    nearest = others[np.argsort(distance, kind="stable")[: 3 * n]]
    return [int(other) for other in np.sort(rng.permutation(nearest)[:n])]


def choose_dose(doses: Sequence[Dose]) -> float:
    """Return the α whose rise exceeds ``BAR_FACTOR`` times its bar most (ties: the smaller α).

    Only doses whose damage is within bounds are looked at, where there is one.
    """
    clean = [dose for dose in doses if dose.clean] or doses
    best = max(clean, key=lambda dose: (dose.rise - BAR_FACTOR * max(0.0, dose.bar), -dose.alpha))
    return best.alpha


def shared_dose(curves: Sequence[Sequence[Dose]]) -> float:
    """Return one α for several features: at which most of them move their targets beyond the bar, on discovery.

    A feature counts where its rise is at least ``MIN_RISE`` and ``BAR_FACTOR`` times its bar, and its damage within bounds;
    ties go to the larger sum of rises beyond that, then to the smaller α.

    Args:
        curves: The dose–response of each feature, over the same doses.

    Raises:
        ValueError: There is no curve, or their doses differ.
    """
    grids = {tuple(dose.alpha for dose in curve) for curve in curves}
    if len(grids) != 1:
        raise ValueError(f"one dose for all needs curves over the same doses, and there are {len(grids)} sets of doses")

    def merit(doses: Sequence[Dose]) -> tuple[int, float, float]:
        room = [dose.rise - BAR_FACTOR * max(0.0, dose.bar) for dose in doses]
        moved = sum(
            dose.clean and dose.rise >= MIN_RISE and spare >= 0 for dose, spare in zip(doses, room, strict=True)
        )
        return moved, sum(room), -doses[0].alpha

    return max(zip(*curves, strict=True), key=merit)[0].alpha
