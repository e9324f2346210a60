"""One pass over the texts: per feature its strongest examples, a sample from each decile, and examples without it.

1. Windows are run in batches; at each SAE's site only the asked columns are encoded.
2. Every window gets two numbers from the generator, in the order of the texts: a key, and a place in it.
3. A feature keeps its strongest windows (a heap), and of all windows that activate it those of the smallest keys, which
   is a uniform sample without replacement; likewise of the windows whose random place has it silent all round.
4. At the end the sample is cut into deciles of its activation: exact while all active windows fit, else an estimate.

So memory does not grow with the texts, and nothing depends on the size of the batches: strengths are compared as
`conceptatlas.base.ties` says, and of equally strong ones the earlier window or token is taken.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from conceptatlas.base.errors import InputError
from conceptatlas.base.ties import comparable
from conceptatlas.evidence.examples import N_DECILES, decile_of
from conceptatlas.evidence.labels.contexts import Context, cut_context
from conceptatlas.evidence.labels.targets import Target
from conceptatlas.saes import SparseColumns, encode_rows
from conceptatlas.saes.asked import fit_to_model
from conceptatlas.subjects import Site
from conceptatlas.subjects.texts import TextStream
from conceptatlas.subjects.windows import Window, WindowCutter, batches_of

if TYPE_CHECKING:
    import torch

    from conceptatlas.saes import Encoder, SAESource
    from conceptatlas.subjects import LanguageSubject

_T = TypeVar("_T")

# An example is clear where its activation is at least this share of the largest seen of the feature.
CLEAR_SHARE = 0.3

# Windows times the longest in one forward pass.
PADDED_TOKENS_CPU = 16_384
PADDED_TOKENS_GPU = 65_536


@dataclass(frozen=True)
class CollectOptions:
    """How much is kept of each feature, and how much is done at once.

    Attributes:
        max_examples: Strongest examples of each feature.
        sample: Activating examples drawn at random of each feature.
        silent: Examples without it.
        background: Contexts drawn at random from all texts, to compare words with.
        before: Tokens of context before the token.
        after: Tokens of context after it.
        max_tokens: The longest window; the model's own limit where that is less.
        windows_at_once: Windows of one batch.
        features_at_once: Features encoded at once.
        seed: Of the samples.
    """

    max_examples: int = 20
    sample: int = 200
    silent: int = 60
    background: int = 1000
    before: int = 48
    after: int = 16
    max_tokens: int = 1024
    windows_at_once: int = 64
    features_at_once: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        for name, option in _OPTIONS.items():
            if getattr(self, name) < 1:
                raise InputError(f"{option} is {getattr(self, name)}; it must be 1 or more.")


_OPTIONS = {
    "max_examples": "--max-examples",
    "max_tokens": "--max-tokens",
    "windows_at_once": "--minibatch-size-tokens",
    "features_at_once": "--minibatch-size-features",
}


class Smallest:
    """The ``size`` entries of the smallest keys; a key is compared first, then the order of arrival."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._heap: list[tuple[tuple[float, ...], int, Context]] = []
        self._arrivals = count()

    def wants(self, *key: float) -> bool:
        """Whether an entry of this key would be kept."""
        return len(self._heap) < self.size or tuple(-k for k in key) > self._heap[0][0]

    def add(self, context: Context, *key: float) -> None:
        """Keep an entry, dropping the one of the largest key if need be."""
        entry = (tuple(-k for k in key), next(self._arrivals), context)
        (heapq.heappush if len(self._heap) < self.size else heapq.heappushpop)(self._heap, entry)

    def in_order(self) -> list[Context]:
        """Return the entries, smallest key first."""
        return [context for _, _, context in sorted(self._heap, key=lambda entry: entry[0], reverse=True)]


