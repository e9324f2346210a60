"""One forward pass per prompt: the features of every source at the assistant's tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt
import torch

from conceptatlas.base.errors import InputError
from conceptatlas.prompts.data import Prompt
from conceptatlas.prompts.sources import Source
from conceptatlas.saes import SparseColumns, encode_rows, require_width
from conceptatlas.saes.asked import fit_to_model
from conceptatlas.subjects import LanguageSubject, Site, load_subject
from conceptatlas.subjects.chat import ChatFormat, ChatPrompt

BATCH_TOKENS = 4096


@dataclass(frozen=True)
class ChatOptions:
    """How prompts are put to the models.

    Attributes:
        tokens: Token types; those of the template where empty.
        extra: Further types: name → index from the end.
        system: A system prompt.
        escape_control: Control strings within a prompt are plain text.
        max_tokens: The longest prompt allowed, template included; the model's own limit where None.
        device: Where the models run.
        dtype: The models' dtype.
    """

    tokens: tuple[str, ...] = ()
    extra: tuple[tuple[str, int], ...] = ()
    system: str | None = None
    escape_control: bool = False
    max_tokens: int | None = None
    device: str = "auto"
    dtype: str = "auto"


@dataclass(frozen=True)
class Reading:
    """The features of one source at the asked tokens of every prompt.

    Attributes:
        source: Which.
        types: The K token types.
        columns: Sparse features over N·K rows: row n·K + k is prompt n at type k.
        n_prompts: N.
        control: Prompts whose content holds control strings.
        default_system: What the template puts in as a system prompt by itself.
        notes: What the SAE's configuration asks of the model, done or not.
    """

    source: Source
    types: list[str]
    columns: SparseColumns
    n_prompts: int
    control: list[int]
    default_system: str
    notes: list[str]

    def of_type(self, kind: int) -> Iterator[tuple[int, npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
        """Yield (feature, prompts, values) of every feature that is active at the token type of that number."""
        for feature in np.flatnonzero(self.columns.counts()):
            rows, values = self.columns.feature(int(feature))
            here = rows % len(self.types) == kind
            if here.any():
                yield int(feature), (rows[here] // len(self.types)).astype(np.int64), values[here]

    def values(self, feature: int) -> npt.NDArray[np.float32]:
        """Return one feature's activations, [N, K]."""
        rows, values = self.columns.feature(feature)
        dense = np.zeros(self.n_prompts * len(self.types), dtype=np.float32)
        dense[rows] = values
        return dense.reshape(self.n_prompts, len(self.types))


def read_sources(
    sources: Sequence[Source],
    prompts: Sequence[Prompt],
    options: ChatOptions,
    *,
    tick: Callable[[str], None] = lambda _what: None,
) -> Iterator[Reading]:
    """Yield the reading of every source; one model is in memory at a time, and each prompt passes through it once.

    Args:
        sources: Those of one model next to each other.
        prompts: The prompts.
        options: How they are put.
        tick: Called with what has just been done.

    Raises:
        InputError: See ``ChatFormat`` and ``load_subject``; an SAE that is not as wide as its model.
    """
    for model, group in groupby(sources, key=lambda source: source.model):
        mine = list(group)
        subject = load_subject(model, device=options.device, dtype=options.dtype)
        for source in mine:
            require_width(source.sae, subject.d_model)
        chat = ChatFormat(
            subject.tokenizer,
            name=subject.id,
            system=options.system,
            extra=dict(options.extra),
            escape_control=options.escape_control,
        )
        types = chat.check_types(options.tokens)
        encoded = encode_prompts(chat, prompts, types, limit=_limit(subject, options))
        states = header_states(subject, encoded, types, sorted({source.sae.site for source in mine}))
        tick(f"{model}: {len(prompts)} prompts")
        control = [number for number, prompt in enumerate(encoded) if prompt.control]
        for source in mine:
            (sae,), notes = fit_to_model([source.sae], subject)
            encoder = sae.load_encoder(subject.device)
            columns = encode_rows(states[source.sae.site].float(), encoder)
            yield Reading(source, types, columns, len(prompts), control, chat.default_system, notes)
            tick(source.name)
        del subject, states


def _limit(subject: LanguageSubject, options: ChatOptions) -> int | None:
    return options.max_tokens if options.max_tokens is not None else subject.token_rules.limit


def encode_prompts(
    chat: ChatFormat, prompts: Sequence[Prompt], types: Sequence[str], *, limit: int | None
) -> list[ChatPrompt]:
    """Return every prompt as the model reads it; an error names the prompt's number (from 0)."""
    found = []
    for number, prompt in enumerate(prompts):
        try:
            found.append(chat.encode(prompt.content, types, max_tokens=limit))
        except InputError as error:
            raise InputError(f"Prompt {number}: {error}") from error
    return found


def header_states(
    subject: LanguageSubject, prompts: Sequence[ChatPrompt], types: Sequence[str], sites: Sequence[str]
) -> dict[str, torch.Tensor]:
    """Return the hidden states at the asked tokens: site → [N·K, D], row n·K + k being prompt n at type k."""
    n_types = len(types)
    lengths = np.array([len(prompt.ids) for prompt in prompts])
    order = np.argsort(-lengths, kind="stable")
    parsed = [Site.parse(site) for site in sites]
    states: dict[str, torch.Tensor] = {}
    start = 0
    while start < len(order):
        batch = order[start : start + max(1, BATCH_TOKENS // int(lengths[order[start]]))]
        start += len(batch)
        masks = [_mask(prompts[n]) for n in batch]
        found = subject.hidden_states([prompts[n].ids for n in batch], parsed, masks)
        index = torch.from_numpy((batch[:, None] * n_types + np.arange(n_types)).reshape(-1))
        pick = torch.from_numpy(_picks([prompts[n] for n in batch], types))
        for name, rows in found.items():
            if name not in states:
                states[name] = rows.new_empty((len(prompts) * n_types, rows.shape[1]))
            states[name].index_copy_(0, index.to(rows.device), rows.index_select(0, pick.to(rows.device)))
    return states


def _mask(prompt: ChatPrompt) -> npt.NDArray[np.bool_]:
    mask = np.zeros(len(prompt.ids), dtype=bool)
    mask[list(prompt.positions.values())] = True
    return mask


def _picks(batch: Sequence[ChatPrompt], types: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return, for each prompt and type, the row among the rows that the pass returned (two types can share a token)."""
    picks, offset = [], 0
    for prompt in batch:
        distinct = sorted(set(prompt.positions.values()))
        picks += [offset + distinct.index(prompt.positions[one]) for one in types]
        offset += len(distinct)
    return np.array(picks, dtype=np.int64)
