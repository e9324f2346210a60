"""Where a language model is read out: what it is shown of an item, and which next tokens are the target."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from conceptatlas.base.errors import InputError
from conceptatlas.subjects import LanguageSubject, Site
from conceptatlas.subjects.above import KeptTexts
from conceptatlas.subjects.chat import ChatFormat
from conceptatlas.subjects.protocol import Edit

TokenIds = npt.NDArray[np.int32]
RowMask = npt.NDArray[np.bool_]
ReadoutKind = Literal["auto", "chat", "end"]


@dataclass(frozen=True)
class Shown:
    """What the model is shown of one item.

    Attributes:
        ids: Token ids up to the place where the next token is read, int32 [S].
        text: bool [S], False at every token that is not the item's own text: special tokens (by id, wherever they stand)
            and the chat template's tokens.
        edited: bool [S], where steering and ablation apply: at the text, and where the model begins to speak, as at every
            token that it writes itself. Special tokens and the template are left alone: they carry no content, and some
            have a norm of a hundred times the others'.
    """

    ids: TokenIds
    text: RowMask
    edited: RowMask


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

    def show(self, subject: LanguageSubject, texts: Sequence[str]) -> list[Shown]:
        """Return what the model is shown of each text."""
        readout = self.settled(subject)
        if readout.kind == "end":
            tokenized = subject.tokenize([text + readout.append for text in texts])
            return [Shown(ids, rows, rows) for ids, rows in zip(tokenized.token_ids, tokenized.rows, strict=True)]
        chat = ChatFormat(subject.tokenizer, name=subject.id)
        return [_in_template(subject, chat, text) for text in texts]


def _in_template(subject: LanguageSubject, chat: ChatFormat, text: str) -> Shown:
    # Rendered as text first and tokenised without further special tokens: the template brings its own BOS.
    rendered = subject.tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
    )
    encoded = subject.tokenizer(rendered, add_special_tokens=False, return_offsets_mapping=True)
    ids = np.asarray(encoded["input_ids"], dtype=np.int32)
    spans = np.asarray(encoded["offset_mapping"], dtype=np.int64).reshape(-1, 2)
    # Counted from both ends of the rendering, never searched for: the item may hold what the template holds.
    start, stop = len(chat.before), len(rendered) - len(chat.after)
    within = (spans[:, 1] > start) & (spans[:, 0] < stop)
    ordinary = ~np.isin(ids, subject.token_rules.special_ids)
    return Shown(ids, within & ordinary, (within | (np.arange(len(ids)) == len(ids) - 1)) & ordinary)


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
    """A language model as a Subject: its inputs are what it is shown, its outputs the next token's log-probabilities."""

    def __init__(self, subject: LanguageSubject) -> None:
        self.subject = subject

    @property
    def id(self) -> str:
        """The subject's name in reports."""
        return self.subject.id

    def kept(self, inputs: Sequence[Shown], site: str) -> KeptTexts:
        """Return the inputs, run up to a site: edits there apply where they are meant to (see `Shown`)."""
        ids, masks = [shown.ids for shown in inputs], [shown.edited for shown in inputs]
        return KeptTexts(self.subject, ids, Site.parse(site), editable=masks)

    def activations(self, inputs: Sequence[Shown], site: str) -> torch.Tensor:
        """Return the activations at every token of the texts, [T, D]."""
        kept = self.kept(inputs, site)
        return torch.cat([kept.values(i)[torch.from_numpy(shown.text)] for i, shown in enumerate(inputs)])

    def outputs(self, inputs: Sequence[Shown], *, site: str, edit: Edit | None = None) -> torch.Tensor:
        """Return the next token's log-probabilities at the end of each input, float32 [N, V], on the CPU."""
        found: torch.Tensor | None = None
        for part in self.kept(inputs, site).logits(lambda x: (x if edit is None else edit(x))[None]):
            log_probs = part.logits[0].log_softmax(-1).cpu()
            found = torch.empty(len(inputs), log_probs.shape[-1]) if found is None else found
            found[part.rows.cpu()] = log_probs
        assert found is not None
        return found


@contextmanager
def edited_text(subject: LanguageSubject, site: str, edit: Edit, shown: Shown) -> Iterator[None]:
    """Generate inside the block with an edit where it is meant to apply in the prompt, and at what the model writes.

    Special tokens are left alone by their ids, wherever the model is given them, and so is the prompt's template.
    """
    special = torch.from_numpy(subject.token_rules.special_ids.astype(np.int64)).to(subject.device)
    prompt = torch.from_numpy(shown.edited).to(subject.device)
    text = torch.ones(1, 1, dtype=torch.bool)

    def see(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal text
        ids = args[0] if args else next(iter(kwargs.values()))
        text = ~torch.isin(ids, special)
        if ids.shape[1] >= len(prompt):  # the prompt; after it a model with a cache is given one token at a time
            text[:, : len(prompt)] &= prompt

    def on_text(x: torch.Tensor) -> torch.Tensor:
        return torch.where(text[..., None], edit(x), x)

    handle = subject.stack.embed.register_forward_pre_hook(see, with_kwargs=True)
    try:
        with subject.edited(Site.parse(site), on_text):
            yield
    finally:
        handle.remove()
