"""The study: one YAML file and one folder, the whole pipeline for one or several concepts and a subject.

A study file is read into a ``Study``; its plan is a list of steps, each a stage of one concept or of the whole study.
A step reads artefacts and writes artefacts, and is not run again while its inputs stay the same.
"""

from __future__ import annotations

from conceptatlas.study.config import Study, StudyConfig
from conceptatlas.study.loading import load_study, make_study
from conceptatlas.study.plan import Step, fingerprints, plan
from conceptatlas.study.running import StudyResult, demo_study, run_study

__all__ = [
    "Step",
    "Study",
    "StudyConfig",
    "StudyResult",
    "demo_study",
    "fingerprints",
    "load_study",
    "make_study",
    "plan",
    "run_study",
]
