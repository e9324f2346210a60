"""Every baseline of a recording, text first, then site by site."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from conceptatlas.base.progress import progress_bar
from conceptatlas.ranking.baselines import Baseline, Contest
from conceptatlas.ranking.dense import DENSE, difference_of_means, logistic_probe
from conceptatlas.ranking.frozen_decoder import frozen_decoder
from conceptatlas.ranking.options import RankOptions
from conceptatlas.ranking.random_directions import NAME, random_directions
from conceptatlas.ranking.search import Source
from conceptatlas.ranking.sparse_probes import k_sparse_probes
from conceptatlas.ranking.strongest import Strongest, strongest_features
from conceptatlas.ranking.text_baselines import (
    TF_IDF,
    sentence_embedding_baseline,
    sentence_length,
    text_baseline,
)
from conceptatlas.recording import EMBED_SITE


@dataclass(frozen=True)
class Baselines:
    """What ``all_baselines`` found.

    Attributes:
        entries: The baselines.
        strongest: The strongest features of each site with SAEs, for the contest's ``fitted_sets``: what feature sets
            choose from.
        notes: What could not be computed, and why.
    """

    entries: list[Baseline]
    strongest: list[Strongest]
    notes: list[str]


def all_baselines(source: Source, contest: Contest, options: RankOptions) -> Baselines:
    """Return every baseline of a recording."""
    recording = source.recording
    by_site: dict[str, list[int]] = {}
    controls: dict[str, list[int]] = {}
    for number, sae in enumerate(recording.saes):
        (by_site if sae.control_of is None else controls).setdefault(sae.site, []).append(number)
    sites = [*(site for site in recording.hidden_sites if site not in by_site), *by_site]
    out, strongest = _of_text(source, contest), []
    with progress_bar("Baselines", len(sites)) as bar:
        for order, site in enumerate(sites):
            found = None
            if site in by_site:
                found = strongest_features(source, contest, by_site[site], contest.fitted_sets())
                strongest.append(found)
            out += _of_site(source, contest, site, found, options, seed=(options.seed, 2, order))
            if found is not None:
                out += k_sparse_probes(source, contest, site, found)
            if site in controls:
                control = frozen_decoder(source, contest, site, controls[site], options)
                out += [] if control is None else [control]
            bar.advance()
    missing = sorted({entry.site for entry in out if not entry.comparable})
    notes = []
    if missing:
        notes.append(
            f"Difference of means, logistic probe and random directions are missing at {', '.join(missing[:3])}"
            f"{' …' if len(missing) > 3 else ''}, and compared with nothing: "
            f"{next(entry.why_not for entry in out if not entry.comparable)}."
        )
    return Baselines(out, strongest, notes)


def _of_text(source: Source, contest: Contest) -> list[Baseline]:
    recording = source.recording
    texts = [text or "" for text in recording.items["text"].to_list()]
    out = [text_baseline(contest, texts, kind) for kind in TF_IDF]
    if recording.keeps_pooled(EMBED_SITE, "mean"):
        vectors = np.asarray(recording.hidden_pooled(EMBED_SITE, "mean"))
        out.append(sentence_embedding_baseline(contest, vectors, "mean of the model's token embeddings"))
    return [*out, sentence_length(contest)]


def _of_site(
    source: Source,
    contest: Contest,
    site: str,
    strongest: Strongest | None,
    options: RankOptions,
    *,
    seed: tuple[int, ...],
) -> list[Baseline]:
    """Return the baselines that read hidden states, or, where these are not as the features', entries that say so."""
    pooled, pool = source.pooled_states(site), source.pool
    if isinstance(pooled, str):
        kinds = DENSE | ({} if strongest is None else {"random_directions": NAME})
        return [Baseline.missing(kind, name, site, pooled) for kind, name in kinds.items()]
    out = [
        difference_of_means(contest, pooled, site, pool),
        difference_of_means(contest, pooled, site, pool, whitened=True),
        logistic_probe(contest, pooled, site, pool),
    ]
    if strongest is not None:
        searched = list(strongest.shares.values())
        control = random_directions(contest, pooled, site, searched, options, pool=pool, seed=seed)
        out += [] if control is None else [control]
    return out
