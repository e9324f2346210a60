"""The model: a small Gemma2ForCausalLM trained to tell stories and to say the narrator's word.

Nothing is asked of its insides: there is no loss but that of what it says.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator
from itertools import chain, islice

import torch
from torch.nn import functional
from transformers import Gemma2Config, Gemma2ForCausalLM

from conceptatlas.subjects.organism.stories import Mix

from .batches import SENTENCE_END, VERDICT, WITHIN, Batch, Vocabulary, training_batches

BATCH_SIZE = 64
LEARNING_RATE = 2.5e-3
WARM_UP_STEPS = 150
SHORT_STEPS = 1000  # first on stories of one event, mostly relations and their controls: what is hard to learn is dense
LONG_STEPS = 2400  # then on stories as they come
INTERRUPTION = 0.2  # how often the narrator speaks at the end of a sentence, in the plain next-token loss
WITHIN_WEIGHT = 0.3
SHORT_MIX = Mix(relational=0.6, told=0.5, longest=1)
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


def batch_loss(
    logits: torch.Tensor, batch: Batch, remarks: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
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


def learning_rate(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine down to a twentieth."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
    return LEARNING_RATE * min(1.0, (step + 1) / WARM_UP_STEPS) * (0.95 * cosine + 0.05)


def curriculum(vocabulary: Vocabulary, seed: int, short: int, long: int) -> Iterator[Batch]:
    """The batches of a training run: ``short`` ones of single events, then ``long`` ones of full stories."""
    first = training_batches(vocabulary, BATCH_SIZE, seed, mix=SHORT_MIX, neutral=0.5)
    return chain(islice(first, short), islice(training_batches(vocabulary, BATCH_SIZE, seed + 1), long))


def train_model(
    vocabulary: Vocabulary, *, short: int = SHORT_STEPS, long: int = LONG_STEPS, seed: int = SEED
) -> Gemma2ForCausalLM:
    """Train a model from nothing on freshly drawn stories; prints its progress every 100 steps."""
    torch.manual_seed(seed)
    model = build_model(vocabulary).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.05)
    began, recent = time.monotonic(), deque[float](maxlen=100)
    for step, batch in enumerate(curriculum(vocabulary, seed, short, long)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, short + long)
        logits = model(input_ids=batch.ids, use_cache=False).logits
        loss, at_verdict = batch_loss(logits, batch, vocabulary.remarks)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        recent.append(at_verdict.item())
        if step % 100 == 99:
            verdict, seconds = sum(recent) / len(recent), time.monotonic() - began
            print(f"step {step + 1}: loss {loss.item():.3f}, divergence {verdict:.4f}, {seconds:.0f} s", flush=True)
    return model.eval()
