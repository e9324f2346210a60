"""Figures on held-out text, against plain hooks of the Hugging Face model and plain formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from conceptatlas.saes import Decoder, Encoder
from conceptatlas.subjects import LanguageSubject, Site
from conceptatlas.subjects.texts import TextStream
from conceptatlas.training.contexts import Contexts, make_contexts
from conceptatlas.training.quality import Quality, Trained, measure

LAYER, F = 1, 40
SITE = Site("hook_resid_post", LAYER)


@pytest.fixture(scope="module")
def contexts(organism: LanguageSubject, texts: list[str]) -> Contexts:
    return make_contexts(organism, TextStream(texts * 3), context=24, rows=10**9)


@pytest.fixture(scope="module")
def sae(organism: LanguageSubject) -> Trained:
    generator = torch.Generator().manual_seed(0)
    W_enc = torch.randn(organism.d_model, F, generator=generator) / 8
    threshold = torch.linspace(0.2, 3, F)
    threshold[7] = 1e9  # a latent that is never active
    encoder = Encoder("jumprelu", "threshold", W_enc, bias=torch.zeros(F), threshold=threshold)
    return Trained(SITE, encoder, Decoder(W_enc.T.contiguous(), torch.full((organism.d_model,), 0.01)))


def plain_loss(subject: LanguageSubject, ids: np.ndarray, change, sinks: np.ndarray) -> tuple[float, int]:
    """CE of one context by a hook on the Hugging Face layer; BOS and sinks are left as they are."""
    kept = torch.from_numpy(~np.isin(ids, subject.token_rules.special_ids) & ~sinks)

    def hook(_module, _args, output):
        hidden = (output[0] if isinstance(output, tuple) else output).clone()
        hidden[0, kept] = change(hidden[0, kept])
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    handle = subject.stack.layers[LAYER].register_forward_hook(hook)
    try:
        with torch.no_grad():
            logits = subject.hf_model(torch.from_numpy(ids.astype(np.int64))[None]).logits[0].float()
    finally:
        handle.remove()
    follows = ~np.isin(ids[1:], subject.token_rules.special_ids)
    logp = torch.log_softmax(logits[:-1], dim=-1)[
        torch.arange(len(ids) - 1), torch.from_numpy(ids[1:].astype(np.int64))
    ]
    return -float(logp[torch.from_numpy(follows)].sum()), int(follows.sum())


def oracle(subject: LanguageSubject, contexts: Contexts, sae: Trained, limit: float, most: int) -> Quality:
    total, tokens, rows = np.zeros(3), 0, []
    for context in np.flatnonzero(contexts.held_out)[:most]:
        ids = np.asarray(contexts.of(int(context)))
        states = subject.hidden_states([ids], [SITE])[str(SITE)]
        sinks = states.norm(dim=1).numpy() > limit
        rows.append(states[torch.from_numpy(~np.isin(ids, subject.token_rules.special_ids) & ~sinks)])
        losses = [
            plain_loss(subject, ids, change, sinks) for change in (lambda x: x, torch.zeros_like, sae.reconstruct)
        ]
        total += [loss for loss, _ in losses]
        tokens += losses[0][1]
    x = torch.cat(rows).double()
    pre = x @ sae.encoder.W_enc.double()
    acts = torch.where(pre > sae.encoder.threshold.double(), pre, 0.0)
    error = (x - acts @ sae.decoder.W_dec.double() - sae.decoder.b_dec).pow(2).sum()
    clean, zero, spliced = total / tokens
    return Quality(
        n_rows=len(x),
        fvu=float(error / (x - x.mean(dim=0)).pow(2).sum()),
        l0=float((acts != 0).sum(dim=1).double().mean()),
        silent=float((acts == 0).all(dim=0).double().mean()),
        ce_clean=clean,
        ce_zero=zero,
        ce_spliced=spliced,
        loss_recovered=(zero - spliced) / (zero - clean),
    )


@pytest.mark.parametrize("share_sinks", [0.0, 0.2])
def test_figures_are_those_of_plain_hooks(
    organism: LanguageSubject, contexts: Contexts, sae: Trained, share_sinks: float
) -> None:
    norms = organism.hidden_states([np.asarray(contexts.of(0))], [SITE])[str(SITE)].norm(dim=1).numpy()
    limit = float(np.quantile(norms[1:], 1 - share_sinks)) if share_sinks else 1e9
    found = measure(organism, contexts, {"one": sae}, {str(SITE): limit}, most=5)["one"]
    expected = oracle(organism, contexts, sae, limit, 5)
    assert found.n_rows == expected.n_rows
    assert expected.silent > 0
    for name in ("fvu", "l0", "silent", "ce_clean", "ce_zero", "ce_spliced", "loss_recovered"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-3), name


def test_a_perfect_sae_recovers_all_and_an_empty_one_nothing(organism: LanguageSubject, contexts: Contexts) -> None:
    width = organism.d_model
    both = torch.cat([torch.eye(width), -torch.eye(width)], dim=1)
    nothing = torch.zeros(2 * width)

    def made(threshold: float) -> Trained:
        encoder = Encoder("jumprelu", "threshold", both, bias=nothing, threshold=torch.full((2 * width,), threshold))
        return Trained(SITE, encoder, Decoder(both.T.contiguous(), torch.zeros(width)))

    found = measure(organism, contexts, {"all": made(0.0), "none": made(1e9)}, {str(SITE): 1e9}, most=2)
    assert found["all"].loss_recovered == pytest.approx(1.0, abs=1e-3)
    assert found["all"].fvu == pytest.approx(0.0, abs=1e-5)
    assert found["all"].l0 == pytest.approx(width, rel=0.02)
    assert found["none"].loss_recovered == pytest.approx(0.0, abs=1e-6)
    assert found["none"].silent == 1.0


def test_a_site_that_cannot_be_edited_has_no_loss(organism: LanguageSubject, contexts: Contexts, sae: Trained) -> None:
    site = Site("ln2.hook_normalized", LAYER)
    one = Trained(site, sae.encoder, sae.decoder)
    found = measure(organism, contexts, {"one": one}, {str(site): 1e9}, most=2)["one"]
    assert found.loss_recovered is None
    assert "can be read but not edited" in found.why_no_loss
    assert math.isfinite(found.fvu)
