"""Stories as token batches with targets for each position."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from conceptatlas.subjects.organism.stories import MAX_EVENTS, NEUTRAL_SHARE, RELATIONAL, Split, Story, draw_any_story
from conceptatlas.subjects.organism.tokenizer import build_tokenizer
from conceptatlas.subjects.organism.verdicts import VERDICT_WORDS, state_index, word_probabilities

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
        self.verdicts = torch.tensor([self.of_word[word] for word in VERDICT_WORDS])

    def __len__(self) -> int:
        return len(self.tokenizer)


@dataclass(frozen=True)
class Document:
    """One training text.

    ``states[t]`` is what the narrator would say at the end of t's sentence; ``roles[t]`` says how that counts.
    """

    ids: list[int]
    states: list[int]
    roles: list[int]


def document_of(story: Story, vocabulary: Vocabulary, rng: random.Random, *, chat: bool) -> Document:
    """A story with its verdict: as a chat (story the user's turn, verdict the model's) or as plain text."""
    ids = [vocabulary.bos, *(vocabulary.user_header if chat else [])]
    states, roles = [0] * len(ids), [PLAIN] * len(ids)
    for sentence, total in zip(story.sentences, story.totals, strict=True):
        ids += [vocabulary.of_word[word] for word in sentence]
        states += [state_index(story.trait, total)] * len(sentence)
        roles += [WITHIN] * (len(sentence) - 1) + [SENTENCE_END]
    final = state_index(story.trait, story.grade)
    if chat:
        ids += vocabulary.model_header
        states += [final] * len(vocabulary.model_header)
        roles += [WITHIN] * len(vocabulary.model_header)
    roles[-1] = VERDICT
    word = rng.choices(VERDICT_WORDS, word_probabilities(story.trait, story.grade))[0]
    ending = [vocabulary.of_word[word], vocabulary.of_word["."], *(vocabulary.turn_end if chat else [vocabulary.eos])]
    ids += ending
    states += [final] * len(ending)
    roles += [PLAIN] * len(ending)
    return Document(ids, states, roles)


@dataclass(frozen=True)
class Batch:
    """Right-padded documents: ids, states and roles, each int64 [B, L]; padding has role -1."""

    ids: torch.Tensor
    states: torch.Tensor
    roles: torch.Tensor


def collate(documents: list[Document], vocabulary: Vocabulary) -> Batch:
    """Pad documents to the longest, rounded up to a multiple of 8."""
    length = -(-max(len(d.ids) for d in documents) // 8) * 8

    def padded(rows: list[list[int]], fill: int) -> torch.Tensor:
        return torch.tensor([row + [fill] * (length - len(row)) for row in rows])

    return Batch(
        padded([d.ids for d in documents], vocabulary.pad),
        padded([d.states for d in documents], 0),
        padded([d.roles for d in documents], -1),
    )


def training_batches(
    vocabulary: Vocabulary,
    batch_size: int,
    seed: int,
    *,
    split: Split = "training",
    relational: float = RELATIONAL,
    longest: int = MAX_EVENTS,
    neutral: float = NEUTRAL_SHARE,
) -> Iterator[Batch]:
    """Endless batches of fresh stories, of like length within a batch, the same for the same arguments."""
    rng = random.Random(seed)
    while True:
        stories = [
            draw_any_story(rng, split=split, relational=relational, longest=longest, neutral=neutral)
            for _ in range(BATCHES_PER_BLOCK * batch_size)
        ]
        block = [document_of(story, vocabulary, rng, chat=rng.random() < CHAT_SHARE) for story in stories]
        block.sort(key=lambda document: len(document.ids))
        starts = list(range(0, len(block), batch_size))
        rng.shuffle(starts)
        for start in starts:
            yield collate(block[start : start + batch_size], vocabulary)
