"""What a feature causes: its direction added, its contribution taken out, beside controls that have no reason to work.

For one feature at its site:

1. *Dose*: α × unit decoder direction, α in units of the mean residual norm at the site. Log-probability of the target
   tokens at the readout, on discovery items, for a grid of α. The α used further is the one whose rise exceeds the bar of
   a few controls most (on discovery).
2. *Effect* at that α on hold-out items: rise of the target's log-probability (nats), the sign flipped, KL(base ‖ steered),
   top promoted and suppressed tokens.
3. *Controls* of the same norm: random features of the same SAE and of like density, random directions, each with its 95th
   percentile. The larger is the *bar*: a feature is called causal where its rise is at least ``MIN_RISE`` and
   ``BAR_FACTOR`` times the bar.
4. *Difference of means* of the concept at the same norm; *ablation* on hold-out items of the top grade; *direct path*: the
   same vector added behind the last block, where nothing but the final norm and the unembedding follows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from conceptatlas.base.errors import InputError
from conceptatlas.evidence.edits import ablate, steer, unit
from conceptatlas.evidence.readout import LanguageOutputs, TokenIds
from conceptatlas.evidence.tensors import SAETensors
from conceptatlas.subjects.protocol import Edit

ALPHAS = (0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0)
N_CONTROLS = 20
N_DOSE_CONTROLS = 6
MIN_RISE = 2.0
BAR_FACTOR = 2.0
TOP_TOKENS = 10


@dataclass(frozen=True)
class Scene:
    """What every measurement at one site shares.

    Attributes:
        outputs: The subject, read at the readout.
        site: Where the SAE sits.
        last_site: Behind the last block.
        discovery: Token ids of discovery items of the lowest grade: doses are chosen on these.
        neutral: Token ids of hold-out items of the lowest grade: steering is measured on these.
        strong: Token ids of hold-out items of the top grade: ablation is measured on these.
        targets: Token ids whose joint log-probability is measured.
        residual_norm: The mean norm of the activations at the site.
        difference_of_means: Top grade minus lowest, final rows, discovery: [D], or None where no hidden states were kept.
    """

    outputs: LanguageOutputs
    site: str
    last_site: str
    discovery: Sequence[TokenIds]
    neutral: Sequence[TokenIds]
    strong: Sequence[TokenIds]
    targets: Sequence[int]
    residual_norm: float
    difference_of_means: torch.Tensor | None = None

    def log_target(self, log_probs_NV: torch.Tensor) -> torch.Tensor:
        """Return the joint log-probability of the targets, [N]."""
        return log_probs_NV[:, list(self.targets)].logsumexp(-1)

    def base(self, inputs: Sequence[TokenIds]) -> torch.Tensor:
        """Return the log-probabilities without an edit, [N, V]."""
        return self.outputs.outputs(inputs, site=self.site)

    def rise(self, inputs: Sequence[TokenIds], base_NV: torch.Tensor, edit: Edit, *, site: str | None = None) -> float:
        """Return the mean rise of the targets' log-probability under an edit, in nats."""
        edited = self.outputs.outputs(inputs, site=site or self.site, edit=edit)
        return float((self.log_target(edited) - self.log_target(base_NV)).mean())


@dataclass(frozen=True)
class Dose:
    """One point of the dose–response curve, on discovery items: α, the rise, and the bar of a few controls (nats)."""

    alpha: float
    rise: float
    bar: float


@dataclass(frozen=True)
class Effect:
    """What one feature causes. Log-probabilities in nats; fractions where said.

    Attributes:
        alpha: The dose used, in mean residual norms.
        amount: The same as a length: α × mean residual norm.
        own_p95: The 95th percentile of the feature's own activation where it is active (discovery), for comparison.
        base_logprob: Mean log-probability of the targets, unedited, on neutral hold-out items.
        rise: Its mean rise under steering.
        rise_flipped: Likewise with the sign flipped.
        random_features_p95: 95th percentile of the rise of random features of like density.
        random_directions_p95: 95th percentile of the rise of random directions.
        difference_of_means_rise: The rise of the difference of means at the same norm; None where not recorded.
        direct_rise: The rise of the same vector behind the last block.
        kl: Mean KL(base ‖ steered).
        ablation_change: Mean change of the targets' log-probability on top-grade items, the feature's contribution taken out.
        ablation_random: The mean of the same for the random features.
        promoted: Tokens whose mean log-probability rises most, with the rise.
        suppressed: Those whose falls most.
        direct_promoted: As ``promoted``, by the direct path.
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
    doses: list[Dose] = field(default_factory=list)
    random_features: list[float] = field(default_factory=list)
    random_directions: list[float] = field(default_factory=list)

    @property
    def bar(self) -> float:
        """The larger of the two controls' 95th percentiles (0 where both are below)."""
        return max(0.0, self.random_features_p95, self.random_directions_p95)

    @property
    def causal(self) -> bool:
        """Whether the rise is at least ``MIN_RISE`` nats and ``BAR_FACTOR`` times the bar."""
        return self.rise >= MIN_RISE and self.rise >= BAR_FACTOR * self.bar

    @property
    def verdict(self) -> str:
        """The finding in one sentence."""
        if self.causal:
            return f"It detects and it causes: {self.rise:+.2f} nats, and no control's 95th percentile above {self.bar:.2f}."
        if self.rise >= MIN_RISE:
            return (
                f"It raises the targets by {self.rise:.2f} nats, but controls reach {self.bar:.2f}: not shown to cause."
            )
        return f"It detects but does not cause: {self.rise:+.2f} nats at α = {self.alpha:g} (bar {self.bar:.2f})."


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


