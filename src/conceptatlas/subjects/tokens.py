"""Texts to token ids as the model was trained to see them, and which of them are rows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from conceptatlas.base.errors import InputError

Bos = Literal["added by the tokenizer", "prepended", "none"]

# Control tokens that tokenizers hold without marking them special: chat tags, reserved and tool tokens.
_CONTROL = re.compile(
    r"<\|[^|<>]*\|>|<unused\d+>|<(start|end)_of_\w+>|</?tool_(call|response)>|\[/?INST\]|<reserved_\w+>"
)
TEXTS_AT_ONCE = 1024
# A tokenizer without a limit of its own says so with a number like 10^30.
_NO_LIMIT = 10**9


@dataclass(frozen=True)
class Tokenized:
    """Tokenised items: one array per item in each list, as long as the item has tokens (special ones counted).

    Attributes:
        token_ids: int32, with BOS where the model was trained with one.
        rows: bool, False at special tokens (by id, wherever they stand).
        positions: int32, the row's number within its item from 0 (special tokens not counted), -1 at special tokens.
        char_ends: int32, where the token ends in the text, in characters; 0 at special tokens that were added.
        truncated: The items that were cut, in order.
    """

    token_ids: list[npt.NDArray[np.int32]]
    rows: list[npt.NDArray[np.bool_]]
    positions: list[npt.NDArray[np.int32]]
    char_ends: list[npt.NDArray[np.int32]]
    truncated: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def n_truncated(self) -> int:
        """How many items were cut."""
        return len(self.truncated)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens per item, special ones counted, int64 [N]."""
        return np.array([len(ids) for ids in self.token_ids], dtype=np.int64)

    @property
    def n_rows(self) -> npt.NDArray[np.int64]:
        """Rows per item, int64 [N]."""
        return np.array([int(mask.sum()) for mask in self.rows], dtype=np.int64)


