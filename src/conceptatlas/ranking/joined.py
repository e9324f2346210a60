"""Two recordings of the same SAEs as one set of items: what was chosen on the first is judged on the second."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from conceptatlas.base.errors import InputError
from conceptatlas.ranking.columns import ItemColumns
from conceptatlas.ranking.design import Design
from conceptatlas.ranking.hidden import Pooled
from conceptatlas.ranking.search import Chunk, Source, stack
from conceptatlas.recording import RecordedSAE, Recording

# What must agree for a feature of one recording to be the same feature in the other.
_SAE_FIELDS = ("sae_id", "site", "d_in", "d_sae", "architecture")


def check_same(first: Recording, second: Recording, slugs: Collection[str] | None = None) -> None:
    """Check that features of ``first`` are the same in ``second``: the same model, template, SAEs and columns.

    Args:
        first: A recording.
        second: Another.
        slugs: The SAEs of the first that matter; None for all.

    Raises:
        InputError: They differ; the message names what.
    """
    differences = []
    a, b = first.manifest, second.manifest
    pairs: list[tuple[str, Any, Any]] = [
        ("the model", a.subject.id, b.subject.id),
        ("its revision", a.subject.revision, b.subject.revision),
        ("the chat template", a.template, b.template),
        ("--fragments", a.options.fragments, b.options.fragments),
        ("--features", a.options.features, b.options.features),
    ]
    differences += [f"{name} is {one!r} and {other!r}" for name, one, other in pairs if one != other]
    there = {sae.slug: sae for sae in second.saes}
    wanted = [sae for sae in first.saes if slugs is None or sae.slug in slugs]
    missing = [sae.slug for sae in wanted if sae.slug not in there]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        differences.append(f"the second lacks the SAE {', '.join(missing[:3])}{more}")
    for sae in wanted:
        other = there.get(sae.slug)
        for field in _SAE_FIELDS if other is not None else ():
            one, two = getattr(sae, field), getattr(other, field)
            if one != two:
                differences.append(f"{field} of the SAE {sae.slug} is {one!r} and {two!r}")
    if differences:
        raise InputError(
            f"{first.path} and {second.path} cannot be judged together: {'; '.join(differences)}; record the second data "
            "set with the model, the SAEs and the options of the first."
        )


class JoinedRecording:
    """What baselines read of a recording, over the chosen items of one and all items of another.

    Attributes:
        saes: The SAEs of the first.
        manifest: The first's; its hidden states are those of all rows only where both kept these.
        items: ``text``, ``label`` and ``n_rows`` of the items of both.
        hidden_sites: Sites whose hidden states both kept.
    """

    def __init__(self, first: Recording, inside: npt.NDArray[np.int64], second: Recording) -> None:
        """Join the items ``inside`` (ascending) of ``first`` with all items of ``second``."""
        chosen = np.zeros(first.n_items, dtype=bool)
        chosen[inside] = True
        every = np.ones(second.n_items, dtype=bool)
        self._parts: tuple[tuple[Any, npt.NDArray[np.bool_]], ...] = ((first, chosen), (second, every))
        self.path = first.path
        self.saes: list[RecordedSAE] = first.saes
        self.hidden_sites = [site for site in first.hidden_sites if site in second.hidden_sites]
        kept = {first.manifest.options.hidden, second.manifest.options.hidden}
        hidden = "all" if kept == {"all"} else "none" if "none" in kept else "final"
        options = first.manifest.options.model_copy(update={"hidden": hidden})
        self.manifest = first.manifest.model_copy(update={"options": options})
        self.items = pl.concat([rec.items.filter(of).select("text", "label", "n_rows") for rec, of in self._parts])
        self.n_items = self.items.height
        self.n_rows = int(self.items["n_rows"].sum())

    @cached_property
    def item_of_row(self) -> npt.NDArray[np.int32]:
        """The item that each row belongs to, int32 [T]."""
        return np.repeat(np.arange(self.n_items, dtype=np.int32), self.items["n_rows"].to_numpy())

    def rows_of(self, first: npt.NDArray[Any], second: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return what belongs to the rows, [T, …], from what belongs to the rows of each recording."""
        parts = zip(self._parts, (first, second), strict=True)
        return np.concatenate([np.asarray(values)[of[rec.item_of_row]] for (rec, of), values in parts])

    def hidden(self, site: str) -> npt.NDArray[np.float32]:
        """Return the hidden states of a site at every row, float32 [T, D], where both recordings kept them."""
        return self.rows_of(*(rec.hidden(site) for rec, _ in self._parts))

    @property
    def keeps_all_rows(self) -> bool:
        """Whether both kept features at every row."""
        return all(rec.keeps_all_rows for rec, _ in self._parts)

    def keeps_pooled(self, site: str, how: str) -> bool:
        """Whether both recordings can give ``hidden_pooled`` of a site."""
        return all(rec.keeps_pooled(site, how) for rec, _ in self._parts)

    def hidden_pooled(self, site: str, how: str) -> npt.NDArray[np.float32]:
        """Return the hidden states of a site pooled over each item's rows, float32 [N, D]."""
        return np.concatenate([np.asarray(rec.hidden_pooled(site, how))[of] for rec, of in self._parts])


