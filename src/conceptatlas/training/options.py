"""What may be asked of a training, checked once, and the SAEs that follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from conceptatlas.base.errors import InputError, unknown_name
from conceptatlas.subjects.sites import parse_sites

Sparsity = Literal["k", "l1"]

# Architecture -> what sets its sparsity: k active latents a row (a target, for jumprelu), or the weight of an L1 penalty.
ARCHITECTURES: Mapping[str, Sparsity] = {
    "batchtopk": "k",
    "topk": "k",
    "matryoshka_batchtopk": "k",
    "jumprelu": "k",
    "gated": "l1",
    "standard": "l1",
}
_DEFAULT_K = (32.0,)
# A buffer of fewer batches would hardly mix the texts.
_LEAST_BATCHES = 4
_LEAST_CONTEXT = 4


@dataclass(frozen=True)
class Wanted:
    """One SAE that is to be trained.

    Attributes:
        site: Where it reads and writes, as SAELens writes it.
        width: Number of latents.
        sparsity: k, or the weight of the L1 penalty.
        kind: Which of the two.
        control: Whether it is the frozen-decoder control of the SAE with the same site, width and sparsity.
    """

    site: str
    width: int
    sparsity: float
    kind: Sparsity
    control: bool = False

    @property
    def trained_id(self) -> str:
        """The folder of the SAE without a frozen decoder, below the folder of the training."""
        return f"{self.site}/{self.width}-{self.kind}{self.sparsity:g}"

    @property
    def sae_id(self) -> str:
        """Its folder below the folder of the training."""
        return f"{self.trained_id}-frozen" if self.control else self.trained_id


@dataclass(frozen=True)
class TrainOptions:
    """Options of one training; contradictions are refused when it is made."""

    sites: tuple[str, ...]
    """Where SAEs are trained, such as ``blocks.5.hook_resid_post``."""
    widths: tuple[int, ...] = (4096,)
    """Numbers of latents; each with each sparsity."""
    k: tuple[float, ...] = ()
    """Active latents a row (for ``jumprelu``: what its penalty aims at); 32 where none is given."""
    l1: tuple[float, ...] = ()
    """Weights of the L1 penalty, for ``standard`` and ``gated``, which have no k."""
    architecture: str = "batchtopk"
    """``batchtopk``, ``topk``, ``matryoshka_batchtopk``, ``jumprelu``, ``gated`` or ``standard``."""
    control: bool = False
    """Train the frozen-decoder control of each SAE as well."""
    tokens: int = 5_000_000
    """Rows that each SAE is trained on; the text is passed over again where it is shorter."""
    context: int = 128
    """Tokens of a context, special ones counted; no context holds two texts."""
    batch: int = 2048
    """Rows of one step of the optimiser."""
    lr: float | None = None
    """Adam's learning rate; None: 2e-4 · sqrt(2^14 / width), at most 1e-3."""
    buffer_rows: int = 1 << 16
    """Rows of each site that are in memory at a time and are shuffled among each other."""
    buffer_dtype: str = "float32"
    """How they are kept: ``float32`` or ``bfloat16``."""
    column: str = "text"
    """The column of the text, where the source has columns."""
    eval_contexts: int = 200
    """Held-out contexts that the card's figures are measured on, at most."""
    checkpoint_minutes: float = 5.0
    """A run that is stopped loses at most so much work, and one buffer."""
    seed: int = 0
    """Of initial weights and of the order of texts and rows."""

    def __post_init__(self) -> None:
        if not self.sites:
            raise InputError("There is no site to train at; give --layers or --sites.")
        object.__setattr__(self, "sites", tuple(str(site) for site in parse_sites(self.sites)))
        self._check_architecture()
        if self.buffer_dtype not in ("float32", "bfloat16"):
            raise unknown_name("value of --buffer-dtype", self.buffer_dtype, ("float32", "bfloat16"))
        for name, least in (
            ("tokens", 1),
            ("context", _LEAST_CONTEXT),
            ("batch", 2),
            ("eval_contexts", 1),
            ("seed", 0),
        ):
            if getattr(self, name) < least:
                raise InputError(f"{_flag(name)} is {getattr(self, name)}; give a whole number from {least}.")
        if self.tokens < self.batch:
            raise InputError(
                f"--tokens is {self.tokens}, less than one batch of {self.batch}; raise it or lower --batch."
            )
        if self.buffer_rows < _LEAST_BATCHES * self.batch:
            raise InputError(
                f"--buffer-rows is {self.buffer_rows}, and must be at least {_LEAST_BATCHES} batches of {self.batch}."
            )
        if self.lr is not None and not 0 < self.lr < 1:
            raise InputError(f"--lr is {self.lr}; give a number between 0 and 1, such as 3e-4.")

    def _check_architecture(self) -> None:
        if "transcoder" in self.architecture:
            raise InputError(
                f"SAELens has no training class for {self.architecture}; train one of {', '.join(ARCHITECTURES)}."
            )
        if self.architecture not in ARCHITECTURES:
            raise unknown_name("architecture", self.architecture, ARCHITECTURES)
        kind = ARCHITECTURES[self.architecture]
        if kind == "k" and not self.k:
            object.__setattr__(self, "k", _DEFAULT_K)
        if kind == "l1" and not self.l1:
            raise InputError(f"The sparsity of {self.architecture} is set by an L1 penalty; give its weight with --l1.")
        other: Sparsity = "l1" if kind == "k" else "k"
        if getattr(self, other):
            raise InputError(f"--{other} does not belong to {self.architecture}, which takes --{kind}; leave it out.")
        if not self.widths or min(self.widths) < 2:
            raise InputError(f"--width is {min(self.widths, default=0)}; an SAE needs at least 2 latents.")
        for value in getattr(self, kind):
            if not value > 0:
                raise InputError(f"--{kind} is {value:g}; it must be more than 0.")
            if kind == "k" and value >= min(self.widths):
                raise InputError(f"--k is {value:g}, not less than the width {min(self.widths)}; lower --k.")
            if self.architecture == "topk" and value != int(value):
                raise InputError(f"--k is {value:g}; topk takes whole numbers, batchtopk takes others as well.")

    @property
    def steps(self) -> int:
        """Steps of each SAE's optimiser."""
        return self.tokens // self.batch

    def wanted(self) -> list[Wanted]:
        """Return the SAEs, site by site."""
        kind = ARCHITECTURES[self.architecture]
        controls = (False, True) if self.control else (False,)
        return [
            Wanted(site, width, sparsity, kind, control)
            for site in self.sites
            for width in dict.fromkeys(self.widths)
            for sparsity in dict.fromkeys(getattr(self, kind))
            for control in controls
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return the options as JSON-ready values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
