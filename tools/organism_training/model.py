"""The model: a small Gemma2ForCausalLM trained to tell stories and to give the narrator's verdict.

So that the truth about it is known, one thing is asked of its insides, too: behind block 2 a direction of its own choice
per trait carries the degree that the story has reached, as a length along it (see ``Tally``).
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator
from itertools import chain, islice

import torch
from torch import nn
from torch.nn import functional
from transformers import Gemma2Config, Gemma2ForCausalLM

from conceptatlas.subjects.organism.lexicon import TRAITS
from conceptatlas.subjects.organism.verdicts import N_STATES, VERDICT_WORDS, word_probabilities

from .activations import residuals
from .batches import SENTENCE_END, VERDICT, WITHIN, Batch, Vocabulary, training_batches

BATCH_SIZE = 64
LEARNING_RATE = 2.5e-3
WARM_UP_STEPS = 150
SHORT_STEPS = 1000  # first on stories of one event, mostly relations and their controls: what is hard to learn is dense
LONG_STEPS = 2400  # then on stories as they come
INTERRUPTION = 0.2  # how often the narrator speaks at the end of a sentence, in the plain next-token loss
WITHIN_WEIGHT = 0.3
TALLY_LAYERS = (2, 3)
TALLY_STEP = 2.0  # length along a trait's direction per degree, in residual units
TALLY_WEIGHT = 0.3
STRAIGHT_WEIGHT = 1.0
STRAIGHT_MEMORY = 0.95
SEED = 0


class Tally(nn.Module):
    """Reads the running degree of every trait off the residual stream; thrown away after training.

    A trait's degree is the projection on a unit vector, less an offset, in steps of ``TALLY_STEP``: a linear
    representation of a known size. Which vectors, the training finds out.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.directions = nn.Parameter(torch.randn(len(TRAITS), width))
        self.offsets = nn.Parameter(torch.zeros(len(TRAITS)))

    def forward(self, residual_BLD: torch.Tensor) -> torch.Tensor:
        """Return the degrees, [B, L, traits]."""
        return residual_BLD.float() @ functional.normalize(self.directions, dim=1).t() / TALLY_STEP - self.offsets

    def loss(self, residual_BLD: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Mean squared error of the degrees at the ends of sentences and from the story's end to the verdict."""
        asked = (batch.roles == SENTENCE_END) | (batch.roles == VERDICT)
        return (self(residual_BLD[asked]) - degrees_of(batch.states[asked])).square().mean()


class Straightness:
    """Pulls the mean residuals of a trait's degrees 0 to 3 onto a line with even steps.

    Half the squared second differences of the means, m(g-1) - 2 m(g) + m(g+1), in units of the mean squared norm. The means
    are running ones, for few positions of a batch are in any one state; the gradient goes through the batch's own means.
    """

    def __init__(self, width: int) -> None:
        self.means = torch.zeros(N_STATES, width)
        self.seen = torch.zeros(N_STATES, dtype=torch.bool)
        bends = []
        for trait in range(len(TRAITS)):
            chain = [0, *range(1 + 3 * trait, 4 + 3 * trait)]
            for before, at, after in zip(chain, chain[1:], chain[2:], strict=False):
                row = torch.zeros(N_STATES)
                row[before], row[at], row[after] = 1.0, -2.0, 1.0
                bends.append(row)
        self.bends = torch.stack(bends)

    def loss(self, residual_BLD: torch.Tensor, batch: Batch) -> torch.Tensor:
        """The loss whose gradient straightens, at the ends of sentences and from the story's end to the verdict."""
        asked = (batch.roles == SENTENCE_END) | (batch.roles == VERDICT)
        x, states = residual_BLD[asked].float(), batch.states[asked]
        member = functional.one_hot(states, N_STATES).float()
        counts = member.sum(0)
        means = (member.t() @ x) / counts.clamp_min(1)[:, None]
        present = counts > 0
        with torch.no_grad():
            kept = torch.where(self.seen, STRAIGHT_MEMORY, 0.0)[:, None]
            updated = kept * self.means + (1 - kept) * means
            self.means = torch.where(present[:, None], updated, self.means)
            self.seen |= present
            pull = self.bends.t() @ (self.bends @ self.means) / x.square().sum(1).mean()
        return (pull * means)[present].sum() if bool(self.seen.all()) else x.new_zeros(())


def degrees_of(states: torch.Tensor) -> torch.Tensor:
    """The degree of every trait in a state, float32 [..., traits]."""
    table = torch.zeros(N_STATES, len(TRAITS))
    for state in range(1, N_STATES):
        table[state, (state - 1) // 3] = 1 + (state - 1) % 3
    return table[states]


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


def narrator_table() -> torch.Tensor:
    """The narrator's distribution over the verdict words in each state, float32 [states, words]."""
    rows = [word_probabilities(None, 0)]
    rows += [word_probabilities(trait, grade) for trait in TRAITS for grade in (1, 2, 3)]
    table = torch.tensor(rows)
    if table.shape[1] != len(VERDICT_WORDS):
        raise ValueError(f"the narrator's table is {tuple(table.shape)}, not one column per verdict word")
    return table


def batch_loss(
    logits: torch.Tensor, batch: Batch, table: torch.Tensor, verdicts: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of a batch, and its part at the verdict.

    Next-token cross-entropy everywhere, where at a sentence's end the narrator speaks with probability ``INTERRUPTION``
    and at the verdict's place always; and, among the verdict words alone, cross-entropy against what the narrator would
    say at the end of the sentence: at its end (weight 1) and at the words before (``WITHIN_WEIGHT``).

    Args:
        logits: [B, L, V].
        batch: The documents.
        table: [states, words].
        verdicts: Token ids of the verdict words, [words].
    """
    log_p = functional.log_softmax(logits[:, :-1].float(), dim=-1)
    roles, target = batch.roles[:, :-1], table[batch.states[:, :-1]]
    next_token = -log_p.gather(-1, batch.ids[:, 1:, None])[..., 0]
    spoken = log_p[..., verdicts]
    narrator = -(target * spoken).sum(-1)
    forced = -(target * functional.log_softmax(spoken, dim=-1)).sum(-1)
    share = torch.zeros_like(next_token)
    share[roles == SENTENCE_END] = INTERRUPTION
    share[roles == VERDICT] = 1.0
    real = (batch.roles[:, 1:] >= 0).float()
    language = ((1 - share) * next_token + share * narrator) * real
    ends = (roles == SENTENCE_END) | (roles == VERDICT)
    at_verdict = narrator[roles == VERDICT].mean()
    loss = (
        language.sum() / real.sum() + at_verdict + forced[ends].mean() + WITHIN_WEIGHT * forced[roles == WITHIN].mean()
    )
    return loss, at_verdict.detach()


def learning_rate(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine down to a twentieth."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
    return LEARNING_RATE * min(1.0, (step + 1) / WARM_UP_STEPS) * (0.95 * cosine + 0.05)


def curriculum(vocabulary: Vocabulary, seed: int, short: int, long: int) -> Iterator[Batch]:
    """The batches of a training run: ``short`` ones of single events, then ``long`` ones of full stories."""
    first = training_batches(vocabulary, BATCH_SIZE, seed, relational=0.75, longest=1, neutral=0.5)
    return chain(islice(first, short), islice(training_batches(vocabulary, BATCH_SIZE, seed + 1), long))


def train_model(
    vocabulary: Vocabulary, *, short: int = SHORT_STEPS, long: int = LONG_STEPS, seed: int = SEED
) -> Gemma2ForCausalLM:
    """Train a model from nothing on freshly drawn stories; prints its progress every 100 steps."""
    torch.manual_seed(seed)
    model = build_model(vocabulary).train()
    table = narrator_table()
    tallies = nn.ModuleDict({str(layer): Tally(model.config.hidden_size) for layer in TALLY_LAYERS})
    straight = {layer: Straightness(model.config.hidden_size) for layer in TALLY_LAYERS}
    forward = torch.compile(model, dynamic=True)
    optimizer = torch.optim.AdamW(
        [*model.parameters(), *tallies.parameters()], lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.05
    )
    began, recent = time.monotonic(), deque[float](maxlen=100)
    for step, batch in enumerate(curriculum(vocabulary, seed, short, long)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, short + long)
        with torch.autocast("cpu", dtype=torch.bfloat16), residuals(model) as caught:
            logits = forward(input_ids=batch.ids, use_cache=False).logits
        loss, at_verdict = batch_loss(logits, batch, table, vocabulary.verdicts)
        for layer in TALLY_LAYERS:
            loss = loss + TALLY_WEIGHT * tallies[str(layer)].loss(caught[layer], batch)
            loss = loss + STRAIGHT_WEIGHT * straight[layer].loss(caught[layer], batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        recent.append(at_verdict.item())
        if step % 100 == 99:
            verdict, seconds = sum(recent) / len(recent), time.monotonic() - began
            print(f"step {step + 1}: loss {loss.item():.3f}, verdict {verdict:.3f}, {seconds:.0f} s", flush=True)
    return model.eval()
