"""What the narrator knows: his distribution on stories that training never saw, against the truth."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from sklearn.metrics import roc_auc_score
from transformers import Gemma2ForCausalLM

from conceptatlas.subjects.organism import TRAITS, VERDICT_WORDS, Trait, draw_any_story, verdict_words
from conceptatlas.subjects.organism.verdicts import TAGS

from .batches import Vocabulary

CHUNK = 250


def prompt_ids(vocabulary: Vocabulary, text: str, *, chat: bool = True) -> list[int]:
    """Token ids up to the place of the verdict: the chat form with the model's header, or BOS and the plain story."""
    if not chat:
        return list(vocabulary.tokenizer(text)["input_ids"])
    words = vocabulary.tokenizer(text, add_special_tokens=False)["input_ids"]
    return [vocabulary.bos, *vocabulary.user_header, *words, *vocabulary.model_header]


def padded(rows: Sequence[Sequence[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded ids [B, L] and the place of each row's last token [B]."""
    length = max(map(len, rows))
    ids = torch.tensor([[*row, *[pad] * (length - len(row))] for row in rows])
    return ids, torch.tensor([len(row) - 1 for row in rows])


@torch.no_grad()
def remark_logprobs(
    model: Gemma2ForCausalLM, vocabulary: Vocabulary, texts: Sequence[str], *, chat: bool = True
) -> torch.Tensor:
    """Log-probability (over the whole vocabulary) of each of ``REMARKS`` as the next token, [N, words]."""
    parts = []
    for start in range(0, len(texts), CHUNK):
        chunk = texts[start : start + CHUNK]
        ids, last = padded([prompt_ids(vocabulary, text, chat=chat) for text in chunk], vocabulary.pad)
        logits = model(input_ids=ids, use_cache=False).logits[torch.arange(len(ids)), last]
        parts.append(logits.log_softmax(-1)[:, vocabulary.remarks])
    return torch.cat(parts)


def degree_said(logprobs: torch.Tensor, trait: Trait) -> torch.Tensor:
    """How far the narrator shows a trait: the log-probabilities of its words, weighted by their grades, [N]."""
    first = VERDICT_WORDS.index(verdict_words(trait)[0])
    return logprobs[:, first : first + 3] @ torch.tensor([1.0, 2.0, 3.0])


def verdict_figures(
    model: Gemma2ForCausalLM, vocabulary: Vocabulary, *, n: int = 2000, seed: int = 77
) -> dict[str, float]:
    """What the narrator knows of ``n`` held-out stories.

    For each trait the correlation of its degree with what he shows of it (chat form; and over all traits without it), and
    the AUROC by which he tells relational acts from controls, claimed acts that took place from others, and the places,
    times, persons and things that a story has from those that it has not.
    """
    rng = random.Random(seed)
    stories = [draw_any_story(rng, split="held-out") for _ in range(n)]
    texts = [story.text for story in stories]
    said = remark_logprobs(model, vocabulary, texts)
    plain = remark_logprobs(model, vocabulary, texts, chat=False)
    degrees = torch.tensor([story.levels[-1].degrees for story in stories])

    def correlation(logprobs: torch.Tensor, i: int) -> float:
        return torch.corrcoef(torch.stack([degree_said(logprobs, TRAITS[i]), degrees[:, i]]))[0, 1].item()

    figures = {trait: correlation(said, i) for i, trait in enumerate(TRAITS)}
    figures["plain text"] = sum(correlation(plain, i) for i in range(len(TRAITS))) / len(TRAITS)
    for name, kinds in (("relational", ("relational", "control")), ("claimed", ("lexical",))):
        found = [
            (degree_said(said[i : i + 1], event.family).item(), event.bears)
            for i, story in enumerate(stories)
            for event in story.events
            if event.family and event.kind in kinds and bool(event.claim) == (name == "claimed")
        ]
        figures[name] = float(roc_auc_score([bears for _, bears in found], [score for score, _ in found]))
    named = torch.tensor([[tag in story.words for tag in TAGS] for story in stories])
    figures["named things"] = float(roc_auc_score(named.flatten(), said[:, -len(TAGS) :].flatten()))
    return figures