class TokenRules:
    """How one model's texts become ids.

    BOS stands first exactly once where the model was trained with one: where the tokenizer adds it, or where the BOS is
    the token that separates documents (GPT-2, Pythia: ``<|endoftext|>`` is BOS and EOS, tokenizers leave it out, and
    SAEs were trained with it). A model without a BOS (Qwen) gets none.

    Special are all the tokenizer's special ids and its control tokens (chat tags, reserved tokens). The unknown token
    is not, unless it doubles as another: it stands for a word of the text.

    Attributes:
        bos: Who adds the BOS.
        bos_id: Its id, or None.
        special_ids: int32, sorted.
        limit: The longest sequence the model takes, special tokens counted; None where it has no limit.
    """

    def __init__(self, tokenizer: Any, *, limit: int | None, name: str) -> None:
        if not tokenizer.is_fast:
            raise InputError(
                f"The tokenizer of {name} ({type(tokenizer).__name__}) gives no character offsets; save a fast one "
                "(tokenizer.json) in the model's folder."
            )
        self.tokenizer = tokenizer
        self.name = name
        own = tokenizer.model_max_length
        self.limit = min((n for n in (limit, own) if n is not None and n < _NO_LIMIT), default=None)
        self.bos_id: int | None = tokenizer.bos_token_id
        self.bos = self._who_adds_bos()
        self.special_ids = _special_ids(tokenizer)

    def _who_adds_bos(self) -> Bos:
        if self.bos_id is None:
            return "none"
        if self.tokenizer("a")["input_ids"][:1] == [self.bos_id]:
            return "added by the tokenizer"
        return "prepended" if self.bos_id == self.tokenizer.eos_token_id else "none"

    @cached_property
    def suffix(self) -> npt.NDArray[np.int32]:
        """The special tokens that the tokenizer adds at the end (BERT's ``[SEP]``), int32."""
        ids = np.array(self.tokenizer("a")["input_ids"], dtype=np.int32)
        kept = np.flatnonzero(~np.isin(ids, self.special_ids))
        return ids[kept[-1] + 1 :] if len(kept) else ids[:0]

    def tokenize(self, texts: Sequence[str], *, max_tokens: int | None = None, truncate: bool = False) -> Tokenized:
        """Tokenise ``texts`` one by one (nothing is concatenated).

        Args:
            texts: The items.
            max_tokens: The longest item allowed, special tokens counted; the model's own limit where it is smaller.
            truncate: Cut longer items (they are counted in the result) instead of refusing them.

        Raises:
            InputError: An item is longer than the limit, or has no row; the message names it.
        """
        if not texts:
            return Tokenized([], [], [], [])
        limit = min((n for n in (self.limit, max_tokens) if n is not None), default=None)
        if limit is not None and limit < 1:
            raise InputError(f"The token limit must be at least 1, not {limit}.")
        result = Tokenized([], [], [], [])
        for item, (ids, offsets) in enumerate(self._encoded(texts)):
            token_ids, ends = self._with_bos_once(ids, offsets)
            if limit is not None and len(token_ids) > limit:
                if not truncate:
                    raise InputError(
                        f"Item {item} ({_shown(texts[item])}) has {len(token_ids)} tokens and the limit of {self.name} "
                        f"here is {limit}; shorten it, or cut it with --truncate."
                    )
                result.truncated.append(item)
                token_ids, ends = self._cut(token_ids, ends, limit)
            rows = ~(token_ids[:, None] == self.special_ids).any(axis=1)
            if not rows.any():
                raise InputError(
                    f"Item {item} ({_shown(texts[item])}) holds no token that could be a row: there are only special "
                    "tokens in it; give it words or remove it."
                )
            result.token_ids.append(token_ids)
            result.rows.append(rows)
            result.positions.append(np.where(rows, np.cumsum(rows) - 1, -1).astype(np.int32))
            result.char_ends.append(ends)
        return result

    def _encoded(self, texts: Sequence[str]) -> Iterator[tuple[list[int], list[tuple[int, int]]]]:
        """Yield each text's token ids and their places in it; what a tokenizer returns takes far more than is kept."""
        for first in range(0, len(texts), TEXTS_AT_ONCE):
            encoded = self.tokenizer(
                list(texts[first : first + TEXTS_AT_ONCE]),
                return_offsets_mapping=True,
                return_attention_mask=False,
                return_token_type_ids=False,
                verbose=False,
            )
            yield from zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)

    def _with_bos_once(
        self, ids: list[int], offsets: list[tuple[int, int]]
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        token_ids = np.array(ids, dtype=np.int32)
        ends = np.array([end for _, end in offsets], dtype=np.int32)
        if self.bos_id is None:
            return token_ids, ends
        # A text that spells the BOS itself (a chat template does) must not get a second one.
        leading = int(np.argmin(np.append(token_ids == self.bos_id, False)))
        if leading > 1:
            return token_ids[leading - 1 :], ends[leading - 1 :]
        if leading == 0 and self.bos == "prepended":
            return np.insert(token_ids, 0, self.bos_id), np.insert(ends, 0, 0)
        return token_ids, ends

    def _cut(
        self, token_ids: npt.NDArray[np.int32], ends: npt.NDArray[np.int32], limit: int
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Cut to ``limit`` tokens, keeping the special tokens at the end."""
        tail = len(self.suffix)
        if tail == 0 or tail >= limit:
            return token_ids[:limit], ends[:limit]
        return (
            np.concatenate([token_ids[: limit - tail], token_ids[-tail:]]),
            np.concatenate([ends[: limit - tail], ends[-tail:]]),
        )

    def token_texts(self, ids: npt.NDArray[np.int32]) -> list[str]:
        """Return each token's text as it reads within a sentence (a leading space where it starts a word)."""
        known = {int(i): self._text_of(int(i)) for i in np.unique(ids)}
        return [known[int(i)] for i in ids]

    def _text_of(self, token_id: int) -> str:
        # After an anchor, because some tokenizers drop the space before the first token of what they decode.
        both = self._decode([self._anchor, token_id])
        alone = self._decode([self._anchor])
        return both.removeprefix(alone)

    @cached_property
    def _anchor(self) -> int:
        ids = [i for i in self.tokenizer("a")["input_ids"] if i not in self.special_ids]
        return int(ids[-1]) if ids else int(self.special_ids[0])

    def _decode(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _special_ids(tokenizer: Any) -> npt.NDArray[np.int32]:
    named = {getattr(tokenizer, f"{role}_token_id", None) for role in ("bos", "eos", "pad", "cls", "sep", "mask")} - {
        None
    }
    special = {*tokenizer.all_special_ids, *named}
    unknown = tokenizer.unk_token_id
    if unknown is not None and unknown not in named:
        special.discard(unknown)
    for token_id, token in tokenizer.added_tokens_decoder.items():
        if token_id != unknown and (token.special or _CONTROL.fullmatch(token.content)):
            special.add(token_id)
    return np.array(sorted(special), dtype=np.int32)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:39] + "…")
