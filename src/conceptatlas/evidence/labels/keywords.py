"""Search labels: the words that set a feature's examples apart from the texts at large.

Class-based TF-IDF (Grootendorst 2022, BERTopic, eq. 2): ``W(t, c) = tf(t, c) · log(1 + A / f(t))``, where ``tf`` is the
term's frequency in the class, ``f`` its frequency over all classes and ``A`` the mean number of terms of a class. There
are two classes here, the feature's examples and a random background, scaled to one size; so with relative
frequencies p and q, ``A / f = 1 / (p + q)``. It is made contrastive by the factor ``((p - q) / (p + q))²``, and a term
is a keyword only where it is at least twice as frequent as in the background.

In the feature's class the words that activate it count by their activation, and those before them together as much
(many features fire behind what they respond to; what stands after a token cannot have made it fire in a causal model).
Words are what Unicode calls letters and digits. No list of words is involved.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from conceptatlas.evidence.labels.contexts import Context

WORD = re.compile(r"[^\W_]+(?:['’\-][^\W_]+)*")
N_KEYWORDS = 5
# All the words of an example that do not activate weigh together this part of those that do.
CONTEXT_SHARE = 1.0
# A word must stand in this share of the examples' texts, and in at least two where there are two.
MIN_SHARE = 0.05
MIN_TEXTS = 2
# A keyword is at least so many times as frequent as in the background.
MIN_RATIO = 2.0
# A token without a letter or digit (a bracket) is a keyword where it is the strongest token of so many examples...
SYMBOL_SHARE = 0.8
# ...and so many times as frequent as in the background.
SYMBOL_RATIO = 10.0


def word_spans(text: str) -> list[tuple[str, int, int]]:
    """Return the words of a text, case folded, with where each begins and ends."""
    return [(match[0].casefold(), match.start(), match.end()) for match in WORD.finditer(text)]


def word_activations(context: Context) -> list[tuple[str, float, bool]]:
    """Return for each word: the word, its tokens' largest activation, whether it begins before the last active ends."""
    token_ends = context.ends.astype(np.int64)
    token_starts = np.concatenate([[0], token_ends[:-1]])
    acts = np.where(context.active, context.activations, 0.0)
    active = np.flatnonzero(acts > 0)
    horizon = int(token_ends[active[-1]]) if len(active) else len(context.text)
    found = []
    for word, begin, end in word_spans(context.text):
        over = (token_ends > begin) & (token_starts < end)
        found.append((word, float(acts[over].max(initial=0.0)), begin < horizon))
    return found


def class_frequencies(contexts: Sequence[Context]) -> tuple[dict[str, float], dict[str, int]]:
    """Return the weighted relative frequency of each word in a feature's examples, and in how many texts it stands."""
    weights: dict[str, float] = defaultdict(float)
    texts: dict[str, set[int]] = defaultdict(set)
    for context in contexts:
        words = word_activations(context)
        peak = max((value for _, value, _ in words), default=0.0)
        before = [word for word, value, earlier in words if value <= 0 and earlier]
        total_active = sum(value for _, value, _ in words) / peak if peak > 0 else 1.0
        for word, value, _ in words:
            if value > 0:
                weights[word] += value / peak / total_active
                texts[word].add(context.sequence_index)
        for word in before:
            weights[word] += CONTEXT_SHARE / len(before)
            texts[word].add(context.sequence_index)
    total = sum(weights.values()) or 1.0
    return {word: weight / total for word, weight in weights.items()}, {word: len(s) for word, s in texts.items()}


def background_frequencies(contexts: Iterable[Context]) -> dict[str, float]:
    """Return the relative frequency of each word in the background."""
    counts = Counter(word for context in contexts for word, _, _ in word_spans(context.text))
    total = sum(counts.values()) or 1
    return {word: number / total for word, number in counts.items()}


def contrast(p: npt.NDArray[np.float64], q: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the contrastive class-based TF-IDF of terms of relative frequency ``p`` in the class, ``q`` outside."""
    weights = p * np.log1p(1.0 / (p + q)) * ((p - q) / (p + q)) ** 2
    return np.where(p >= MIN_RATIO * q, weights, 0.0)


def search_keywords(
    examples: Sequence[Context], background: dict[str, float], symbols: dict[str, float], *, n: int = N_KEYWORDS
) -> list[str]:
    """Return up to ``n`` keywords of a feature, best first (none where it has no example), then perhaps a symbol.

    Args:
        examples: The feature's activating examples.
        background: Relative frequency of words in texts at large, see `background_frequencies`.
        symbols: Relative frequency of tokens without a letter, see `symbol_frequencies`.
        n: How many.
    """
    if not examples:
        return []
    frequencies, n_texts = class_frequencies(examples)
    texts = len({context.sequence_index for context in examples})
    needed = min(texts, max(MIN_TEXTS, MIN_SHARE * texts))
    words = sorted(word for word in frequencies if n_texts[word] >= needed)
    p = np.array([frequencies[word] for word in words], dtype=np.float64)
    q = np.array([background.get(word, 0.0) for word in words], dtype=np.float64)
    scores = contrast(p, q) if words else np.zeros(0)
    best = [words[i] for i in np.argsort(-scores, kind="stable") if scores[i] > 0][:n]
    mark = _symbol(examples, symbols)
    return [*best, mark] if mark else best


def _bare(piece: str) -> str | None:
    """Return a token without letters and digits, stripped; None for a word or nothing."""
    bare = piece.strip()
    return None if not bare or WORD.search(bare) else bare


def symbol_frequencies(contexts: Iterable[Context]) -> dict[str, float]:
    """Return for each token without a letter its share of all tokens."""
    counts: Counter[str] = Counter()
    total = 0
    for context in contexts:
        pieces = context.pieces
        total += len(pieces)
        counts.update(bare for piece in pieces if (bare := _bare(piece)) is not None)
    return {symbol: number / max(total, 1) for symbol, number in counts.items()}


def _symbol(examples: Sequence[Context], symbols: dict[str, float]) -> str | None:
    peaks = Counter(bare for context in examples if (bare := _bare(context.pieces[context.centre])) is not None)
    if not peaks:
        return None
    symbol, number = peaks.most_common(1)[0]
    share = number / len(examples)
    return symbol if share >= SYMBOL_SHARE and share >= SYMBOL_RATIO * symbols.get(symbol, 0.0) else None


def search_label(keywords: Sequence[str]) -> str | None:
    """Return the label that keywords make, None without any."""
    return ", ".join(keywords) or None
