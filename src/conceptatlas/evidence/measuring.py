"""Measure what a feature causes, beside controls that have no reason to work.

For one feature at its site:

1. *Dose*: α × unit decoder direction, α in units of the mean residual norm at the site. Log-probability of the target
   tokens at the readout, on discovery items, for a grid of α. The α used further is, of those whose damage is within
   bounds, the one whose rise exceeds the bar of a few controls most (on discovery).
2. *Effect* at that α on hold-out items: rise of the targets' log-probability (nats) with its interval over items and its
   percentile among tokens of like base log-probability, the sign flipped, top promoted and suppressed tokens.
3. *Damage*: KL(unedited ‖ edited) where the next token is read, the same over the tokens that are no targets, and the loss
   on the items' own text.
4. *Controls* of the same norm: random features of the same SAE and of like density, random directions.
5. *Difference of means* of the concept at the same norm; *ablation* on hold-out items of the top grade; *direct path*: the
   same vector added behind the last block at the place that is read, where nothing but the final norm and the unembedding
   follows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from conceptatlas.evidence.edits import ablate_each, random_directions, steer_each, unit
from conceptatlas.evidence.effects import Dose, Effect, TargetToken, choose_dose, like_density
from conceptatlas.evidence.readout import LanguageOutputs, Shown
from conceptatlas.evidence.rises import grouped_interval, like_tokens, percentile_among
from conceptatlas.evidence.tensors import SAETensors
from conceptatlas.subjects.above import Edits, unedited

ALPHAS = (0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0)
N_CONTROLS = 20
N_DOSE_CONTROLS = 6
TOP_TOKENS = 10

Tick = Callable[[float], None]


@dataclass(frozen=True)
class Moved:
    """What E edits do to the next token of N items.

    Attributes:
        rise: Rise of the targets' joint log-probability, float64 [E, N].
        kl: Mean KL(unedited ‖ edited), float64 [E].
        kl_other: The same over the tokens that are no targets, float64 [E].
    """

    rise: npt.NDArray[np.float64]
    kl: npt.NDArray[np.float64]
    kl_other: npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Base:
    """The unedited next-token distribution of N items: targets, and the rest as a distribution of its own."""

    targets: torch.Tensor  # log-probabilities of the targets, [N, K]
    joint: torch.Tensor  # of all of them together, [N]
    rest: torch.Tensor  # of none of them, [N]
    others: torch.Tensor  # probabilities of the other tokens given that it is none of the targets, [N, V]
    entropy: torch.Tensor  # sum of p · log p over the others, [N]
    mean: torch.Tensor  # mean log-probability of every token, [V]


class Items:
    """Some items at one site: kept there, with their unedited next-token distribution."""

    def __init__(self, outputs: LanguageOutputs, shown: Sequence[Shown], site: str, targets: Sequence[int]) -> None:
        self.shown = list(shown)
        self.kept = outputs.kept(shown, site)
        self.causal = outputs.subject.prefix_rule.limit != 0
        self.targets = torch.tensor(list(targets), device=outputs.subject.device)

    @cached_property
    def base(self) -> _Base:
        """The unedited distribution."""
        found: list[tuple[torch.Tensor, ...]] = []
        order: list[torch.Tensor] = []
        mean: torch.Tensor | None = None
        for part in self.kept.logits(unedited):
            logits = part.logits[0]
            log_probs = logits.log_softmax(-1)
            mean = log_probs.sum(0) if mean is None else mean + log_probs.sum(0)
            targets = log_probs[:, self.targets]
            log_probs[:, self.targets] = -torch.inf
            rest = log_probs.logsumexp(-1)
            others = (log_probs - rest[:, None]).exp()
            entropy = torch.xlogy(others, others).sum(-1)
            found.append((targets, targets.logsumexp(-1), rest, others, entropy))
            order.append(part.rows)
        assert mean is not None
        places = torch.cat(order).argsort()
        targets, joint, rest, others, entropy = (torch.cat(pieces)[places] for pieces in zip(*found, strict=True))
        return _Base(targets, joint, rest, others, entropy, mean / len(self.shown))

    def moved(self, edits: Edits, *, tick: Tick = lambda _steps: None) -> Moved:
        """Return what edits do to the next token.

        No copy of the logits is made: with p unedited and z the edited logits, KL = Σ p log p − Σ p z + log Σ exp z. The
        joint KL follows from that of "a target, which one, or none" and that of the others (chain rule).
        """
        base = self.base
        parts = []
        for part in self.kept.logits(edits):
            rows, logits = part.rows, part.logits
            targets = logits[..., self.targets]
            expected = torch.einsum("etv,tv->et", logits, base.others[rows])
            logits[..., self.targets] = -torch.inf
            rest = logits.logsumexp(-1)
            total = torch.logaddexp(rest, targets.logsumexp(-1))
            kl_other = (base.entropy[rows] - expected + rest).clamp(min=0)
            p_targets, p_rest = base.targets[rows].exp(), base.rest[rows].exp()
            kl = (p_targets * (base.targets[rows] - targets + total[..., None])).sum(-1)
            kl = kl + p_rest * (base.rest[rows] - rest + total + kl_other)
            rise = targets.logsumexp(-1) - total - base.joint[rows]
            parts.append((part.edits, rows.cpu().numpy(), torch.stack([rise, kl, kl_other]).double().cpu().numpy()))
            tick(logits.shape[0] * logits.shape[1])
        figures = np.zeros((3, max(edit.stop for edit, _, _ in parts), len(self.shown)))
        for edit, rows_T, found in parts:
            figures[:, edit, rows_T] = found
        return Moved(figures[0], np.maximum(figures[1].mean(1), 0), figures[2].mean(1))

    def token_changes(self, edits: Edits) -> torch.Tensor:
        """Return the mean change of every token's log-probability, float32 [E, V]."""
        sums: dict[int, torch.Tensor] = {}
        for part in self.kept.logits(edits):
            change = part.logits.log_softmax(-1).sum(1)
            for row, edit in enumerate(range(part.edits.start, part.edits.stop)):
                sums[edit] = sums[edit] + change[row] if edit in sums else change[row]
        return torch.stack([sums[edit] / len(self.shown) - self.base.mean for edit in sorted(sums)])

    def loss(self, edits: Edits) -> npt.NDArray[np.float64] | None:
        """Return the mean loss per token on the items' own text, in nats, [E]; None where there is no such loss.

        A token counts where it is text and another stands before it.
        """
        rows = [np.append(shown.text[1:], False) for shown in self.shown]
        following = np.concatenate([shown.ids[1:][mask[:-1]] for shown, mask in zip(self.shown, rows, strict=True)])
        if not self.causal or not len(following):
            return None
        wanted = torch.from_numpy(following.astype(np.int64)).to(self.targets.device)
        sums: dict[int, float] = {}
        for part in self.kept.logits(edits, rows=rows):
            own = part.logits.gather(-1, wanted[part.rows].expand(len(part.logits), -1)[..., None])[..., 0]
            losses = (part.logits.logsumexp(-1) - own).double().sum(-1).tolist()
            for edit, loss in zip(range(part.edits.start, part.edits.stop), losses, strict=True):
                sums[edit] = sums.get(edit, 0.0) + loss
        return np.array([sums[edit] for edit in sorted(sums)]) / len(following)


