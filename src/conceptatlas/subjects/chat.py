"""Chat prompts: what the model reads of one, and where its own turn's header stands.

The header is what ``add_generation_prompt`` appends to the rendered conversation: it is found as the difference between the
two renderings, never by searching for a string, so that a user who types ``<|im_start|>assistant`` changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from conceptatlas.base.errors import InputError, unknown_name

TokenIds = npt.NDArray[np.int32]
LAST = "last"
# Stands for the user's content when the template's own text around it is looked at; no template trims letters.
_MARK = "CONTENTMARKQX"


@dataclass(frozen=True)
class HeaderFamily:
    """How a family of templates begins the assistant's turn.

    Attributes:
        name: The family.
        header: The text that ``add_generation_prompt`` appends.
        tokens: Token type → the part of ``header`` that it stands on; a part of several tokens is read at its last.
    """

    name: str
    header: str
    tokens: dict[str, str]


FAMILIES: dict[str, HeaderFamily] = {}


def register_family(family: HeaderFamily) -> HeaderFamily:
    """Register a family of templates.

    Raises:
        ValueError: The name or the header is taken, or a part does not stand in the header.
    """
    if family.name in FAMILIES or any(family.header == other.header for other in FAMILIES.values()):
        raise ValueError(f"There is already a template family {family.name!r}, or one with its header.")
    if any(part not in family.header for part in family.tokens.values()):
        raise ValueError(f"The family {family.name!r} names a part that is not in its header.")
    FAMILIES[family.name] = family
    return family


for _family in (
    HeaderFamily(
        "llama3",
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        {"asst": "assistant", "endheader": "<|end_header_id|>", "newline": "\n\n"},
    ),
    # Qwen 2.5, Qwen 3 and every other ChatML template.
    HeaderFamily("chatml", "<|im_start|>assistant\n", {"asst": "assistant", "newline": "\n"}),
    HeaderFamily("gemma", "<start_of_turn>model\n", {"model": "model", "newline": "\n"}),
    HeaderFamily("phi3", "<|assistant|>\n", {"asst": "<|assistant|>", "newline": "\n"}),
    HeaderFamily("phi4", "<|im_start|>assistant<|im_sep|>", {"asst": "assistant", "sep": "<|im_sep|>"}),
    HeaderFamily("tulu", "<|assistant|>", {"asst": "<|assistant|>"}),
):
    register_family(_family)


@dataclass(frozen=True)
class ChatPrompt:
    """One prompt as the model reads it.

    Attributes:
        ids: int32, the whole rendered conversation with the generation prompt.
        positions: Token type → index into ``ids``.
        control: Control strings that the user's content contains, in order of their first occurrence.
    """

    ids: TokenIds
    positions: dict[str, int]
    control: tuple[str, ...]


class ChatFormat:
    """A tokenizer's chat template: rendered, tokenised without a second BOS, and the header's tokens found.

    Args:
        tokenizer: A Hugging Face fast tokenizer.
        name: The model's name, for messages.
        system: A system prompt; the template's own where None.
        extra: Further token types: name → index from the end, such as ``{"before": -2}``.
        escape_control: Tokenise control strings within the content as plain text.

    Raises:
        InputError: No chat template, or one that takes no system prompt while one is given.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        name: str,
        system: str | None = None,
        extra: dict[str, int] | None = None,
        escape_control: bool = False,
    ) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise InputError(f"The tokenizer of {name} has no chat template; take an instruct model.")
        self.tokenizer = tokenizer
        self.name = name
        self.system = system
        self.extra = dict(extra or {})
        self.escape_control = escape_control
        self.control_strings = sorted(
            {str(token) for token in tokenizer.get_added_vocab()} | set(map(str, tokenizer.all_special_tokens)),
            key=len,
            reverse=True,
        )
        self.before, self.after, self.header = self._parts()
        self.family = next((family for family in FAMILIES.values() if family.header == self.header), None)

    # The template ----------------------------------------------------------------------------------------------------

    def _render(self, content: str, *, header: bool) -> str:
        messages = [{"role": "user", "content": content}]
        if self.system is not None:
            messages.insert(0, {"role": "system", "content": self.system})
        try:
            return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=header))
        except Exception as error:
            if self.system is not None:
                raise InputError(
                    f"The chat template of {self.name} takes no system prompt ({error}); leave out --system."
                ) from error
            raise InputError(f"The chat template of {self.name} cannot be rendered: {error}.") from error

    def _parts(self) -> tuple[str, str, str]:
        """Return the text before the content, that after it, and the header at its end."""
        bare, full = self._render(_MARK, header=False), self._render(_MARK, header=True)
        if full.count(_MARK) != 1 or not full.startswith(bare):
            raise InputError(
                f"The chat template of {self.name} does not append its generation prompt to the conversation, so the "
                "assistant's tokens cannot be told; use --token with an index from the end."
            )
        before, after = full.split(_MARK)
        return before, after, full[len(bare) :]

    @property
    def token_types(self) -> list[str]:
        """The token types that this template has."""
        own = list(self.family.tokens) if self.family else []
        return [*own, *self.extra, LAST]

    @property
    def default_types(self) -> list[str]:
        """The types that are taken where none are asked for: those of the family and the extra ones, else ``last``."""
        return self.token_types[:-1] or [LAST]

    @property
    def default_system(self) -> str:
        """What the template itself puts before the user's turn when no system prompt is given (empty for none)."""
        if self.system is not None:
            return ""
        text = self.before
        for control in self.control_strings:
            text = text.replace(control, "\n")
        lines = [line.strip() for line in text.splitlines()]
        return " ".join(line for line in lines if line and line not in ("user", "system", "human"))

    def check_types(self, types: Sequence[str]) -> list[str]:
        """Return the asked token types, or the default ones where none are asked for.

        Raises:
            InputError: The template has no such type.
        """
        for one in types:
            if one not in self.token_types:
                raise InputError(
                    f"{unknown_name(f'token type of {self.name}', one, self.token_types)} It has: "
                    f"{', '.join(self.token_types)}."
                )
        return list(types) or self.default_types

    # Prompts ---------------------------------------------------------------------------------------------------------

    def encode(self, content: str, types: Sequence[str], *, max_tokens: int | None = None) -> ChatPrompt:
        """Render and tokenise one user turn, and find the asked token types.

        Raises:
            InputError: Longer than ``max_tokens``, or a position that is not found.
        """
        control = tuple(one for one in self.control_strings if one and one in content)
        if control and self.escape_control:
            ids, header_ids, spans = self._encode_escaped(content)
        else:
            ids, header_ids, spans = self._encode_plain(self._render(content, header=True))
        if max_tokens is not None and len(ids) > max_tokens:
            raise InputError(
                f"A prompt has {len(ids)} tokens with its template, and at most {max_tokens} are allowed: "
                f"{content[:60]!r}…; shorten it or raise --max-tokens."
            )
        positions = {one: self._position(one, len(ids), header_ids, spans) for one in types}
        return ChatPrompt(np.asarray(ids, dtype=np.int32), positions, control)

    def _encode_plain(self, text: str) -> tuple[list[int], int, list[tuple[int, int]]]:
        """Return all ids, how many of them are the header's, and the header tokens' spans within the header's text."""
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        start = len(text) - len(self.header)
        spans = [(a - start, b - start) for a, b in encoded["offset_mapping"] if b > start]
        # A byte-level token can claim the space before it; only a token that holds text of both sides is a fault.
        if spans and spans[0][0] < 0 and text[spans[0][0] + start : start].strip():
            raise InputError(
                f"In the chat template of {self.name} a token straddles the end of the user's turn and the assistant's "
                "header, so no position belongs to the header alone; use --token with an index from the end."
            )
        return list(encoded["input_ids"]), len(spans), spans

    def _encode_escaped(self, content: str) -> tuple[list[int], int, list[tuple[int, int]]]:
        """Tokenise the content with its control strings as plain text, the template's own text around it as ever."""
        raw = self.tokenizer.backend_tokenizer
        before = self.tokenizer(self.before, add_special_tokens=False)["input_ids"]
        usual = raw.encode_special_tokens
        raw.encode_special_tokens = True
        try:
            middle = raw.encode(content, add_special_tokens=False).ids
        finally:
            raw.encode_special_tokens = usual
        tail, header_ids, spans = self._encode_plain(self.after)
        return [*before, *middle, *tail], header_ids, spans

    def _position(self, one: str, n_ids: int, header_ids: int, spans: Sequence[tuple[int, int]]) -> int:
        if one == LAST:
            return n_ids - 1
        if one in self.extra:
            position = n_ids + self.extra[one] if self.extra[one] < 0 else self.extra[one]
            if not 0 <= position < n_ids:
                raise InputError(f"The token {one}={self.extra[one]} is outside a prompt of {n_ids} tokens.")
            return position
        assert self.family is not None
        part = self.family.tokens[one]
        start = self.header.rindex(part) if one == "newline" else self.header.index(part)
        end = start + len(part)
        for offset, (low, high) in enumerate(spans):
            if low < end <= high:
                return n_ids - header_ids + offset
        raise InputError(
            f"The token type {one!r} ({part!r}) is not found in the header of {self.name}; use --token with an index."
        )
