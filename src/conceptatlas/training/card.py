"""The card of a trained SAE: what it was trained on, and how good it is; as JSON, and as a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from conceptatlas.base.files import read_json, write_json, write_text
from conceptatlas.training.quality import Quality

CARD_FILE = "card.json"
PAGE_FILE = "README.md"


@dataclass(frozen=True)
class Card:
    """One trained SAE."""

    sae_id: str
    """Its folder below the training's."""
    site: str
    width: int
    """Number of latents."""
    d_in: int
    """Width of the site."""
    architecture: str
    """As it was trained; BatchTopK kinds are saved as jumprelu, with one threshold."""
    sparsity: dict[str, float]
    """``k`` or ``l1``, as asked."""
    control_of: str | None
    """The SAE whose frozen-decoder control this is; None for an SAE."""
    model: str
    revision: str
    text: str
    """Where the text came from."""
    rows: int
    """Rows it was trained on."""
    passes: float
    """How often the text was passed over; parts of a pass count."""
    context: int
    batch: int
    lr: float
    seed: int
    dead: float
    """Share of latents that were active in none of the last steps of training (``dead_rows``)."""
    dead_rows: int
    seconds: float
    """Of the whole training, for all SAEs together."""
    n_saes: int
    """SAEs of that training."""
    quality: Quality
    versions: dict[str, str]

    def save(self, folder: Path) -> None:
        """Write card and page into the SAE's folder."""
        write_json(folder / CARD_FILE, asdict(self))
        write_text(folder / PAGE_FILE, _page(self))

    @classmethod
    def load(cls, folder: Path) -> Card:
        """Read the card of an SAE's folder."""
        found: dict[str, Any] = read_json(folder / CARD_FILE)
        return cls(**{**found, "quality": Quality(**found["quality"])})


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _page(card: Card) -> str:
    quality = card.quality
    kind, value = next(iter(card.sparsity.items()))
    what = (
        f"The frozen-decoder control of `{card.control_of}`: its decoder is random and was never trained."
        if card.control_of
        else f"A sparse autoencoder of `{card.site}` of `{card.model}`."
    )
    rows = [
        ("Fraction of variance unexplained", _number(quality.fvu)),
        ("Active latents a row (L0)", _number(quality.l0, 1)),
        ("Loss recovered", _number(quality.loss_recovered)),
        (
            "CE clean / spliced / zeroed, nats",
            " / ".join(map(_number, (quality.ce_clean, quality.ce_spliced, quality.ce_zero))),
        ),
        (f"Dead (active in none of the last {card.dead_rows:,} training rows)", f"{card.dead:.1%}"),
        ("Active on none of the held-out rows", f"{quality.silent:.1%}"),
    ]
    lines = [f"| {name} | {figure} |" for name, figure in rows]
    return "\n".join(
        [
            f"# {card.sae_id}",
            "",
            what,
            "",
            f"On {quality.n_rows:,} held-out rows:",
            "",
            "| | |",
            "| --- | --- |",
            *lines,
            "",
            *([f"No loss: {quality.why_no_loss}", ""] if quality.why_no_loss else []),
            f"{card.architecture}, {card.width:,} latents, {kind} = {value:g}; {card.rows:,} rows of {card.text} "
            f"({card.passes:.2f} passes), contexts of {card.context} tokens, batches of {card.batch}, learning rate "
            f"{card.lr:.2g}, seed {card.seed}. {card.n_saes} SAEs took {card.seconds:.0f} s together. Special tokens and "
            "attention sinks were left out, in training and in these figures. SAELens's format: "
            "`sae_lens.SAE.load_from_disk(FOLDER)`.",
            "",
        ]
    )


COLUMNS = ("sae_id", "fvu", "l0", "dead", "loss_recovered", "ce_clean", "ce_spliced", "ce_zero")


def table_rows(cards: Sequence[Card]) -> list[dict[str, Any]]:
    """Return one mapping of ``COLUMNS`` for each card."""
    return [{**asdict(card.quality), "sae_id": card.sae_id, "dead": card.dead} for card in cards]