@dataclass
class FeatureExamples:
    """What was found of one feature.

    Attributes:
        target: The feature.
        n_active_windows: Windows with at least one token that activates it.
        n_active_tokens: Tokens that activate it.
        max_activation: The largest activation seen.
    """

    target: Target
    options: CollectOptions
    n_active_windows: int = 0
    n_active_tokens: int = 0
    max_activation: float = 0.0
    _top: Smallest = field(init=False)
    _sample: Smallest = field(init=False)
    _silent: Smallest = field(init=False)

    def __post_init__(self) -> None:
        self._top = Smallest(self.options.max_examples)
        self._sample = Smallest(self.options.sample)
        self._silent = Smallest(self.options.silent)

    @property
    def top(self) -> list[Context]:
        """The strongest examples, one a window, strongest first."""
        return self._top.in_order()

    def is_clear(self, context: Context) -> bool:
        """Whether an example's activation is a fair share of the largest: weaker ones say little of the feature."""
        return context.activation >= CLEAR_SHARE * self.max_activation > 0

    @property
    def clear(self) -> list[Context]:
        """The sampled examples that are clear, in random order; ``n_active_windows`` times their share is an estimate."""
        return [context for context in self._sample.in_order() if self.is_clear(context)]

    @property
    def silent(self) -> list[Context]:
        """Examples without it, drawn at random, in random order."""
        return self._silent.in_order()

    @property
    def by_decile(self) -> dict[int, list[Context]]:
        """The sampled examples by decile of their activation, 10 (strongest) first; each decile in random order."""
        sampled = self._sample.in_order()
        deciles = decile_of(np.array([context.activation for context in sampled], dtype=np.float64))
        found: dict[int, list[Context]] = {}
        for decile in range(N_DECILES, 0, -1):
            members = [c.in_decile(decile) for c, d in zip(sampled, deciles, strict=True) if d == decile]
            if members:
                found[decile] = members
        return found

    def add(self, batch: _Batch, rows: npt.NDArray[np.int32], values: npt.NDArray[np.float32]) -> None:
        """Take in the feature's column of a batch."""
        positive = values > 0
        rows, values = (rows, values) if positive.all() else (rows[positive], values[positive])
        peaks = window_peaks(rows, values, batch.window_of_row)
        self.n_active_tokens += len(rows)
        self.n_active_windows += len(peaks)
        for window, row, value in peaks:
            self.max_activation = max(self.max_activation, value)
            key = (-float(comparable(value)), float(batch.order[window]))
            strong = self._top.wants(*key)
            sampled = self._sample.wants(batch.keys[window])
            if strong or sampled:
                context = batch.context(window, row, rows, values)
                if strong:
                    self._top.add(context, *key)
                if sampled:
                    self._sample.add(context, batch.keys[window])
        for window in batch.by_key:
            if not self._silent.wants(batch.keys[window]):
                break
            context = batch.random_context(window)
            first = batch.first_rows[window] + batch.places[window] - context.centre
            low, high = np.searchsorted(rows, [first, first + len(context.ends)])
            if low == high:
                self._silent.add(context, batch.keys[window])


def window_peaks(
    rows: npt.NDArray[np.integer], values: npt.NDArray[np.float32], window_of_row: npt.NDArray[np.integer]
) -> list[tuple[int, int, float]]:
    """Return (window, row, activation) of the largest activation in each window that has any; the first of ties.

    Args:
        rows: Rows at which the feature is active, ascending.
        values: Activations there.
        window_of_row: The window of each row of the batch, ascending, int [T].
    """
    if not len(rows):
        return []
    strengths = comparable(values)
    windows = window_of_row[rows]
    begins = np.concatenate([[0], np.flatnonzero(np.diff(windows)) + 1])
    largest = np.maximum.reduceat(strengths, begins)
    counts = np.diff(np.concatenate([begins, [len(rows)]]))
    hits = np.flatnonzero(strengths == np.repeat(largest, counts))
    _, firsts = np.unique(windows[hits], return_index=True)
    at = hits[firsts]
    return [(int(windows[i]), int(rows[i]), float(values[i])) for i in at]


class _Batch:
    """Windows that were run together, their rows one after the other, and their random numbers."""

    def __init__(
        self,
        windows: Sequence[Window],
        order: npt.NDArray[np.int64],
        draws: npt.NDArray[np.float64],
        options: CollectOptions,
    ) -> None:
        self.windows = windows
        self.order = order
        self.options = options
        counts = np.array([window.n_rows for window in windows], dtype=np.int64)
        self.first_rows = np.cumsum(counts) - counts
        self.window_of_row = np.repeat(np.arange(len(windows)), counts)
        self.keys = draws[:, 0]
        self.by_key = np.argsort(self.keys, kind="stable")
        self.places = np.minimum((draws[:, 1] * counts).astype(np.int64), counts - 1)
        self._random: dict[int, Context] = {}

    def context(self, window: int, row: int, rows: npt.NDArray[np.int32], values: npt.NDArray[np.float32]) -> Context:
        """Return the context of a row of the batch, with the activations of a feature's column."""
        first = self.first_rows[window]
        return cut_context(
            self.windows[window],
            int(row - first),
            before=self.options.before,
            after=self.options.after,
            rows=rows - first,
            values=values,
        )

    def random_context(self, window: int) -> Context:
        """Return the context of the window's random place, all activations 0."""
        if window not in self._random:
            self._random[window] = cut_context(
                self.windows[window],
                int(self.places[window]),
                before=self.options.before,
                after=self.options.after,
            )
        return self._random[window]


@dataclass
class Collected:
    """What the pass found.

    Attributes:
        features: One for each target, in their order.
        background: Contexts drawn at random from all texts.
        n_texts: Texts read.
        n_empty: Records without a text.
        n_windows: Windows that they made.
        n_tokens: Tokens, special ones not counted.
        notes: What the SAEs' configurations ask of the model, done or not.
    """

    features: list[FeatureExamples]
    background: list[Context] = field(default_factory=list)
    n_texts: int = 0
    n_empty: int = 0
    n_windows: int = 0
    n_tokens: int = 0
    notes: list[str] = field(default_factory=list)


