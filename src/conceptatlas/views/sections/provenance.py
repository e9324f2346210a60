"""What was run: the data and its split, the SAEs and their checks, the options and library versions."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np

from conceptatlas.views.html import render
from conceptatlas.views.sections import Section, section
from conceptatlas.views.study_folder import STAGES, Study

MAX_SAES = 200
STAGE_WORDS = {
    "rec": "record",
    "rank": "rank",
    "trace": "trace",
    "effect": "effect",
    "probe": "probe",
    "label": "label",
    "prompts": "prompts",
    "images": "images",
}


@section("data", order=90)
def data(study: Study) -> Section | None:
    """The data and its split."""
    recording = study.recording
    if recording is None:
        return None
    grades = [
        {
            "label": int(label),
            "discovery": int(((study.labels == label) & ~study.holdout).sum()),
            "holdout": int(((study.labels == label) & study.holdout).sum()),
        }
        for label in np.unique(study.labels)
    ]
    groups = study.items["group"].n_unique()
    info = recording.manifest
    return Section(
        title="The data",
        lead="Items of one group stay on one side. Whatever selects sees discovery only.",
        body=render("data.html", grades=grades, groups=groups, info=info, rows=recording.n_rows),
    )


def flat(value: Any) -> str:
    """Return an option's value on one line, without the place of the user's home: a report is sent to others."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    home = os.path.expanduser("~")  # noqa: PTH111 - it stays "~" where a user has no home
    return text.replace(home + os.sep, f"~{os.sep}") if home not in ("~", "", os.sep) else text


@section("provenance", order=95)
def provenance(study: Study) -> Section | None:
    """What was run, when, with what."""
    runs = []
    for stage in STAGES:
        run = study.run(stage)
        if run:
            runs.append(
                {
                    "name": STAGE_WORDS[stage],
                    "platform": run.get("platform", ""),
                    "options": {str(key): flat(value) for key, value in (run.get("options") or {}).items()},
                    "libraries": run.get("libraries") or {},
                }
            )
    saes = [] if study.recording is None else study.recording.saes
    if not runs and not saes:
        return None
    warnings = [] if study.recording is None else study.recording.manifest.warnings
    return Section(
        title="What was run",
        body=render(
            "provenance.html", runs=runs, saes=saes[:MAX_SAES], more=max(len(saes) - MAX_SAES, 0), warnings=warnings
        ),
    )
