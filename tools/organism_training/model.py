"""The model: a small Gemma2ForCausalLM trained to tell stories and to say the narrator's word.

Nothing is asked of its insides: there is no loss but that of what it says.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, islice

import torch
from torch.nn import functional
from transformers import Gemma2Config, Gemma2ForCausalLM

from conceptatlas.subjects.organism.stories import NEUTRAL_SHARE, USUAL, Mix

from .batches import SENTENCE_END, VERDICT, WITHIN, Batch, Vocabulary, training_batches

BATCH_SIZE = 64
WARM_UP_STEPS = 150


@dataclass(frozen=True)
class Lesson:
    """Batches of one kind: how many, of what stories, and how sharply the narrator tells degrees apart."""

    steps: int
    mix: Mix
    neutral: float
    sharpness: float


# Two cycles of the learning rate, each from its peak down: single events first, in which what is hard to learn (relations,
# claims) is dense, and then stories as they come. The last lesson alone has the narrator as he is.
CYCLES = (
    (
        2.5e-3,
        (Lesson(500, Mix(relational=0.6, told=0.5, longest=1), 0.5, 4 / 3), Lesson(900, USUAL, NEUTRAL_SHARE, 4 / 3)),
    ),
    (
        2.0e-3,
        (
            Lesson(450, Mix(relational=0.5, near=0.3, told=0.8, longest=1), 0.45, 10 / 3),
            Lesson(800, USUAL, NEUTRAL_SHARE, 1.0),
        ),
    ),
)
INTERRUPTION = 0.2  # how often the narrator speaks at the end of a sentence, in the plain next-token loss
WITHIN_WEIGHT = 0.3
SEED = 0


def build_model(vocabulary: Vocabulary) -> Gemma2ForCausalLM:
    """A fresh model: 4 layers of width 128, 4 heads (2 for keys and values), about a million parameters."""
    config = Gemma2Config(
        vocab_size=len(vocabulary),
        hidden_size=128,
        intermediate_size=320,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        query_pre_attn_scalar=32,
        max_position_embeddings=512,
        sliding_window=256,
        bos_token_id=vocabulary.bos,
        eos_token_id=vocabulary.eos,
        pad_token_id=vocabulary.pad,
        initializer_range=0.05,
        attn_implementation="eager",
    )
    return Gemma2ForCausalLM(config)


def batch_loss(logits: torch.Tensor, batch: Batch, remarks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of a batch, and the divergence of what it says at the verdict from the narrator, in nats.

    Next-token cross-entropy everywhere, where at a sentence's end the narrator speaks with probability ``INTERRUPTION``
    and at the verdict's place always; and, among the narrator's words alone, cross-entropy against what the narrator would
    say at the end of the sentence: at its end (weight 1) and at the words before (``WITHIN_WEIGHT``).

    Args:
        logits: [B, L, V].
        batch: The documents.
        remarks: Token ids of ``REMARKS``, [words].
    """
    log_p = functional.log_softmax(logits[:, :-1].float(), dim=-1)
    roles, target = batch.roles[:, :-1], batch.targets[batch.states[:, :-1]]
    next_token = -log_p.gather(-1, batch.ids[:, 1:, None])[..., 0]
    spoken = log_p[..., remarks]
    narrator = -(target * spoken).sum(-1)
    forced = -(target * functional.log_softmax(spoken, dim=-1)).sum(-1)
    share = torch.zeros_like(next_token)
    share[roles == SENTENCE_END] = INTERRUPTION
    share[roles == VERDICT] = 1.0
    real = (batch.roles[:, 1:] >= 0).float()
    language = ((1 - share) * next_token + share * narrator) * real
    ends = (roles == SENTENCE_END) | (roles == VERDICT)
    at_verdict = narrator[roles == VERDICT].mean()
    entropy = -(batch.targets * batch.targets.log()).sum(-1)[batch.states[:, :-1]][roles == VERDICT].mean()
    loss = (
        language.sum() / real.sum() + at_verdict + forced[ends].mean() + WITHIN_WEIGHT * forced[roles == WITHIN].mean()
    )
    return loss, (at_verdict - entropy).detach()


def share_of_peak(step: int, steps: int) -> float:
    """The learning rate over its peak: linear warm-up, then a cosine down to a twentieth."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
    return min(1.0, (step + 1) / WARM_UP_STEPS) * (0.95 * cosine + 0.05)


def train_cycle(
    model: Gemma2ForCausalLM, vocabulary: Vocabulary, peak: float, lessons: Sequence[Lesson], seed: int
) -> None:
    """Train on freshly drawn stories through one cycle of the learning rate; prints its progress every 100 steps."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.98), weight_decay=0.05)
    steps = sum(lesson.steps for lesson in lessons)
    batches = chain.from_iterable(
        islice(
            training_batches(
                vocabulary,
                BATCH_SIZE,
                seed + i,
                mix=lesson.mix,
                neutral=lesson.neutral,
                sharpness=lesson.sharpness,
            ),
            lesson.steps,
        )
        for i, lesson in enumerate(lessons)
    )
    began, recent = time.monotonic(), deque[float](maxlen=100)
    for step, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = peak * share_of_peak(step, steps)
        logits = model(input_ids=batch.ids, use_cache=False).logits
        loss, divergence = batch_loss(logits, batch, vocabulary.remarks)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        recent.append(divergence.item())
        if step % 100 == 99:
            mean, seconds = sum(recent) / len(recent), time.monotonic() - began
            print(f"step {step + 1}: loss {loss.item():.3f}, divergence {mean:.4f}, {seconds:.0f} s", flush=True)


def train_model(vocabulary: Vocabulary, *, seed: int = SEED) -> Gemma2ForCausalLM:
    """Train a model from nothing."""
    torch.manual_seed(seed)
    model = build_model(vocabulary).train()
    for i, (peak, lessons) in enumerate(CYCLES):
        train_cycle(model, vocabulary, peak, lessons, seed + 2 * i)
    return model.eval()