@dataclass(frozen=True)
class Scene:
    """What every measurement at one site shares.

    Attributes:
        outputs: The subject, read at the readout.
        site: Where the SAE sits.
        discovery: Discovery items of the lowest grade, as the model is shown them: doses are chosen on these.
        neutral: Hold-out items of the lowest grade: steering is measured on these.
        strong: Hold-out items of the top grade: ablation is measured on these.
        targets: Token ids whose joint log-probability is measured.
        neutral_groups: The group of each neutral item, [N]: what its interval goes by.
        difference_of_means: Top grade minus lowest, final rows, discovery: [D], or None where no hidden states were kept.
    """

    outputs: LanguageOutputs
    site: str
    discovery: Sequence[Shown]
    neutral: Sequence[Shown]
    strong: Sequence[Shown]
    targets: Sequence[int]
    neutral_groups: npt.NDArray[np.integer]
    difference_of_means: torch.Tensor | None = None

    @cached_property
    def on_discovery(self) -> Items:
        """Discovery items, kept at the site."""
        return Items(self.outputs, self.discovery, self.site, self.targets)

    @cached_property
    def on_neutral(self) -> Items:
        """Neutral items, kept at the site."""
        return Items(self.outputs, self.neutral, self.site, self.targets)

    @cached_property
    def on_strong(self) -> Items:
        """Items of the top grade, kept at the site."""
        return Items(self.outputs, self.strong, self.site, self.targets)

    @cached_property
    def behind_the_last_block(self) -> Items:
        """Neutral items, kept behind the last block; edits apply where the next token is read."""
        last = f"blocks.{self.outputs.subject.n_layers - 1}.hook_resid_post"
        ends = [np.arange(len(shown.ids)) == len(shown.ids) - 1 for shown in self.neutral]
        read = [replace(shown, edited=end) for shown, end in zip(self.neutral, ends, strict=True)]
        return Items(self.outputs, read, last, self.targets)

    @cached_property
    def residual_norm(self) -> float:
        """The mean norm of the activations at the site, on the text of discovery items."""
        kept = self.on_discovery.kept
        rows = [kept.values(i)[torch.from_numpy(shown.text)] for i, shown in enumerate(self.discovery)]
        return float(torch.cat(rows).float().norm(dim=1).mean())


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
    tick: Tick = lambda _steps: None,
) -> Effect:
    """Measure what one feature causes (see the module's text).

    Args:
        scene: The subject, the items and the targets.
        sae: Its SAE.
        feature: Which feature.
        density_F: Share of discovery rows on which each feature of the SAE is active, [F].
        own_p95: 95th percentile of the feature's own activation, on discovery rows.
        rng: Draws the controls.
        alpha: The dose; chosen on discovery where None.
        alphas: The grid of the dose–response.
        n_controls: How many random features and random directions.
        tick: Told how many (edit, item) pairs are done, for a progress bar.
    """
    directions = torch.nn.functional.normalize(sae.W_dec, dim=1)
    others = like_density(density_F, feature, n_controls, rng)
    noise = random_directions(directions.shape[1], n_controls, rng).to(directions)
    own = directions[feature]
    few = torch.cat([directions[others[:N_DOSE_CONTROLS]], noise[:N_DOSE_CONTROLS]])
    doses = measure_doses(scene, own, few, alphas, tick=tick)
    used = choose_dose(doses) if alpha is None else alpha
    amount = used * scene.residual_norm
    items = scene.on_neutral
    means = scene.difference_of_means
    extra = own[None] if means is None else unit(means.to(own))[None]
    edits = steer_each(amount * torch.cat([own[None], -own[None], extra, directions[others], noise]))
    moved = items.moved(edits, tick=tick)
    means_of = moved.rise.mean(1)
    features, noises = means_of[3 : 3 + len(others)], means_of[3 + len(others) :]
    one = steer_each(amount * own[None])
    change = items.token_changes(one)[0]
    direct = scene.behind_the_last_block
    ablated = scene.on_strong.moved(ablate_each(sae, [feature, *others]), tick=tick).rise.mean(1)
    losses = items.loss(lambda x: torch.cat([unedited(x), one(x)]))
    interval = grouped_interval(moved.rise[0], scene.neutral_groups)
    like = _LikeTokens(items, scene, change)
    base_logprob = float(items.base.joint.mean())
    percentile, n_like = like.percentile(base_logprob, float(means_of[0]))
    return Effect(
        alpha=used,
        amount=amount,
        own_p95=own_p95,
        base_logprob=base_logprob,
        rise=float(means_of[0]),
        rise_flipped=float(means_of[1]),
        random_features_p95=float(np.percentile(features, 95)),
        random_directions_p95=float(np.percentile(noises, 95)),
        difference_of_means_rise=None if means is None else float(means_of[2]),
        direct_rise=float(direct.moved(one).rise.mean()),
        kl=float(moved.kl[0]),
        ablation_change=float(ablated[0]),
        ablation_random=float(ablated[1:].mean()),
        promoted=_tokens(scene, change, largest=True),
        suppressed=_tokens(scene, change, largest=False),
        direct_promoted=_tokens(scene, direct.token_changes(one)[0], largest=True),
        rise_low=None if interval is None else interval[0],
        rise_high=None if interval is None else interval[1],
        n_items=len(scene.neutral),
        n_groups=len(np.unique(scene.neutral_groups)),
        like_percentile=percentile,
        n_like=n_like,
        kl_other=float(moved.kl_other[0]),
        kl_random_directions=float(np.median(moved.kl[3 + len(others) :])),
        loss=None if losses is None else float(losses[0]),
        loss_rise=None if losses is None else float(losses[1] - losses[0]),
        target_tokens=like.target_tokens(),
        doses=doses,
        random_features=features.tolist(),
        random_directions=noises.tolist(),
    )