class JoinedSource:
    """Scores per item over the chosen items of one recording (``inside``), then all items of another."""

    def __init__(self, first: Source, inside: npt.NDArray[np.int64], second: Source) -> None:
        self._first, self._second = first, second
        self.recording = JoinedRecording(first.recording, inside, second.recording)
        self.pool = first.pool
        left_out = [
            np.zeros(source.recording.n_rows, dtype=bool) if source.left_out is None else source.left_out
            for source in (first, second)
        ]
        self.left_out = None if first.left_out is None else self.recording.rows_of(*left_out)
        # The place of each item of the first, -1 where it is not among the chosen.
        self._place = np.full(first.recording.n_items, -1, dtype=np.int32)
        self._place[inside] = np.arange(len(inside))
        self._inside = inside
        self._offset = len(inside)
        number_of = {sae.slug: number for number, sae in enumerate(second.recording.saes)}
        self._number = [number_of[sae.slug] for sae in first.recording.saes]

    def chunks(self, numbers: Sequence[int] | None = None) -> list[Chunk]:
        """Return the columns of all SAEs (or of those of these numbers), cut as the first recording's."""
        return self._first.chunks(numbers)

    def firing_rows(self, chunk: Chunk) -> npt.NDArray[np.int64]:
        """Return on how many rows of the first recording each feature of a chunk fires, int64 [F]."""
        return self._first.firing_rows(chunk)

    @property
    def n_recorded_rows(self) -> int:
        """The rows of the first recording whose features were kept."""
        return self._first.n_recorded_rows

    def load(self, chunk: Chunk) -> ItemColumns:
        """Return the scores of a chunk's features on all items."""
        one = self._first.load(chunk)
        one = one.keep(self._place[one.items] >= 0)
        two = self._second.load(Chunk(self._number[chunk.sae], chunk.start, chunk.stop))
        items = np.concatenate([self._place[one.items], two.items + np.int32(self._offset)])
        feature = np.concatenate([one.feature_of_entry(), two.feature_of_entry()])
        order = np.argsort(feature, kind="stable")
        values = np.concatenate([one.values, two.values])
        return ItemColumns(one.indptr + two.indptr, items[order].astype(np.int32), values[order])

    def pooled_states(self, site: str) -> Pooled | str:
        """Return the hidden states of a site on all items, pooled as the features are, or why they cannot be."""
        one, two = self._first.pooled_states(site), self._second.pooled_states(site)
        if isinstance(one, str) or isinstance(two, str):
            return one if isinstance(one, str) else f"on the data set judged on, {two}"
        if (one.rows is None) != (two.rows is None):
            return "one of the two recordings has hidden states at all rows, the other pooled ones; record both alike"
        return one.only(self._inside).followed_by(two)

    def gather(self, saes: npt.NDArray[np.integer], features: npt.NDArray[np.integer]) -> ItemColumns:
        """Return the scores of chosen features: (number of the SAE, index) pairs, in the order given."""
        return stack([self.load(Chunk(int(s), int(f), int(f) + 1)) for s, f in zip(saes, features, strict=True)])


def joined_design(first: Design, second: pl.DataFrame) -> Design:
    """Return the design in which the discovery items of ``first`` choose, and all items of ``second`` are the hold-out.

    Raises:
        InputError: An item of the second has no grade.
    """
    missing = second["label"].null_count()
    if missing:
        raise InputError(
            f"--judge-on needs a grade for every item, and {missing} of {second.height} have none; label them."
        )
    inside = first.discovery
    groups = np.unique(second["split_hash"].to_numpy(), return_inverse=True)[1].astype(np.int64)
    lengths = np.column_stack([second["text"].fill_null("").str.len_chars().to_numpy(), second["n_rows"].to_numpy()])
    n_first = int(inside.sum())
    return Design.build(
        np.concatenate([first.labels[inside], second["label"].to_numpy()]),
        np.arange(n_first + second.height) >= n_first,
        groups=np.concatenate([first.groups[inside], groups + first.groups.max() + 1]),
        confounds=np.concatenate([first.confounds[inside][:, :2], lengths]).astype(np.float64),
    )
