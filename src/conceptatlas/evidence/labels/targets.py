"""Which features are to be named: indices, a JSON file or a ranking, each placed in the SAE that it belongs to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conceptatlas.base.errors import InputError, nearest
from conceptatlas.base.files import read_json

if TYPE_CHECKING:
    from conceptatlas.ranking import Ranking
    from conceptatlas.saes import SAESource


@dataclass(frozen=True)
class Target:
    """A feature to be named.

    Attributes:
        source: Its SAE.
        index: Its index there.
        score: The figure that came with it (of the JSON file, or the ranking's interpretability score), or None.
        rank: Its place in the ranking, or None.
    """

    source: SAESource
    index: int
    score: float | None = None
    rank: int | None = None


@dataclass(frozen=True)
class Asked:
    """What was asked for, before the SAEs are known.

    Attributes:
        indices: The features' indices.
        scores: One for each, or None.
        saes: For each the SAE that a ranking names, as (slug or None, sae_id, average L0); empty without a ranking.
        ranks: Their places in the ranking; empty without one.
    """

    indices: tuple[int, ...]
    scores: tuple[float | None, ...]
    saes: tuple[tuple[str | None, str, float | None], ...] = ()
    ranks: tuple[int, ...] = ()


def read_features(features: Sequence[int] | str | Path | Ranking, *, top_n: int | None = None) -> Asked:
    """Read what ``--features`` may be.

    Args:
        features: Indices, the same with commas (``11,313,251``), the path of a JSON file
            (``{"feature_indices": [...], "scores": [...]}``), a ranking or its folder.
        top_n: Only the first so many.

    Raises:
        InputError: It is none of these, or there is no feature in it.
    """
    asked = _asked(features)
    if not asked.indices:
        raise InputError("There is no feature to name; give indices, a JSON file with feature_indices, or a ranking.")
    if top_n is None:
        return asked
    if top_n < 1:
        raise InputError(f"--top-n is {top_n}; it must be 1 or more.")
    return Asked(asked.indices[:top_n], asked.scores[:top_n], asked.saes[:top_n], asked.ranks[:top_n])


def _asked(features: Sequence[int] | str | Path | Ranking) -> Asked:
    if isinstance(features, str | Path):
        path = Path(features).expanduser()
        if not str(features).strip():
            return Asked((), ())
        if isinstance(features, str) and not path.exists() and path.suffix != ".json" and "/" not in features:
            return _of_indices(_split(features))
        if path.is_dir():
            from conceptatlas.ranking import Ranking

            return _of_ranking(Ranking.open(path, read_all=False))
        return _of_json(path)
    if isinstance(features, Sequence):
        return _of_indices(list(features))
    return _of_ranking(features)


def _split(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    bad = next((part for part in parts if not part.isdecimal()), None)
    if bad is not None:
        raise InputError(
            f"--features: {bad!r} is neither a feature's index nor a path that exists; write 11,313,251, or give a JSON "
            "file or a ranking."
        )
    return [int(part) for part in parts]


def _of_indices(indices: Sequence[Any], scores: Sequence[float | None] | None = None, where: str = "") -> Asked:
    kept: dict[int, float | None] = {}
    for place, index in enumerate(indices):
        if isinstance(index, bool) or not hasattr(index, "__index__") or int(index) < 0:
            raise InputError(f"{where}{index!r} is no feature's index; an index is a whole number from 0.")
        kept.setdefault(int(index), None if scores is None else scores[place])
    return Asked(tuple(kept), tuple(kept.values()))


def _of_json(path: Path) -> Asked:
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("feature_indices"), list):
        has = ", ".join(content) if isinstance(content, dict) else type(content).__name__
        raise InputError(
            f'{path} has no "feature_indices" (it has: {has or "nothing"}); write '
            '{"feature_indices": [11, 313], "scores": [0.9, 0.8]}.'
        )
    indices, scores = content["feature_indices"], content.get("scores")
    if scores is not None:
        if not isinstance(scores, list) or len(scores) != len(indices):
            found = len(scores) if isinstance(scores, list) else type(scores).__name__
            raise InputError(f"{path}: there are {len(indices)} feature_indices and {found} scores; give one for each.")
        scores = [_score(value, path) for value in scores]
    return _of_indices(indices, scores, f"{path}: ")


def _score(value: object, path: Path) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{path}: the score {value!r} is no number; write a number or null.")
    return float(value)


def _of_ranking(ranking: Ranking) -> Asked:
    rows = ranking.features.to_dicts()
    if not rows:
        raise InputError(
            f"The ranking {ranking.path or ''} keeps no feature; rank with milder filters, or give indices."
        )
    return Asked(
        indices=tuple(int(row["feature_id"]) for row in rows),
        scores=tuple(row["interpretability_score"] for row in rows),
        saes=tuple((row.get("slug"), row["sae_id"], row["average_l0"]) for row in rows),
        ranks=tuple(int(row["rank"]) for row in rows),
    )


def pick_sae(sources: Sequence[SAESource], sae_id: str | None) -> list[SAESource]:
    """Return the SAEs that ``--sae-id`` means: a hook point, an sae_id, or ``release/sae_id``; all without it.

    Raises:
        InputError: None is called so.
    """
    if sae_id is None:
        return list(sources)
    exact = [s for s in sources if sae_id in (s.sae_id, s.slug, f"{s.release}/{s.sae_id}")]
    found = exact or [s for s in sources if s.site == sae_id]
    if not found:
        names = sorted({s.sae_id for s in sources} | {s.site for s in sources})
        raise InputError(f"No SAE here is called {sae_id!r}; nearest: {', '.join(nearest(sae_id, names))}.")
    return found


def place_features(asked: Asked, sources: Sequence[SAESource]) -> list[Target]:
    """Return each feature in its SAE.

    Raises:
        InputError: A bare index could belong to several SAEs, a ranking names an SAE that is not here, or an index is
            out of range.
    """
    if asked.saes:
        owners = [_owner(sources, *named) for named in asked.saes]
    elif len(sources) == 1:
        owners = [sources[0]] * len(asked.indices)
    else:
        names = ", ".join(f"{s.sae_id}" for s in sources[:5]) + (", …" if len(sources) > 5 else "")
        raise InputError(
            f"Feature {asked.indices[0]} could belong to any of {len(sources)} SAEs ({names}); pick one with --sae-id."
        )
    ranks: Sequence[int | None] = asked.ranks or [None] * len(asked.indices)
    for source, index in zip(owners, asked.indices, strict=True):
        if source.d_sae is not None and index >= source.d_sae:
            raise InputError(
                f"There is no feature {index} in {source.sae_id}: it has {source.d_sae} features, 0 to {source.d_sae - 1}."
            )
    return [
        Target(source, index, score, rank)
        for source, index, score, rank in zip(owners, asked.indices, asked.scores, ranks, strict=True)
    ]


def _owner(sources: Sequence[SAESource], slug: str | None, sae_id: str, average_l0: float | None) -> SAESource:
    found = [s for s in sources if (s.slug == slug if slug else s.sae_id == sae_id)]
    if len(found) > 1 and average_l0 is not None:
        found = [s for s in found if s.average_l0 is None or math.isclose(s.average_l0, average_l0, abs_tol=0.05)]
    if len(found) != 1:
        what = "does not hold" if not found else "names several times"
        raise InputError(f"The ranking has features of the SAE {sae_id!r}, which --saes {what}; give the SAEs ranked.")
    return found[0]