def measure_doses(
    scene: Scene, own_D: torch.Tensor, few_KD: torch.Tensor, alphas: Sequence[float], *, tick: Tick
) -> list[Dose]:
    """Return the dose–response of a direction beside a few controls, on discovery items.

    Args:
        scene: The subject, the items and the targets.
        own_D: The direction, of length one.
        few_KD: The controls, likewise.
        alphas: The doses.
        tick: Told how many (edit, item) pairs are done.
    """
    items = scene.on_discovery
    amounts = torch.tensor([alpha * scene.residual_norm for alpha in alphas]).to(own_D)
    vectors = amounts[:, None, None] * torch.cat([own_D[None], few_KD])[None]
    moved = items.moved(steer_each(vectors.flatten(0, 1)), tick=tick)
    rises = moved.rise.mean(1).reshape(len(alphas), -1)
    kl_other = moved.kl_other.reshape(len(alphas), -1)[:, 0]
    losses = items.loss(lambda x: torch.cat([unedited(x), steer_each(vectors[:, 0])(x)]))
    return [
        Dose(
            alpha,
            float(rises[i, 0]),
            float(np.percentile(rises[i, 1:], 95)),
            float(kl_other[i]),
            None if losses is None else float(losses[i + 1] - losses[0]),
        )
        for i, alpha in enumerate(alphas)
    ]


