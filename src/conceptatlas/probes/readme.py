"""The README that is written into every version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conceptatlas.probes.comparison import GAP_LIMIT, gaps
from conceptatlas.probes.strategies import find_strategy

_NAMES = {
    "test_accuracy": "accuracy",
    "test_f1": "F1 (mean over classes)",
    "test_roc_auc": "AUROC",
    "test_mae": "mean absolute error",
    "test_mse": "mean squared error",
    "test_r2": "R²",
    "test_quadratic_kappa": "quadratic kappa",
    "test_spearman": "Spearman correlation",
    "test_active_auroc": "AUROC, active against inactive",
}


def number(value: float | None) -> str:
    """Return a figure with three decimals, or a dash where it is not defined."""
    return "–" if value is None else f"{value:.3f}"


def _inputs(meta: Mapping[str, Any]) -> str:
    if "input_features" in meta:
        pairs = zip(meta["input_saes"], meta["input_features"], strict=True)
        return ", ".join(f"{sae}:{feature}" for sae, feature in pairs)
    return ", ".join(meta.get("input_sites", []))


def _target(meta: Mapping[str, Any]) -> str:
    if meta.get("target_feature", -1) >= 0:
        return f"the activation of feature {meta['target_feature']} of {meta['target_sae']}"
    return f"the grade of {meta.get('concept', 'the concept')}"


def version_readme(version: str, results: Mapping[str, Any]) -> str:
    """Return the README of a version as Markdown."""
    meta = results["metadata"]
    lines = [f"# {version}", ""]
    if meta.get("message"):
        lines += [meta["message"], ""]
    if meta.get("parent"):
        lines += [f"Configuration copied from {meta['parent']}.", ""]
    lines += [
        f"**{find_strategy(results['strategy']).question}**",
        "",
        "| | |",
        "| --- | --- |",
        f"| strategy | {results['strategy']} ({results['task']}) |",
        f"| model | {results['model_type']} {_params(results['best_params'])}|",
        f"| input | {_inputs(meta)} ({results['n_features']} columns, {meta['normalize']}, pool {meta.get('pool')}) |",
        f"| target | {_target(meta)} |",
        f"| subject | {meta.get('model', '')} |",
        f"| training | {results['n_samples_train']} samples in {meta['n_groups_train']} groups |",
        f"| test | {results['n_samples_test']} samples in {meta['n_groups_test']} groups |",
        f"| data set | {meta['dataset']}, SHA-256 {meta['data_hash']} |",
        "",
        "## Scores",
        "",
        "The test part was looked at once. Intervals are 95%, by group: exact for accuracy, score intervals for AUROC, a "
        "bootstrap for the rest.",
        "",
        "| figure | value | interval |",
        "| --- | ---: | ---: |",
        f"| {results['cv_metric']}, cross-validation on the training part | {number(results['cv_mean'])} "
        f"± {number(results['cv_std'])} | |",
    ]
    for key, name in _NAMES.items():
        if key in results:
            bounds = results["intervals"].get(key)
            shown = "" if bounds is None else f"{number(bounds[0])} – {number(bounds[1])}"
            lines.append(f"| {name}, test | {number(results[key])} | {shown} |")
    lines += _controls(results)
    lines += _warnings(results)
    lines += ["", "Use it: `conceptatlas probe predict THIS_FOLDER sentences.txt`", ""]
    return "\n".join(lines)


def _params(params: Mapping[str, Any]) -> str:
    return f"({', '.join(f'{key}={value}' for key, value in params.items())}) " if params else ""


def _controls(results: Mapping[str, Any]) -> list[str]:
    controls = results["controls"]
    lines = []
    if "majority_accuracy" in controls:
        lines.append(f"| accuracy of always saying the commonest class | {number(controls['majority_accuracy'])} | |")
    shuffled = controls["shuffled"]
    if shuffled["scores"]:
        n = len(shuffled["scores"])
        lines.append(
            f"| {shuffled['metric']}, test, after training on shuffled targets (mean of {n}) | "
            f"{number(shuffled['mean'])} | |"
        )
    calibration = results["calibration"]
    if calibration is not None:
        lines.append(
            f"| Brier score, test (always saying the class shares: "
            f"{number(calibration['brier_of_class_shares'])}) | {number(calibration['brier'])} | |"
        )
    return lines


def _warnings(results: Mapping[str, Any]) -> list[str]:
    notes = list(results["notes"])
    cv_test, train_test = gaps(results)
    if cv_test is not None and abs(cv_test) > GAP_LIMIT:
        notes.append(
            f"Cross-validation and test differ by {100 * cv_test:+.1f} points: few test items, or a difference between "
            "the parts."
        )
    if train_test is not None:
        notes.append(f"Training is {100 * train_test:+.1f} points from test; far above 0 means that it overfits.")
    return ["", "## Notes", "", *(f"- {note}" for note in notes)] if notes else []
