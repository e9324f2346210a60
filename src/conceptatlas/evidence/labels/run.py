"""The stage ``label``: examples of the features from any texts, a label for each, and how good the labels are."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conceptatlas.base.errors import InputError
from conceptatlas.base.kinds import LABELS
from conceptatlas.base.progress import progress_bar
from conceptatlas.base.provenance import write_run
from conceptatlas.base.writing import may_replace_folder, writing
from conceptatlas.evidence.labels.asking import GIVE_UP, label_request, read_label
from conceptatlas.evidence.labels.choosing import Choice, choose, unscored
from conceptatlas.evidence.labels.collect import Collected, CollectOptions, collect
from conceptatlas.evidence.labels.keywords import (
    background_frequencies,
    search_keywords,
    search_label,
    symbol_frequencies,
)
from conceptatlas.evidence.labels.scoring import count_calls, score_labels
from conceptatlas.evidence.labels.targets import Asked, Target, pick_sae, place_features, read_features
from conceptatlas.evidence.labels.writing import EXAMPLES_FILE, LABELS_FILE, FeatureLabel, write_examples, write_labels
from conceptatlas.llm import LLM, Ask, ChatModel, ChatRequest, NoAnswer
from conceptatlas.subjects.texts import TextStream

if TYPE_CHECKING:
    from conceptatlas.ranking import Ranking
    from conceptatlas.recording import Recording
    from conceptatlas.saes import SAESource


@dataclass(frozen=True)
class LabelOptions:
    """How features are labelled.

    Attributes:
        column: The column of the texts.
        n_samples: Texts read (a record without text counts, too).
        max_examples_for_labeling: Examples that the labeller is shown.
        max_examples_for_scoring: Examples of each kind (activating, silent) by which a label is judged.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        dtype: Of the model.
        collect: What is kept of each feature, and how much is done at once.
    """

    column: str = "text"
    n_samples: int = 1000
    max_examples_for_labeling: int = 10
    max_examples_for_scoring: int = 20
    device: str = "auto"
    dtype: str = "auto"
    collect: CollectOptions = field(default_factory=CollectOptions)

    def __post_init__(self) -> None:
        if self.max_examples_for_labeling < 1 or self.max_examples_for_scoring < 1:
            raise InputError("--max-examples-for-labeling and --max-examples-for-scoring must be 1 or more.")


@dataclass
class LabelRun:
    """A label run.

    Attributes:
        labels: One for each feature, in the order in which they were asked for.
        collected: Examples and counts.
        examples_path: ``feature_examples.jsonl``.
        labels_path: ``feature_labels.json``.
        usage: What the language model was asked and what it cost, one line; empty without one.
        stopped: Why the language model was not asked to the end; empty where it was.
        lost: Reasons for which groups of texts got no verdict.
    """

    labels: list[FeatureLabel]
    collected: Collected
    examples_path: Path
    labels_path: Path
    usage: str = ""
    stopped: str = ""
    lost: list[str] = field(default_factory=list)

    @property
    def unlabelled(self) -> list[FeatureLabel]:
        """Features for which the language model was asked in vain."""
        return [label for label in self.labels if label.reason]

    @property
    def n_llm_labels(self) -> int:
        """How many features have a label of the language model."""
        return sum(label.label_llm is not None for label in self.labels)

    @property
    def why_unlabelled(self) -> str:
        """What is said of the features for which the language model was asked in vain (there is one at least)."""
        return f"{len(self.unlabelled)} features got no valid label (the first: {self.unlabelled[0].reason})"

    @property
    def silent(self) -> list[FeatureLabel]:
        """Features that no text activated."""
        return [label for label in self.labels if not label.found.n_active_tokens]

    @property
    def table(self) -> list[dict[str, Any]]:
        """The entries of ``feature_labels.json``."""
        return [label.as_dict() for label in self.labels]


@dataclass(frozen=True)
class Prepared:
    """Features with their examples, before anything is asked.

    Attributes:
        collected: Examples and counts.
        labels: With search labels only.
        choices: Which examples are for the labeller and which for the scores.
        facts: What ``run.json`` says of them.
        inputs: The ranking, or the file, that names the features.
    """

    collected: Collected
    labels: list[FeatureLabel]
    choices: list[Choice]
    facts: dict[str, Any]
    inputs: dict[str, Path] = field(default_factory=dict)

    def requests(self) -> list[ChatRequest]:
        """Return the questions for labels (none for a feature without an example)."""
        return [label_request(choice.shown) for choice in self.choices if choice.shown]

    def n_score_calls(self, model: ChatModel, seed: int) -> int:
        """Return how many calls of ``model`` the scores take."""
        return count_calls(self.choices, model, seed=seed)


def prepare_labels(
    features: Sequence[int] | str | Path | Ranking,
    dataset: str | Sequence[str],
    *,
    model: str | None = None,
    saes: Sequence[str] = (),
    sae_id: str | None = None,
    top_n: int | None = None,
    options: LabelOptions = LabelOptions(),
) -> Prepared:
    """Find examples of the features in the texts, and make search labels.

    Args:
        features: Indices, a comma list, a JSON file with ``feature_indices``, a ranking or its folder.
        dataset: A hub data set, or a text, CSV, JSONL or Parquet file, or ``builtin:<trait>``; or
            the texts themselves.
        model: The model; with a ranking the one that was recorded, where None.
        saes: The SAEs; likewise.
        sae_id: Which of them: a hook point or an sae_id.
        top_n: Only the first so many features.
        options: How much is read and kept.

    Raises:
        InputError: A feature, SAE, model or text is not there or does not fit; says which and what to do.
    """
    from conceptatlas.subjects import load_subject

    asked = read_features(features, top_n=top_n)
    recording = _recorded(features) if model is None or not saes else None
    if model is None and recording is not None:
        model = str(recording.manifest.request["model"])
    assert model is not None  # else there is a recording
    targets = _targets(asked, _sources(asked, saes, model, recording), sae_id)
    texts = TextStream(dataset, column=options.column, n_samples=options.n_samples)
    next(
        iter(TextStream(dataset, column=options.column, n_samples=options.n_samples))
    )  # fails before a model is loaded
    subject = load_subject(model, device=options.device, dtype=options.dtype)
    with progress_bar("Texts", options.n_samples) as bar:
        collected = collect(subject, targets, texts, options.collect, tick=bar.advance)
    background = background_frequencies(collected.background)
    symbols = symbol_frequencies(collected.background)
    choices = [
        choose(found, n_shown=options.max_examples_for_labeling, n_scored=options.max_examples_for_scoring)
        for found in collected.features
    ]
    labels = []
    for found, choice in zip(collected.features, choices, strict=True):
        # A search label may be judged, too, where the language model gives none: so not from the examples that judge it.
        keywords = search_keywords(unscored(found, choice), background, symbols)
        labels.append(FeatureLabel(found, keywords, search_label(keywords)))
    facts = {
        "model": subject.id,
        "model_revision": subject.revision,
        "dtype": str(subject.dtype),
        "device": str(subject.device),
        "dataset": texts.source,
        "saes": sorted({target.source.slug for target in targets}),
        "notes": collected.notes,
        "n_texts": collected.n_texts,
        "n_empty": collected.n_empty,
        "n_windows": collected.n_windows,
        "n_tokens": collected.n_tokens,
    }
    return Prepared(collected, labels, choices, facts, _inputs(features))


def _inputs(features: Sequence[int] | str | Path | Ranking) -> dict[str, Path]:
    """Return what names the features, where it is on disk."""
    path = getattr(features, "path", features)
    if isinstance(path, str | Path) and Path(path).exists():
        return {"features": Path(path)}
    return {}


def _sources(asked: Asked, saes: Sequence[str], model: str, recording: Recording | None) -> list[SAESource]:
    """Return the SAEs that were asked for by name, else those of the recording that the features are of."""
    from conceptatlas.saes import resolve_saes

    if saes or recording is None:
        return resolve_saes(saes, model, complete=False)
    named = {slug or name for slug, name, _ in asked.saes}
    slugs = [sae.slug for sae in recording.saes if not named or sae.slug in named or sae.sae_id in named]
    return [recording.source(slug) for slug in slugs or [sae.slug for sae in recording.saes]]


def _targets(asked: Asked, found: list[SAESource], sae_id: str | None) -> list[Target]:
    sources = pick_sae(found, sae_id)
    if asked.saes:
        named = {slug or name for slug, name, _ in asked.saes}
        sources = [s for s in sources if s.slug in named or s.sae_id in named] or sources
    return place_features(asked, [source.completed() for source in sources])


def _recorded(features: Sequence[int] | str | Path | Ranking) -> Recording:
    """Return the recording that a ranking was made from.

    Raises:
        InputError: It is no ranking, or its recording is not there any more.
    """
    from conceptatlas.ranking import Ranking
    from conceptatlas.recording import Recording

    if isinstance(features, str | Path) and Path(features).is_dir():
        features = Ranking.open(features, read_all=False)
    if not isinstance(features, Ranking):
        raise InputError("Give --model and --saes: only a ranking says which they are.")
    place = Path(str(features.facts.get("recording", "")))
    if not (place / "manifest.json").is_file():
        raise InputError(f"The recording of this ranking is not at {place} any more; give --model and --saes.")
    return Recording.open(place)


def label_features(
    features: Sequence[int] | str | Path | Ranking,
    dataset: str | Sequence[str],
    out: str | os.PathLike[str],
    *,
    model: str | None = None,
    saes: Sequence[str] = (),
    sae_id: str | None = None,
    top_n: int | None = None,
    options: LabelOptions = LabelOptions(),
    llm: LLM | None = None,
) -> LabelRun:
    """Name features and score the names; writes ``feature_examples.jsonl`` and ``feature_labels.json`` into ``out``.

    Args:
        features: As for `prepare_labels`.
        dataset: As for `prepare_labels`.
        out: The folder to write into.
        model: As for `prepare_labels`.
        saes: As for `prepare_labels`.
        sae_id: As for `prepare_labels`.
        top_n: As for `prepare_labels`.
        options: How much is read and kept.
        llm: Names the features and judges the names; without it there are search labels only.

    Raises:
        InputError: The input is wrong; says what and where.

    Warns:
        UserWarning: The language model was asked and gave no valid label at all.
    """
    may_replace_folder(LABELS, Path(out))  # before the work, not after it
    prepared = prepare_labels(features, dataset, model=model, saes=saes, sae_id=sae_id, top_n=top_n, options=options)
    run = finish_labels(prepared, out, options=options, llm=llm)
    if run.unlabelled and run.n_llm_labels == 0:
        warnings.warn(f"{run.why_unlabelled}, so search labels stand in for all; try another model.", stacklevel=2)
    return run


def finish_labels(
    prepared: Prepared, out: str | os.PathLike[str], *, options: LabelOptions = LabelOptions(), llm: LLM | None = None
) -> LabelRun:
    """Ask the language model, if there is one, and write the files into the folder ``out``."""
    with writing(LABELS, out, prepared.inputs) as folder:
        return _finish(prepared, Path(out), folder, options, llm)


def _finish(prepared: Prepared, out: Path, folder: Path, options: LabelOptions, llm: LLM | None) -> LabelRun:
    write_examples(folder, prepared.collected.features, per_decile=2, silent=10)
    labels, stopped = prepared.labels, ""
    lost: list[str] = []
    if llm is not None:
        labels, lost = _ask_labels(prepared, options, llm)
        stopped = "" if llm.stopped is None else str(llm.stopped)
    run = LabelRun(
        labels=labels,
        collected=prepared.collected,
        examples_path=out / EXAMPLES_FILE,
        labels_path=out / LABELS_FILE,
        usage="" if llm is None else llm.summary(),
        stopped=stopped,
        lost=lost,
    )
    write_labels(folder, labels)
    facts = dict(prepared.facts)
    if llm is not None:
        facts |= {"llm": {"model": llm.model.name, "endpoint": llm.model.endpoint}}
        facts |= {"n_without_llm_label": len(run.unlabelled), "n_groups_without_verdict": len(lost)}
    written = {**vars(options), "collect": vars(options.collect)}
    write_run(folder, command="label", options=written, **facts)
    return run


def _ask_labels(prepared: Prepared, options: LabelOptions, llm: LLM) -> tuple[list[FeatureLabel], list[str]]:
    """Return the labels with the language model's, and their scores; and why groups of texts got no verdict."""
    labels = list(prepared.labels)
    asked = [place for place, choice in enumerate(prepared.choices) if choice.shown]
    asks = [Ask(label_request(prepared.choices[place].shown), read_label) for place in asked]
    with progress_bar("Labels", len(asks)) as bar:
        for index, answer in llm.ask_all(asks, tries=2, give_up=GIVE_UP):
            place = asked[index]
            if isinstance(answer, NoAnswer):
                labels[place] = replace(labels[place], reason=str(answer))
            else:
                labels[place] = replace(labels[place], label_llm=answer)
            bar.advance()
    seed = options.collect.seed
    with progress_bar("Scores", prepared.n_score_calls(llm.model, seed)) as bar:
        scores, lost = score_labels(
            llm, [label.label for label in labels], prepared.choices, seed=seed, tick=bar.advance
        )
    scored = [
        replace(label, detection=of["detection"], fuzzing=of["fuzzing"])
        for label, of in zip(labels, scores, strict=True)
    ]
    return scored, lost