def n_pairs(items: dict[str, int], *, n_doses: int, n_controls: int) -> int:
    """Return how many (edit, item) pairs one feature takes at most: what ``tick`` counts."""
    at_doses = n_doses * (1 + 2 * min(N_DOSE_CONTROLS, n_controls))
    return items["discovery"] * at_doses + items["neutral"] * (3 + 2 * n_controls) + items["strong"] * (1 + n_controls)


class _LikeTokens:
    """Every token's mean base log-probability and rise, to place a target among those of like probability."""

    def __init__(self, items: Items, scene: Scene, change: torch.Tensor) -> None:
        self.base = items.base.mean.double().cpu().numpy()
        self.change = change.double().cpu().numpy()
        self.subject = scene.outputs.subject
        self.targets = list(scene.targets)
        self.excluded = np.union1d(self.targets, self.subject.token_rules.special_ids)

    def percentile(self, base: float, rise: float) -> tuple[float | None, int]:
        """Return the percentile of a rise among tokens of like base log-probability, and how many those are."""
        like = like_tokens(self.base, base, self.excluded)
        return percentile_among(rise, self.change[like]), len(like)

    def target_tokens(self) -> list[TargetToken]:
        """Return the targets one by one."""
        texts = self.subject.token_texts(np.array(self.targets, dtype=np.int32))
        return [
            TargetToken(
                text,
                float(self.base[token]),
                float(self.change[token]),
                self.percentile(float(self.base[token]), float(self.change[token]))[0],
            )
            for token, text in zip(self.targets, texts, strict=True)
        ]


def _tokens(scene: Scene, change_V: torch.Tensor, *, largest: bool) -> list[tuple[str, float]]:
    """Return the tokens whose mean log-probability rises (or falls) most, with the change."""
    values, ids = change_V.topk(min(TOP_TOKENS, len(change_V)), largest=largest)
    texts = scene.outputs.subject.token_texts(ids.cpu().numpy().astype(np.int32))
    found = [(text.strip() or text, float(value)) for text, value in zip(texts, values.tolist(), strict=True)]
    return [(text, value) for text, value in found if (value > 0) == largest]
