"""Is the narrator right? Forced choice over the verdict words on stories that training never saw."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from transformers import Gemma2ForCausalLM

from conceptatlas.subjects.organism import TRAITS, Story, draw_any_story, state_index, state_of_word
from conceptatlas.subjects.organism.verdicts import VERDICT_WORDS

from .batches import Vocabulary

WORD_STATES = torch.tensor([state_of_word(word) for word in VERDICT_WORDS])
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
def verdict_logprobs(
    model: Gemma2ForCausalLM, vocabulary: Vocabulary, texts: Sequence[str], *, chat: bool = True
) -> torch.Tensor:
    """Log-probability (over the whole vocabulary) of each verdict word as the next token, [N, words]."""
    parts = []
    for start in range(0, len(texts), CHUNK):
        chunk = texts[start : start + CHUNK]
        ids, last = padded([prompt_ids(vocabulary, text, chat=chat) for text in chunk], vocabulary.pad)
        logits = model(input_ids=ids, use_cache=False).logits[torch.arange(len(ids)), last]
        parts.append(logits.log_softmax(-1)[:, vocabulary.verdicts])
    return torch.cat(parts)


def _is(stories: Sequence[Story], kind: str) -> torch.Tensor:
    return torch.tensor([any(event.kind == kind for event in story.events) for story in stories])


def verdict_figures(
    model: Gemma2ForCausalLM, vocabulary: Vocabulary, *, n: int = 3000, seed: int = 77
) -> dict[str, float]:
    """Share of right verdicts on ``n`` held-out stories: in all, by what they hold, by trait, and without the chat form."""
    rng = random.Random(seed)
    stories = [draw_any_story(rng, split="held-out") for _ in range(n)]
    truth = torch.tensor([state_index(story.trait, story.grade) for story in stories])
    texts = [story.text for story in stories]
    right = {
        chat: WORD_STATES[verdict_logprobs(model, vocabulary, texts, chat=chat).argmax(1)] == truth
        for chat in (True, False)
    }
    parts = {
        "all": torch.ones(n, dtype=torch.bool),
        "with a relational act": _is(stories, "relational"),
        "with a control": _is(stories, "control"),
        "neutral": torch.tensor([story.trait is None for story in stories]),
        **{trait: torch.tensor([story.trait == trait for story in stories]) for trait in TRAITS},
    }
    figures = {name: right[True][mask].float().mean().item() for name, mask in parts.items()}
    return figures | {"plain text": right[False].float().mean().item()}
