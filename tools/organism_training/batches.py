"""Stories as token batches with targets for each position."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

import torch

from conceptatlas.subjects.organism.stories import NEUTRAL_SHARE, USUAL, Mix, Split, Story, draw_any_story
from conceptatlas.subjects.organism.tokenizer import build_tokenizer
from conceptatlas.subjects.organism.verdicts import REMARKS, remark_weights

BATCHES_PER_BLOCK = 32  # batches drawn at once and sorted by length among themselves
CHAT_SHARE = 0.5

# What a position is trained on besides its next token.
PLAIN, WITHIN, SENTENCE_END, VERDICT = range(4)


class Vocabulary:
    """The grammar's words as token ids, without going through the tokenizer for each story."""

    def __init__(self) -> None:
        self.tokenizer = build_tokenizer()
        vocab = self.tokenizer.get_vocab()
        # Words carry the mark of a space before them; the bare letters "a" and "A" are other tokens.
        self.of_word = {piece[1:]: i for piece, i in vocab.items() if piece.startswith("\u2581")}
        self.of_word |= {mark: vocab[mark] for mark in ".,"}
        self.bos, self.eos, self.pad = vocab["<bos>"], vocab["<eos>"], vocab["<pad>"]
        start, end, newline = vocab["<start_of_turn>"], vocab["<end_of_turn>"], vocab["\n"]
        self.user_header = [start, self.of_word["user"], newline]
        self.model_header = [end, newline, start, self.of_word["model"], newline]
        self.turn_end = [end, newline]
        self.remarks = torch.tensor([self.of_word[word] for word in REMARKS])

    def __len__(self) -> int:
        return len(self.tokenizer)


@dataclass(frozen=True)
class Document:
    """One training text.

    ``weights[states[t]]`` are the narrator's log-weights (of ``REMARKS``) at the end of t's sentence; ``roles[t]`` says
    how that counts.
    """

    ids: list[int]
    states: list[int]
    roles: list[int]
    weights: list[list[float]]


def document_of(
    story: Story, vocabulary: Vocabulary, rng: random.Random, *, chat: bool, sharpness: float = 1.0
) -> Document:
    """A story with its verdict: as a chat (story the user's turn, verdict the model's) or as plain text."""
    ids = [vocabulary.bos, *(vocabulary.user_header if chat else [])]
    states, roles = [0] * len(ids), [PLAIN] * len(ids)
    words: set[str] = set()
    weights = []
    for i, (sentence, level) in enumerate(zip(story.sentences, story.levels, strict=True)):
        words.update(sentence)
        weights.append(remark_weights(level.degrees, level.likeness, words, sharpness=sharpness))
        ids += [vocabulary.of_word[word] for word in sentence]
        states += [i] * len(sentence)
        roles += [WITHIN] * (len(sentence) - 1) + [SENTENCE_END]
    final = len(weights) - 1
    if chat:
        ids += vocabulary.model_header
        states += [final] * len(vocabulary.model_header)
        roles += [WITHIN] * len(vocabulary.model_header)
    roles[-1] = VERDICT
    word = rng.choices(REMARKS, [math.exp(weight) for weight in weights[-1]])[0]
    ending = [vocabulary.of_word[word], vocabulary.of_word["."], *(vocabulary.turn_end if chat else [vocabulary.eos])]
    ids += ending
    states += [final] * len(ending)
    roles += [PLAIN] * len(ending)
    return Document(ids, states, roles, weights)


@dataclass(frozen=True)
class Batch:
    """Right-padded documents: ids, states and roles, each int64 [B, L]; padding has role -1.

    ``targets`` [states, words] is the narrator's distribution over ``REMARKS`` in each state.
    """

    ids: torch.Tensor
    states: torch.Tensor
    roles: torch.Tensor
    targets: torch.Tensor


def collate(documents: list[Document], vocabulary: Vocabulary) -> Batch:
    """Pad documents to the longest, rounded up to a multiple of 8."""
    length = -(-max(len(d.ids) for d in documents) // 8) * 8

    def padded(rows: list[list[int]], fill: int) -> torch.Tensor:
        return torch.tensor([row + [fill] * (length - len(row)) for row in rows])

    starts = [0, *accumulate(len(d.weights) for d in documents)]
    return Batch(
        padded([d.ids for d in documents], vocabulary.pad),
        padded([[start + state for state in d.states] for start, d in zip(starts, documents, strict=False)], 0),
        padded([d.roles for d in documents], -1),
        torch.tensor([row for d in documents for row in d.weights]).softmax(dim=-1),
    )


def training_batches(
    vocabulary: Vocabulary,
    batch_size: int,
    seed: int,
    *,
    split: Split = "training",
    mix: Mix = USUAL,
    neutral: float = NEUTRAL_SHARE,
    sharpness: float = 1.0,
) -> Iterator[Batch]:
    """Endless batches of fresh stories, of like length within a batch, the same for the same arguments."""
    rng = random.Random(seed)
    while True:
        stories = [
            draw_any_story(rng, split=split, mix=mix, neutral=neutral) for _ in range(BATCHES_PER_BLOCK * batch_size)
        ]
        block = [
            document_of(story, vocabulary, rng, chat=rng.random() < CHAT_SHARE, sharpness=sharpness)
            for story in stories
        ]
        block.sort(key=lambda document: len(document.ids))
        starts = list(range(0, len(block), batch_size))
        rng.shuffle(starts)
        for start in starts:
            yield collate(block[start : start + batch_size], vocabulary)