def random_directions(d_model: int, n: int, rng: np.random.Generator) -> torch.Tensor:
    """Return ``n`` unit vectors drawn evenly from the sphere, [n, D]."""
    draws = rng.standard_normal((n, d_model)).astype(np.float32)
    return torch.from_numpy(draws / np.linalg.norm(draws, axis=1, keepdims=True))


def choose_dose(doses: Sequence[Dose]) -> float:
    """Return the α whose rise exceeds ``BAR_FACTOR`` times its bar most, in units of that bar's room (ties: the smaller α)."""
    best = max(doses, key=lambda dose: (dose.rise - BAR_FACTOR * max(0.0, dose.bar), -dose.alpha))
    return best.alpha


def shared_dose(curves: Sequence[Sequence[Dose]]) -> float:
    """Return one α for several features: at which most of them move their targets beyond the bar, on discovery.

    A feature counts where its rise is at least ``MIN_RISE`` and ``BAR_FACTOR`` times its bar; ties go to the larger sum
    of rises beyond that, then to the smaller α.

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
        moved = sum(dose.rise >= MIN_RISE and spare >= 0 for dose, spare in zip(doses, room, strict=True))
        return moved, sum(room), -doses[0].alpha

    return max(zip(*curves, strict=True), key=merit)[0].alpha


def measure_effect(
    scene: Scene,
    sae: SAETensors,
    feature: int,
    *,
    density_F: npt.NDArray[np.float64],
    own_p95: float,
    rng: np.random.Generator,
    alpha: float | None = None,
    alphas: Sequence[float] = ALPHAS,
    n_controls: int = N_CONTROLS,
    tick: Callable[[], None] = lambda: None,
) -> Effect:
    """Measure what one feature causes (see the module's text).

    Args:
        scene: The subject, the items and the targets.
        sae: Its SAE.
        feature: Which feature.
        density_F: Share of discovery items on which each feature of the SAE is active, [F].
        own_p95: 95th percentile of the feature's own activation.
        rng: Draws the controls.
        alpha: The dose; chosen on discovery where None.
        alphas: The grid of the dose–response.
        n_controls: How many random features and random directions.
        tick: Called after each steering run, for a progress bar.
    """
    directions = torch.nn.functional.normalize(sae.W_dec, dim=1)
    others = like_density(density_F, feature, n_controls, rng)
    noise = random_directions(directions.shape[1], n_controls, rng).to(directions.device)
    controls = [directions[other] for other in others], list(noise)
    norm = scene.residual_norm

    def rises(
        inputs: Sequence[TokenIds], base: torch.Tensor, vectors: Sequence[torch.Tensor], amount: float
    ) -> list[float]:
        found = []
        for vector in vectors:
            found.append(scene.rise(inputs, base, steer(vector, amount)))
            tick()
        return found

    discovery_base = scene.base(scene.discovery)
    some = [*controls[0][:N_DOSE_CONTROLS], *controls[1][:N_DOSE_CONTROLS]]
    doses = []
    for dose in alphas:
        (rise,) = rises(scene.discovery, discovery_base, [directions[feature]], dose * norm)
        doses.append(
            Dose(dose, rise, float(np.percentile(rises(scene.discovery, discovery_base, some, dose * norm), 95)))
        )
    used = choose_dose(doses) if alpha is None else alpha
    amount = used * norm
    base = scene.base(scene.neutral)
    steered = scene.outputs.outputs(scene.neutral, site=scene.site, edit=steer(directions[feature], amount))
    tick()
    direct = scene.outputs.outputs(scene.neutral, site=scene.last_site, edit=steer(directions[feature], amount))
    means = scene.difference_of_means
    feature_rises = rises(scene.neutral, base, controls[0], amount)
    direction_rises = rises(scene.neutral, base, controls[1], amount)
    strong_base = scene.base(scene.strong)
    return Effect(
        alpha=used,
        amount=amount,
        own_p95=own_p95,
        base_logprob=float(scene.log_target(base).mean()),
        rise=float((scene.log_target(steered) - scene.log_target(base)).mean()),
        rise_flipped=scene.rise(scene.neutral, base, steer(directions[feature], -amount)),
        random_features_p95=float(np.percentile(feature_rises, 95)),
        random_directions_p95=float(np.percentile(direction_rises, 95)),
        difference_of_means_rise=(
            None if means is None else scene.rise(scene.neutral, base, steer(unit(means).to(directions.device), amount))
        ),
        direct_rise=float((scene.log_target(direct) - scene.log_target(base)).mean()),
        kl=float((base.exp() * (base - steered)).sum(-1).mean()),
        ablation_change=scene.rise(scene.strong, strong_base, ablate(sae, feature)),
        ablation_random=float(np.mean([scene.rise(scene.strong, strong_base, ablate(sae, other)) for other in others])),
        promoted=_tokens(scene, steered - base, largest=True),
        suppressed=_tokens(scene, steered - base, largest=False),
        direct_promoted=_tokens(scene, direct - base, largest=True),
        doses=doses,
        random_features=feature_rises,
        random_directions=direction_rises,
    )


def _tokens(scene: Scene, change_NV: torch.Tensor, *, largest: bool) -> list[tuple[str, float]]:
    """Return the tokens whose mean log-probability rises (or falls) most, with the change."""
    mean = change_NV.mean(0)
    values, ids = mean.topk(min(TOP_TOKENS, len(mean)), largest=largest)
    texts = scene.outputs.subject.token_texts(ids.numpy().astype(np.int32))
    found = [(text.strip() or text, float(value)) for text, value in zip(texts, values, strict=True)]
    return [(text, value) for text, value in found if (value > 0) == largest]
