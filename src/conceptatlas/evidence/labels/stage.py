"""Two ways to label: the function for people who label with a model of their own machine, and the stage of a study."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from conceptatlas.base.errors import WorkError
from conceptatlas.evidence.labels.collect import CollectOptions
from conceptatlas.evidence.labels.labeller import local_model
from conceptatlas.evidence.labels.run import LabelOptions, LabelRun, label_features
from conceptatlas.llm import LLM, LLMOptions, open_llm

if TYPE_CHECKING:
    from conceptatlas.ranking import Ranking


def run_labeling(
    feature_indices: Sequence[int] | str | Path,
    model_path: str,
    sae_path: str | Sequence[str],
    dataset_path: str | Sequence[str],
    sae_id: str | None = None,
    output_dir: str | os.PathLike[str] = "results",
    n_samples: int = 1000,
    max_examples_per_feature: int = 20,
    device: str | None = None,
    column_name: str = "text",
    minibatch_size_features: int = 256,
    minibatch_size_tokens: int = 64,
    label_model_path: str | None = None,
    max_examples_for_labeling: int = 10,
    *,
    llm: LLM | None = None,
) -> tuple[Path, Path]:
    """Name features with a language model on this machine.

    Args:
        feature_indices: Indices, a comma list, the path of a JSON file with ``feature_indices`` and ``scores``, or of a
            ranking.
        model_path: The model under study.
        sae_path: Its SAE or SAEs.
        dataset_path: The texts; see `prepare_labels`.
        sae_id: Which SAE: a hook point or an sae_id.
        output_dir: Where the files go.
        n_samples: Texts read.
        max_examples_per_feature: Strongest examples kept of each feature.
        device: For both models; chosen where None.
        column_name: The column of the texts.
        minibatch_size_features: Features encoded at once.
        minibatch_size_tokens: Windows of text run at once.
        label_model_path: The model that labels; the one under study where None.
        max_examples_for_labeling: Examples that it is shown.
        llm: Label with this client instead.

    Returns:
        The paths of ``feature_examples.jsonl`` and ``feature_labels.json``.

    Raises:
        InputError: The input is wrong; says what and where.
    """
    options = LabelOptions(
        column=column_name,
        n_samples=n_samples,
        max_examples_for_labeling=max_examples_for_labeling,
        device=device or "auto",
        collect=CollectOptions(
            max_examples=max_examples_per_feature,
            windows_at_once=minibatch_size_tokens,
            features_at_once=minibatch_size_features,
        ),
    )
    saes = [sae_path] if isinstance(sae_path, str) else list(sae_path)

    def label(client: LLM) -> LabelRun:
        return label_features(
            feature_indices, dataset_path, output_dir, model=model_path, saes=saes, sae_id=sae_id, options=options,
            llm=client,
        )  # fmt: skip

    if llm is not None:
        run = label(llm)
    else:
        local = local_model(label_model_path or model_path, device=device or "auto")
        with open_llm(LLMOptions(local_model=local)) as client:
            run = label(client)
    return run.examples_path, run.labels_path


def label_ranking(
    ranking: Ranking | str | os.PathLike[str],
    dataset: str | Sequence[str],
    out: str | os.PathLike[str],
    *,
    model: str | None = None,
    saes: Sequence[str] = (),
    top_n: int | None = 20,
    column: str = "text",
    n_samples: int = 1000,
    max_examples: int = 20,
    max_examples_for_labeling: int = 10,
    max_examples_for_scoring: int = 20,
    max_tokens: int = 1024,
    device: str = "auto",
    dtype: str = "auto",
    seed: int = 0,
    llm_model: str | None = None,
    llm_base_url: str | None = None,
    label_model: str | None = None,
    llm_timeout: float = 120.0,
    llm_max_tokens: int | None = None,
    concurrency: int = 4,
) -> LabelRun:
    """Name the best features of a ranking: the stage ``label`` of a study.

    Args:
        ranking: A ranking or its folder.
        dataset: The texts; see `prepare_labels`.
        out: The folder to write into.
        model: The model; the one that was recorded where None.
        saes: The SAEs; those that were recorded where empty.
        top_n: How many of the best features.
        column: The column of the texts.
        n_samples: Texts read.
        max_examples: Strongest examples kept of each feature.
        max_examples_for_labeling: Examples that the labeller is shown.
        max_examples_for_scoring: Examples of each kind by which a label is judged.
        max_tokens: The longest window of a text.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        dtype: Of the model.
        seed: Of the samples.
        llm_model: The labeller's name at an endpoint; without it and ``label_model`` there are search labels only.
        llm_base_url: The endpoint.
        label_model: A model to label with on this machine.
        llm_timeout: Seconds for one answer.
        llm_max_tokens: The longest answer in tokens.
        concurrency: Requests under way at once.

    Raises:
        InputError: The input is wrong; says what and where.
        WorkError: The language model could not be asked to the end; what it answered is kept, so run again.
    """
    options = LabelOptions(
        column=column,
        n_samples=n_samples,
        max_examples_for_labeling=max_examples_for_labeling,
        max_examples_for_scoring=max_examples_for_scoring,
        device=device,
        dtype=dtype,
        collect=CollectOptions(max_examples=max_examples, max_tokens=max_tokens, seed=seed),
    )
    features = Path(ranking) if isinstance(ranking, str | os.PathLike) else ranking
    if llm_model is None and llm_base_url is None and label_model is None:
        return label_features(features, dataset, out, model=model, saes=saes, top_n=top_n, options=options)
    endpoint = LLMOptions(
        model=llm_model,
        base_url=llm_base_url,
        local_model=None if label_model is None else local_model(label_model, device=device),
        timeout=llm_timeout,
        max_tokens=llm_max_tokens,
        concurrency=concurrency,
    )
    with open_llm(endpoint) as llm:
        run = label_features(features, dataset, out, model=model, saes=saes, top_n=top_n, options=options, llm=llm)
    if run.stopped:
        raise WorkError(f"The language model was not asked to the end: {run.stopped}. Run again to go on.")
    return run
