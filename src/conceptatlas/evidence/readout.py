"""Where a language model is read out: what it is shown of an item, and which next tokens are the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from conceptatlas.base.errors import InputError
from conceptatlas.subjects import LanguageSubject, Site
from conceptatlas.subjects.protocol import Edit

TokenIds = npt.NDArray[np.int32]
ReadoutKind = Literal["auto", "chat", "end"]


@dataclass(frozen=True)
class Readout:
    """How an item is shown to the model before its next token is read.

    Attributes:
        kind: ``chat``: the item is a user's turn and the model's turn begins (needs a chat template); ``end``: the item as
            it is; ``auto``: ``chat`` where the tokenizer has a template.
        append: Text put after the item (``end`` only), such as `` That was``.
    """

    kind: ReadoutKind = "auto"
    append: str = ""

    def settled(self, subject: LanguageSubject) -> Readout:
        """Return the readout with ``auto`` decided.

        Raises:
            InputError: No such kind, ``chat`` without a template, or ``append`` with ``chat``.
        """
        if self.kind not in ("auto", "chat", "end"):
            raise InputError(f"There is no readout {self.kind!r}; it is auto, chat or end.")
        has_template = bool(getattr(subject.tokenizer, "chat_template", None))
        kind: ReadoutKind = self.kind
        if kind == "auto":
            kind = "chat" if has_template and not self.append else "end"
        if kind == "chat" and not has_template:
            raise InputError(f"The tokenizer of {subject.id} has no chat template; use the readout end.")
        if kind == "chat" and self.append:
            raise InputError("The readout chat appends nothing; use the readout end, or leave out the text to append.")
        return Readout(kind, self.append)

    def token_ids(self, subject: LanguageSubject, texts: Sequence[str]) -> list[TokenIds]:
        """Return the token ids of each text up to the place where the next token is read."""
        readout = self.settled(subject)
        if readout.kind == "end":
            return list(subject.tokenize([text + readout.append for text in texts]).token_ids)
        return [_chat_ids(subject.tokenizer, text) for text in texts]


def _chat_ids(tokenizer: Any, text: str) -> TokenIds:
    # Rendered as text first and tokenised without further special tokens: the template brings its own BOS.
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
    )
    return np.asarray(tokenizer(rendered, add_special_tokens=False)["input_ids"], dtype=np.int32)


def target_ids(subject: LanguageSubject, words: Sequence[str]) -> list[int]:
    """Return the token ids of the target words: each as written, capitalised, and both after a space, where one token.

    Raises:
        InputError: A word is never a single token.
    """
    found: dict[int, None] = {}
    for word in words:
        ids = set()
        for form in (word, word.capitalize(), f" {word}", f" {word.capitalize()}"):
            tokens = subject.tokenizer(form, add_special_tokens=False)["input_ids"]
            if len(tokens) == 1 and tokens[0] != subject.tokenizer.unk_token_id:
                ids.add(int(tokens[0]))
        if not ids:
            pieces = subject.tokenizer.tokenize(f" {word}")
            raise InputError(
                f"The target {word!r} is not one token of {subject.id} (it is {' + '.join(pieces)}); name a word that is."
            )
        found |= dict.fromkeys(sorted(ids))
    return list(found)


class LanguageOutputs:
    """A language model as a Subject: its inputs are token ids, its outputs the next token's logits at the readout."""

    def __init__(self, subject: LanguageSubject, *, batch: int = 32) -> None:
        self.subject = subject
        self.batch = batch
        # An edit leaves a BOS alone: it carries no text, and its norm is often a hundred times the others'.
        self.skip_first = subject.bos != "none"

    @property
    def id(self) -> str:
        """The subject's name in reports."""
        return self.subject.id

    def activations(self, inputs: Sequence[TokenIds], site: str) -> torch.Tensor:
        """Return the activations at every token but the BOS, [T, D]."""
        rows = [self._rows(ids) for ids in inputs]
        parsed = Site.parse(site)
        pieces = [
            self.subject.hidden_states(inputs[i : i + self.batch], [parsed], rows[i : i + self.batch])[str(parsed)]
            for i in range(0, len(inputs), self.batch)
        ]
        return torch.cat(pieces)

    def _rows(self, ids: TokenIds) -> npt.NDArray[np.bool_]:
        mask = np.ones(len(ids), dtype=bool)
        if self.skip_first and len(ids) > 1:
            mask[0] = False
        return mask

    def on_text(self, edit: Edit) -> Edit:
        """Return the edit restricted to positions after the BOS (a single generated token is never one)."""
        if not self.skip_first:
            return edit

        def edited(x: torch.Tensor) -> torch.Tensor:
            if x.shape[1] == 1:
                return edit(x)
            return torch.cat([x[:, :1], edit(x[:, 1:])], dim=1)

        return edited

    def outputs(self, inputs: Sequence[TokenIds], *, site: str, edit: Edit | None = None) -> torch.Tensor:
        """Return the next token's log-probabilities at the end of each input, float32 [N, V]."""
        pieces = []
        for start in range(0, len(inputs), self.batch):
            chunk = inputs[start : start + self.batch]
            if edit is None:
                logits = self.subject.logits(chunk)
            else:
                with self.subject.edited(Site.parse(site), self.on_text(edit)):
                    logits = self.subject.logits(chunk)
            pieces.append(logits.log_softmax(-1).cpu())
        return torch.cat(pieces)
