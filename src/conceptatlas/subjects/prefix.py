"""The prefix property: the hidden state of token t in the whole text is that of the last token of "tokens 1..t".

A causal transformer has it, and one pass over the text gives every fragment. Two kinds of model break it: those in
which a token sees what follows (bidirectional encoders), and those whose position encoding depends on the length of
what they are given (long rope switches its frequencies beyond the original context, dynamic rope changes them with
every length).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

TokenIds = npt.NDArray[np.int32]
RowMask = npt.NDArray[np.bool_]

Proof = Literal["proven by architecture", "checked on this model", "needs true passes"]

# Families for which tests prove the property, soft-capping and sliding windows included. By the text model's type.
PROVEN = frozenset(
    {"gemma2", "gemma3", "gemma3_text", "gpt2", "gpt_neox", "llama", "mistral", "phi3", "qwen2", "qwen3"}
)


@dataclass(frozen=True)
class Prefix:
    """What one pass can be trusted with.

    Attributes:
        proof: How we know.
        limit: Fragments of up to so many tokens come out of one pass over the item cut there; None: all do; 0: none.
        beyond: How longer fragments are had: one pass over the whole item (``"pass"``), or each its own pass
            (``"fragments"``); ``"equal fragments"``: passes that hold fragments of one length only.
        reason: Why the property does not hold throughout; empty where it does.
    """

    proof: Proof
    limit: int | None = None
    beyond: Literal["pass", "fragments", "equal fragments"] = "pass"
    reason: str = ""


def _ropes(config: Any) -> list[dict[str, Any]]:
    """Return the rope parameters of a text configuration: one set, or one per kind of layer."""
    parameters = getattr(config, "rope_parameters", None) or {}
    return list(parameters.values()) if all(isinstance(v, dict) for v in parameters.values()) else [parameters]


def context_limit(config: Any) -> int | None:
    """Return the longest sequence that a text configuration allows, or None where it sets no limit.

    Dynamic rope counts its ``max_position_embeddings`` before stretching by its factor.
    """
    limit = getattr(config, "max_position_embeddings", None)
    if limit is None:
        return None
    stretch = [rope.get("factor", 1.0) for rope in _ropes(config) if rope.get("rope_type") == "dynamic"]
    return int(limit * max(stretch, default=1.0))


def rope_break(config: Any) -> Prefix | None:
    """Return how the position encoding of a text configuration breaks the property, or None where it does not."""
    for rope in _ropes(config):
        kind = rope.get("rope_type", "default")
        if kind not in ("longrope", "dynamic"):
            continue
        limit = rope.get("original_max_position_embeddings") or getattr(
            config, "original_max_position_embeddings", config.max_position_embeddings
        )
        if kind == "longrope":
            reason = f"long rope changes its frequencies for texts of more than {limit} tokens"
            return Prefix("needs true passes", int(limit), "pass", reason)
        reason = f"dynamic rope changes its frequencies with the length beyond {limit} tokens"
        # One token less: the library only goes back to the original frequencies below the limit.
        return Prefix("needs true passes", int(limit) - 1, "equal fragments", reason)
    return None


BIDIRECTIONAL = Prefix("needs true passes", 0, "fragments", "tokens see what follows them")


@dataclass(frozen=True)
class Pass:
    """One padded batch to run.

    Attributes:
        token_ids: Per sequence.
        rows: Per sequence, the positions to keep.
        places: int64 [T of this pass], where the kept rows belong among all rows.
    """

    token_ids: list[TokenIds]
    rows: list[RowMask]
    places: npt.NDArray[np.int64]


def plan_passes(
    prefix: Prefix, token_ids: Sequence[TokenIds], rows: Sequence[RowMask], suffix: TokenIds
) -> Iterator[Pass]:
    """Yield the passes that give every asked row the hidden state of its own fragment.

    A fragment ends with its token and, in encoders, the special tokens ``suffix`` that end every text. Passes of
    fragments hold no more padded tokens than the batch itself, so memory stays what the caller planned.
    """
    first = np.concatenate([[0], np.cumsum([int(mask.sum()) for mask in rows])]).astype(np.int64)
    everything = [np.arange(first[i], first[i + 1], dtype=np.int64) for i in range(len(rows))]
    if prefix.limit is None or (prefix.limit and all(len(ids) <= prefix.limit for ids in token_ids)):
        yield Pass(list(token_ids), list(rows), np.arange(first[-1], dtype=np.int64))
        return
    limit = prefix.limit
    if limit:
        yield from _one_pass([ids[:limit] for ids in token_ids], [mask[:limit] for mask in rows], everything)
    long = [i for i, mask in enumerate(rows) if mask[limit:].any()]
    if prefix.beyond == "pass":
        masks = [rows[i] & (np.arange(len(rows[i])) >= limit) for i in long]
        kept = [everything[i][int(rows[i][:limit].sum()) :] for i in long]
        yield from _one_pass([token_ids[i] for i in long], masks, kept)
        return
    budget = len(token_ids) * max(len(ids) for ids in token_ids)
    fragments = [
        (np.concatenate([_body(token_ids[i], suffix)[: t + 1], suffix]).astype(np.int32), int(t), int(place))
        for i in long
        for t, place in zip(np.flatnonzero(rows[i]), everything[i], strict=True)
        if t >= limit
    ]
    yield from _fragment_passes(fragments, budget, equal=prefix.beyond == "equal fragments")


def _body(ids: TokenIds, suffix: TokenIds) -> TokenIds:
    """Return the ids without the special tokens that end every text."""
    n = len(suffix)
    return ids[:-n] if n and np.array_equal(ids[-n:], suffix) else ids


def _one_pass(
    token_ids: list[TokenIds], masks: list[RowMask], everything: list[npt.NDArray[np.int64]]
) -> Iterator[Pass]:
    asked = [i for i, mask in enumerate(masks) if mask.any()]
    if asked:
        places = np.concatenate([everything[i][: int(masks[i].sum())] for i in asked])
        yield Pass([token_ids[i] for i in asked], [masks[i] for i in asked], places)


def _fragment_passes(fragments: list[tuple[TokenIds, int, int]], budget: int, *, equal: bool) -> Iterator[Pass]:
    by_length = sorted(fragments, key=lambda fragment: len(fragment[0]))
    start = 0
    for end in range(1, len(by_length) + 1):
        longest = len(by_length[end][0]) if end < len(by_length) else 0
        full = (end + 1 - start) * longest > budget
        if end == len(by_length) or full or (equal and longest != len(by_length[start][0])):
            chunk = by_length[start:end]
            yield Pass(
                [ids for ids, _, _ in chunk],
                [np.arange(len(ids)) == t for ids, t, _ in chunk],
                np.array([place for _, _, place in chunk], dtype=np.int64),
            )
            start = end


def breaks_when_run(run: Callable[[TokenIds], npt.NDArray[np.float32]], vocabulary: int, tolerance: float) -> bool:
    """Try the property on a model: does a prefix change with what follows it?

    Args:
        run: Token ids [S] -> hidden states [S, D] of the last block.
        vocabulary: Ids below it are valid.
        tolerance: Relative difference that rounding may cause.
    """
    ids = np.random.default_rng(0).integers(0, vocabulary, size=24).astype(np.int32)
    other = ids.copy()
    other[11:] = (other[11:] + 1) % vocabulary
    whole, changed, alone = run(ids)[:11], run(other)[:11], run(ids[:11])
    scale = float(np.abs(whole).mean()) + 1e-12
    return any(float(np.abs(whole - view).mean()) > tolerance * scale for view in (changed, alone))