def collect(
    subject: LanguageSubject,
    targets: Sequence[Target],
    texts: TextStream,
    options: CollectOptions,
    *,
    tick: Callable[[int], None] = lambda _texts: None,
) -> Collected:
    """Run the texts through the model and keep examples of the features.

    Args:
        subject: The model.
        targets: The features, of one SAE or of several.
        texts: Where the texts come from.
        options: How much to keep.
        tick: Called with the number of texts done since the last call.

    Raises:
        InputError: The texts cannot be read, or an SAE does not fit the model.
    """
    encoders, notes = _encoders(subject, targets, options.features_at_once)
    sites = sorted({Site.parse(group.source.site) for group in encoders}, key=lambda site: (site.order, site.hook))
    rng = np.random.default_rng(options.seed)
    found = Collected([FeatureExamples(target, options) for target in targets], notes=notes)
    background = Smallest(options.background)
    cutter = WindowCutter(subject, max_tokens=options.max_tokens)
    limit = PADDED_TOKENS_CPU if subject.device.type == "cpu" else PADDED_TOKENS_GPU
    for windows in _batched(_windows(cutter, texts, options.windows_at_once, tick), options.windows_at_once):
        draws = rng.random((len(windows), 2))
        for members in batches_of(windows, padded_tokens=limit):
            batch = _Batch([windows[i] for i in members], np.array(members) + found.n_windows, draws[members], options)
            states = subject.hidden_states(
                [window.token_ids for window in batch.windows], sites, [window.mask for window in batch.windows]
            )
            for group in encoders:
                x_TD = states[str(Site.parse(group.source.site))]
                for place, column in group.encode(x_TD):
                    found.features[place].add(batch, *column)
            for window in batch.by_key:
                if not background.wants(batch.keys[window]):
                    break
                background.add(batch.random_context(window), batch.keys[window])
        found.n_windows += len(windows)
        found.n_tokens += sum(window.n_rows for window in windows)
    found.background = background.in_order()
    found.n_texts, found.n_empty = texts.n_texts, texts.n_empty
    return found


def _batched(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Yield the items in lists of ``size``, the last one shorter."""
    rest = iter(items)
    while group := list(islice(rest, size)):
        yield group


def _windows(cutter: WindowCutter, texts: TextStream, at_once: int, tick: Callable[[int], None]) -> Iterator[Window]:
    for group in _batched(texts, at_once):
        yield from cutter.cut(group)
        tick(len(group))


class ColumnEncoder:
    """One SAE's asked columns, and nothing else of it where the architecture allows that.

    Args:
        source: The SAE.
        encoder: Its encoder.
        columns: The features' indices.
        places: Which target each of them is.
        at_once: Features encoded at once.
    """

    def __init__(
        self, source: SAESource, encoder: Encoder, columns: Sequence[int], places: Sequence[int], at_once: int
    ) -> None:
        self.source = source
        # A TopK kind has to encode all features whatever is asked for, so that it is asked once.
        self._whole = encoder if encoder.needs_all_columns else None
        step = at_once if self._whole is None else len(columns)
        self._columns = [columns[first : first + step] for first in range(0, len(columns), step)]
        self._places = [places[first : first + step] for first in range(0, len(columns), step)]
        self._encoders = [] if self._whole else [encoder.of(part).folded() for part in self._columns]

    def encode(self, x_TD: torch.Tensor) -> Iterator[tuple[int, tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]]]:
        """Yield (target, (rows, values)) for each asked feature over rows [T, D]."""
        for number, places in enumerate(self._places):
            found: SparseColumns
            if self._whole is not None:
                found = encode_rows(x_TD, self._whole, columns=self._columns[number])
            else:
                found = encode_rows(x_TD, self._encoders[number])
            for column, place in enumerate(places):
                yield place, found.column(column)


def _encoders(
    subject: LanguageSubject, targets: Sequence[Target], at_once: int
) -> tuple[list[ColumnEncoder], list[str]]:
    """Load each SAE once, in the order of the targets, as it fits the model; and return notes on what was done for it."""
    groups: dict[str, list[int]] = {}
    for place, target in enumerate(targets):
        groups.setdefault(target.source.slug, []).append(place)
    widths = subject.widths([Site.parse(targets[places[0]].source.site) for places in groups.values()])
    loaded, notes = [], []
    for places in groups.values():
        (source,), said = fit_to_model([targets[places[0]].source], subject)
        notes += said
        width = widths[str(Site.parse(source.site))]
        if source.d_in != width:
            raise InputError(
                f"The SAE {source.sae_id!r} takes rows of width {source.d_in} (its d_in), and {source.site} of "
                f"{subject.id} is {width} wide; it belongs to another model or site."
            )
        encoder = source.load_encoder(subject.device)
        loaded.append(ColumnEncoder(source, encoder, [targets[p].index for p in places], places, at_once))
    return loaded, notes
