"""Which feature is meant: one latent of one SAE, never an index alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from conceptatlas.base.errors import InputError, unknown_name

if TYPE_CHECKING:
    from conceptatlas.ranking import Ranking
    from conceptatlas.recording import Recording


@dataclass(frozen=True)
class FeatureRef:
    """One feature of one recorded SAE.

    Attributes:
        slug: The SAE's folder name in the recording (release and sae_id, flattened).
        sae_id: The SAE's name within its release.
        layer: The layer of its site.
        average_l0: Its average number of active features per row, as the recording has it.
        feature_id: The index of the latent.
        rank: Its place in the ranking that it came from (1 is best), or None.
        neuronpedia_url: Its page, where this very SAE has one; else the empty string.
    """

    slug: str
    sae_id: str
    layer: int
    average_l0: float
    feature_id: int
    rank: int | None = None
    neuronpedia_url: str = ""

    @property
    def label(self) -> str:
        """How plots name the feature: layer, L0 and index."""
        return f"layer {self.layer} · L0 {self.average_l0:g} · feature {self.feature_id}"


def column_of_rows(recording: Recording, feature: FeatureRef) -> npt.NDArray[np.float32]:
    """Return one feature's activation on every row of the recording, float32 [T] (0 where it is silent).

    Raises:
        InputError: The recording has no such SAE, or the SAE no such feature.
    """
    slugs = {sae.slug for sae in recording.saes}
    if feature.slug not in slugs:
        raise unknown_name("SAE in this recording", feature.slug, slugs)
    columns = recording.columns(feature.slug)
    if not 0 <= feature.feature_id < columns.n_features:
        raise InputError(
            f"There is no feature {feature.feature_id} in {feature.sae_id}: its features are 0 to "
            f"{columns.n_features - 1}."
        )
    rows, values = columns.feature(feature.feature_id)
    acts_T = np.zeros(recording.n_rows, dtype=np.float32)
    acts_T[rows] = values
    return acts_T


def features_of_ranking(ranking: Ranking, recording: Recording, *, top_n: int | None = None) -> list[FeatureRef]:
    """Return the ranking's kept features, best first, as features of this recording.

    Raises:
        InputError: The ranking names an SAE that the recording does not hold.
    """
    by_name: dict[tuple[str, float], str] = {}
    for sae in recording.saes:
        by_name[(sae.sae_id, round(float(sae.average_l0), 4))] = sae.slug
    slugs = {sae.slug for sae in recording.saes}
    table = ranking.features if top_n is None else ranking.features.head(top_n)
    found = []
    for row in table.iter_rows(named=True):
        slug = row.get("slug") or by_name.get((row["sae_id"], round(float(row["average_l0"]), 4)))
        if slug not in slugs:
            raise InputError(
                f"The ranking names the SAE {row['sae_id']!r}, which this recording does not hold "
                f"({', '.join(sorted(slugs)[:5])}); give the recording that was ranked."
            )
        found.append(
            FeatureRef(
                slug=slug,
                sae_id=row["sae_id"],
                layer=int(row["layer"]),
                average_l0=float(row["average_l0"]),
                feature_id=int(row["feature_id"]),
                rank=int(row["rank"]),
                neuronpedia_url=row.get("neuronpedia_url") or "",
            )
        )
    return found


def best_of_layers(features: Sequence[FeatureRef]) -> list[FeatureRef]:
    """Return the first feature of each layer, in the order of the layers; ``features`` come best first."""
    first: dict[int, FeatureRef] = {}
    for feature in features:
        first.setdefault(feature.layer, feature)
    return [first[layer] for layer in sorted(first)]


def item_bounds(recording: Recording) -> npt.NDArray[np.int64]:
    """Return each item's first row and the row after its last, int64 [N, 2]."""
    return np.stack([recording.first_rows[:-1], recording.first_rows[1:]], axis=1)
