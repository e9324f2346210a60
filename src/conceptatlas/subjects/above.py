"""Run texts up to a site once, keep the state there, and run only the blocks above it again for each edit.

An edit at a site changes nothing below it. So the blocks below return at once, the last of them what it returned when
the texts were read, and whatever else the architecture does (masks, positions, final norm, soft-caps) is the model's own
forward pass. Several edits go through in one batch, and the head sees the asked rows only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from conceptatlas.subjects.capture import Batch, edit_hook, hooks, pad_batch, reading
from conceptatlas.subjects.places import Place, first_input
from conceptatlas.subjects.sites import Site

if TYPE_CHECKING:
    from conceptatlas.subjects.language import LanguageSubject

TokenIds = npt.NDArray[np.int32]
RowMask = npt.NDArray[np.bool_]
# Several edits at once: takes the values at a site, [B, S, D], and returns those to go on with, [E, B, S, D].
Edits = Callable[[torch.Tensor], torch.Tensor]

# Tokens in one pass: enough that the products are large, few enough that a pass fits a small memory.
TOKENS_AT_ONCE = 4096
# Logits in one pass (256 MiB as float32).
LOGITS_AT_ONCE = 2**26
# Relative to the largest logit; a replay differs from the whole pass by the rounding of differently shaped products.
_SAME = {torch.float32: 1e-3, torch.float64: 1e-6}


def unedited(x: torch.Tensor) -> torch.Tensor:
    """Return the values as they are, as one edit: [B, S, D] → [1, B, S, D]."""
    return x[None]


@dataclass(frozen=True)
class Part:
    """The logits of some edits on some texts.

    Attributes:
        edits: Which edits, as a slice of those that were asked for.
        rows: int64 [T], which of the asked rows (counted over all texts, in order).
        logits: float32 [E, T, V].
    """

    edits: slice
    rows: torch.Tensor
    logits: torch.Tensor


@dataclass(frozen=True)
class _Kept:
    """One batch with what was kept of it: the values at the site and what the block below it gave, both [B, S, D]."""

    texts: list[int]
    batch: Batch
    values: torch.Tensor
    editable: torch.Tensor
    state: torch.Tensor | None


class KeptTexts:
    """Texts run up to a site, ready to be run on from there under any number of edits.

    Attributes:
        site: The site.
        n_texts: N.
        whole: Whether the blocks below the site have to be run again each time: in an architecture whose later blocks
            take more from the earlier ones than the residual stream.
    """

    def __init__(
        self,
        subject: LanguageSubject,
        token_ids: Sequence[TokenIds],
        site: Site,
        *,
        editable: Sequence[RowMask] | None = None,
    ) -> None:
        """Run the texts up to the site.

        Args:
            subject: The model.
            token_ids: One int32 array per text.
            site: A site that can be edited.
            editable: One bool mask per text: where edits apply (everywhere where None). Padding is never edited.

        Raises:
            InputError: The site can be read but not edited.
        """
        self.subject = subject
        self.site = site
        self.token_ids = list(token_ids)
        self.n_texts = len(self.token_ids)
        self._place = subject.editable_place(site)
        masks = [np.ones(len(ids), dtype=bool) for ids in self.token_ids] if editable is None else list(editable)
        # The block whose output the blocks above go on from: that of the site, or where the site is inside a block, the
        # one before it.
        layer = -1 if site.layer is None else site.layer
        self._last = layer if site.hook == "hook_resid_post" else layer - 1
        self._tail: tuple[Any, ...] | None = None
        self._kept = [self._keep(texts, [masks[i] for i in texts]) for texts in self._batches()]
        self.whole = self._last < 0
        self.whole = self.whole or not self._replays_truly()

    def _batches(self) -> Iterator[list[int]]:
        """Yield batches of texts, by length so that little is padded, of one length where the model minds the others."""
        rule = self.subject.prefix_rule
        lengths = [len(ids) for ids in self.token_ids]
        chunk: list[int] = []
        for text in sorted(range(self.n_texts), key=lambda i: lengths[i]):
            full = (len(chunk) + 1) * lengths[text] > TOKENS_AT_ONCE
            if chunk and (full or (rule.limit and lengths[text] != lengths[chunk[0]])):
                yield chunk
                chunk = []
            chunk.append(text)
        if chunk:
            yield chunk

    @torch.no_grad()
    def _keep(self, texts: list[int], editable: Sequence[RowMask]) -> _Kept:
        subject = self.subject
        ids = [self.token_ids[i] for i in texts]
        batch = pad_batch(ids, editable, pad_id=subject.pad_id, device=subject.device)
        items, length = batch.input_ids.shape
        mask = torch.zeros(items * length, dtype=torch.bool, device=subject.device)
        mask[batch.rows] = True
        every = replace(batch, rows=torch.arange(items * length, device=subject.device))
        places = {"values": self._place}
        if self._last >= 0:
            places["state"] = Place(subject.stack.layers[self._last], "output")
        with reading(places, dtype=None) as read, hooks(self._watch()):
            found = read(subject.run_text_model, every)
        shaped = {name: value.reshape(items, length, -1) for name, value in found.items()}
        return _Kept(texts, batch, shaped["values"], mask.reshape(items, length), shaped.get("state"))

    def _watch(self) -> list[Any]:
        """See what a block returns beside its tensor, to return the same in its place."""
        if self._last < 0:
            return []

        def see(_module: nn.Module, _args: Any, output: Any) -> None:
            self._tail = output[1:] if isinstance(output, tuple) else None

        # Before the hook that ends the pass.
        return [self.subject.stack.layers[self._last].register_forward_hook(see, prepend=True)]

    @torch.no_grad()
    def _replays_truly(self) -> bool:
        """Run the shortest text once whole and once from the kept state: is it the same?"""
        first = min(range(self.n_texts), key=lambda i: len(self.token_ids[i]))
        (part,) = self.logits(unedited, only=[first])
        expected = self.subject.logits([self.token_ids[first]])[0]
        allowed = _SAME.get(self.subject.dtype, 5e-2) * float(expected.abs().max())
        return float((part.logits[0, 0] - expected).abs().max()) <= allowed

    def values(self, text: int) -> torch.Tensor:
        """Return the values at the site on every token of one text, [S, D]."""
        for kept in self._kept:
            if text in kept.texts:
                return kept.values[kept.texts.index(text), : len(self.token_ids[text])]
        raise IndexError(f"there is no text {text}; there are {self.n_texts}")

    @torch.no_grad()
    def logits(
        self, edits: Edits, *, rows: Sequence[RowMask] | None = None, only: Sequence[int] | None = None
    ) -> Iterator[Part]:
        """Yield the logits under several edits, a part at a time.

        Args:
            edits: What to do at the site; applied to the values of some texts, [B, S, D], it returns [E, B, S, D].
            rows: Per text, the tokens whose logits are asked for; each text's last where None.
            only: Leave out all but these texts.
        """
        asked = [np.arange(len(ids)) == len(ids) - 1 for ids in self.token_ids] if rows is None else list(rows)
        first = np.concatenate([[0], np.cumsum([int(mask.sum()) for mask in asked])])
        for kept in self._kept:
            members = [i for i, text in enumerate(kept.texts) if only is None or text in only]
            members = [i for i in members if asked[kept.texts[i]].any()]
            for start, stop, n_edits in _slices(
                [len(self.token_ids[kept.texts[i]]) for i in members],
                [int(asked[kept.texts[i]].sum()) for i in members],
                int(edits(kept.values[:1, :1]).shape[0]),
                self.subject.vocabulary,
            ):
                yield from self._run(kept, members[start:stop], edits, n_edits, asked, first)

    def _run(
        self,
        kept: _Kept,
        members: list[int],
        edits: Edits,
        at_once: int,
        asked: Sequence[RowMask],
        first: npt.NDArray[np.int64],
    ) -> Iterator[Part]:
        device = self.subject.device
        texts = [kept.texts[i] for i in members]
        length = max(len(self.token_ids[text]) for text in texts)
        chosen = torch.tensor(members, device=device)
        values = kept.values[chosen, :length]
        edited = torch.where(kept.editable[chosen, :length, None], edits(values), values)
        mask = np.zeros((len(texts), length), dtype=bool)
        for place, text in enumerate(texts):
            mask[place, : len(asked[text])] = asked[text]
        places = torch.from_numpy(np.concatenate([np.arange(first[text], first[text + 1]) for text in texts])).to(
            device
        )
        flat = torch.from_numpy(np.flatnonzero(mask)).to(device)
        for start in range(0, len(edited), at_once):
            chunk = edited[start : start + at_once]
            n = len(chunk)
            offsets = torch.arange(n, device=device)[:, None] * mask.size
            batch = Batch(
                kept.batch.input_ids[chosen, :length].repeat(n, 1),
                kept.batch.attention_mask[chosen, :length].repeat(n, 1),
                (offsets + flat[None]).reshape(-1),
            )
            state = None if kept.state is None else kept.state[chosen, :length].repeat(n, 1, 1)
            logits = self._pass(batch, chunk.reshape(n * len(texts), length, -1), state)
            yield Part(slice(start, start + n), places, logits.reshape(n, len(places), -1))

    def _pass(self, batch: Batch, edited: torch.Tensor, state: torch.Tensor | None) -> torch.Tensor:
        below = [] if self.whole else list(self.subject.stack.layers[: self._last + 1])
        with returning_at_once(below, state, self._tail), hooks([edit_hook(self._place, lambda _x: edited)]):
            return self.subject.run_with_head(batch)


def _slices(
    lengths: Sequence[int], rows: Sequence[int], n_edits: int, vocabulary: int
) -> Iterator[tuple[int, int, int]]:
    """Yield (first text, the one after the last, edits at once) so that no pass is larger than the limits.

    Args:
        lengths: Tokens per text, ascending.
        rows: Asked rows per text.
        n_edits: E.
        vocabulary: V.
    """

    def room(start: int, stop: int) -> int:
        """Return how many edits fit a pass over these texts."""
        tokens = (stop - start) * max(lengths[start:stop])
        return min(TOKENS_AT_ONCE // tokens, LOGITS_AT_ONCE // (sum(rows[start:stop]) * vocabulary))

    start = 0
    while start < len(lengths):
        stop = start + 1
        while stop < len(lengths) and room(start, stop + 1) >= n_edits:
            stop += 1
        yield start, stop, min(n_edits, max(1, room(start, stop)))
        start = stop


@contextmanager
def returning_at_once(
    blocks: Sequence[nn.Module], state: torch.Tensor | None, tail: tuple[Any, ...] | None
) -> Iterator[None]:
    """Let blocks return what they are given without computing, and the last of them ``state``.

    Args:
        blocks: Consecutive blocks, from the first.
        state: [B, S, D].
        tail: What a block returns beside its tensor; None where it returns the tensor alone.
    """

    def forward_of(last: bool) -> Callable[..., Any]:  # noqa: FBT001
        def forward(*args: Any, **kwargs: Any) -> Any:
            value = state if last else first_input(args, kwargs)
            return value if tail is None else (value, *tail)

        return forward

    own = [block.__dict__.get("forward") for block in blocks]  # a wrapper that a library put there
    for block in blocks:
        block.forward = forward_of(block is blocks[-1])
    try:
        yield
    finally:
        for block, before in zip(blocks, own, strict=True):
            if before is None:
                del block.forward
            else:
                block.forward = before
