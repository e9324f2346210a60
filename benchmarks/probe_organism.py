"""What probes find in the built-in model, by trait. Run: ``python benchmarks/probe_organism.py [--json]``."""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))


def main() -> None:
    from conceptatlas.concepts import TRAITS
    from conceptatlas.recording import record
    from conceptatlas.subjects import load_subject
    from tests.probes.organism_figures import concept_figures, feature_figures

    subject = load_subject("organism", device="cpu")
    found = {}
    for trait in TRAITS:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            rec = record(f"builtin:{trait}", subject, "organism", place / "rec", hidden="all", hidden_sites="all")
            concept = concept_figures(rec, place)
            feature = feature_figures(rec, place)
        curve = concept.sweep.table.select("layer", "cv_mean", "test", "shuffled_mean").to_dicts()
        plain = {key: value for key, value in vars(concept).items() if key != "sweep"}
        found[trait] = {"concept": plain, "curve": curve, "feature": asdict(feature)}
        if "--json" not in sys.argv:
            print(trait, json.dumps(found[trait], indent=1), flush=True)
    if "--json" in sys.argv:
        print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
