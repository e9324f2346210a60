"""A classifier and its SAE as one safetensors file, and the pair that ships with the package."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import torch

from conceptatlas.base.errors import InputError
from conceptatlas.base.files import write_bytes, write_json
from conceptatlas.base.kinds import IMAGES
from conceptatlas.base.provenance import write_run
from conceptatlas.base.writing import writing
from conceptatlas.images.analysis import FeatureEvidence, analyse_features
from conceptatlas.subjects.images import FeedForward, ImageData, ImageSubject, Kind, load_images

MODELS_FILE = "models.safetensors"
SHIPPED = "digits.safetensors"
_MODEL, _SAE = "model.", "sae."


@dataclass(frozen=True)
class SavedPair:
    """What ``models.safetensors`` holds.

    Attributes:
        subject: The classifier with its standardisation.
        sae: The SAELens SAE.
        dataset: What it was trained on.
    """

    subject: ImageSubject
    sae: Any
    dataset: str


def save_pair(subject: ImageSubject, sae: Any, images: ImageData, path: Path) -> None:
    """Write classifier, standardisation and SAE to ``path``."""
    from safetensors.torch import save

    model = subject.model
    tensors = {f"{_MODEL}{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"{_SAE}{name}": tensor for name, tensor in sae.state_dict().items()}
    tensors |= {"mean": subject.mean, "std": subject.std}
    height, width = images.image_shape
    facts = {"kind": model.kind, "dataset": images.name, "height": str(height), "width": str(width)}
    data = save({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, metadata=facts)
    write_bytes(path, _with_sorted_header(data))


def _with_sorted_header(data: bytes) -> bytes:
    """Return a safetensors file with the keys of its header in order: the library writes the metadata's in any."""
    size = int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8 : 8 + size]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


def load_pair(path: Path) -> SavedPair:
    """Read what ``save_pair`` wrote.

    Raises:
        InputError: Missing, or not such a file.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError(f"There is no {path}; `conceptatlas images run` writes one.")
    try:
        with safe_open(str(path), framework="pt") as archive:
            facts = archive.metadata() or {}
            tensors = {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118 - not a mapping
    except SafetensorError as error:
        raise InputError(f"{path} is not a safetensors file ({error}); run the laboratory again.") from error
    if facts.get("kind") not in get_args(Kind) or "mean" not in tensors:
        raise InputError(
            f"{path} holds no classifier and SAE of the laboratory; give the file that `images run` wrote."
        )
    return SavedPair(_subject(facts["kind"], tensors), _sae(tensors), facts.get("dataset", ""))


def _subject(kind: Any, tensors: dict[str, torch.Tensor]) -> ImageSubject:
    w_in, w_out = tensors[f"{_MODEL}w_in.weight"], tensors[f"{_MODEL}w_out.weight"]
    model = FeedForward(n_pixels=w_in.shape[1], hidden_dim=w_out.shape[1], n_classes=w_out.shape[0], kind=kind)
    model.load_state_dict({name.removeprefix(_MODEL): t for name, t in tensors.items() if name.startswith(_MODEL)})
    return ImageSubject(model.requires_grad_(requires_grad=False), tensors["mean"], tensors["std"])


def _sae(tensors: dict[str, torch.Tensor]) -> Any:
    from sae_lens import JumpReLUSAE, JumpReLUSAEConfig

    d_in, d_sae = tensors[f"{_SAE}W_enc"].shape
    sae = JumpReLUSAE(JumpReLUSAEConfig(d_in=d_in, d_sae=d_sae, apply_b_dec_to_input=False))
    sae.load_state_dict({name.removeprefix(_SAE): t for name, t in tensors.items() if name.startswith(_SAE)})
    return sae.eval().requires_grad_(requires_grad=False)


def shipped_path() -> Path:
    """Return the digit classifier and SAE that ship with the package."""
    return Path(str(resources.files("conceptatlas.images") / "data" / SHIPPED))


def run_demo(out: Path | str, *, top_k: int = 20, n_eval: int = 1000) -> list[FeatureEvidence]:
    """Run only the analysis, on the shipped digit classifier and SAE; artefacts as those of ``images run``."""
    with writing(IMAGES, out) as folder:
        pair = load_pair(shipped_path())
        data = load_images(pair.dataset)
        drawn = range(int(pair.sae.cfg.d_sae))
        found = analyse_features(pair.subject, pair.sae, data, folder, top_k=top_k, n_eval=n_eval, drawn=drawn)
        save_pair(pair.subject, pair.sae, data, folder / MODELS_FILE)
        write_json(folder / "summary.json", [])
        write_run(folder, command="images demo", options={"top_k": top_k, "n_eval": n_eval})
    return found
