"""Labelling some features against encoding all of them, on the built-in model.

    python -m benchmarks.label                       # 20 features of an SAE over 1,000,000 tokens
    python -m benchmarks.label --tokens 100000       # the same, shorter

For 20 features and for all of them: the encode stage alone, on the hidden states of all the texts in the batches of the
pass, in interleaved rounds, for the wide and the narrow SAE of the last layer; and the whole pass (tokenise, forward, encode,
keep examples) once each.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Iterator, Sequence

import torch

from conceptatlas.evidence.labels.collect import CollectOptions, ColumnEncoder, collect
from conceptatlas.evidence.labels.targets import Target
from conceptatlas.saes import SAESource, resolve_saes
from conceptatlas.subjects import LanguageSubject, Site, load_subject
from conceptatlas.subjects.organism import draw_any_story
from conceptatlas.subjects.texts import TextStream

STORIES_A_TEXT = 8
AT_ONCE = 64


def make_texts(subject: LanguageSubject, n_tokens: int) -> list[str]:
    """Return texts of several stories each, with about ``n_tokens`` tokens together."""
    rng = random.Random(0)

    def stories() -> Iterator[str]:
        while True:
            yield " ".join(draw_any_story(rng, split="training").text for _ in range(STORIES_A_TEXT))

    source = stories()
    first = [next(source) for _ in range(20)]
    mean = subject.tokenize(first).n_rows.mean()
    return first + [next(source) for _ in range(max(0, round(n_tokens / mean) - len(first)))]


def states_of(subject: LanguageSubject, source: SAESource, texts: list[str]) -> list[torch.Tensor]:
    """Return the rows of each batch at the SAE's site, as the pass makes them."""
    batches = []
    site = Site.parse(source.site)
    for first in range(0, len(texts), AT_ONCE):
        tokens = subject.tokenize(texts[first : first + AT_ONCE])
        batches.append(subject.hidden_states(tokens.token_ids, [site], tokens.rows)[str(site)])
    return batches


def encode_stage(encoder: ColumnEncoder, batches: list[torch.Tensor]) -> float:
    """Return the wall seconds of encoding all batches, as the pass does it."""
    begin = time.perf_counter()
    for x_TD in batches:
        for _place, _column in encoder.encode(x_TD):
            pass
    return time.perf_counter() - begin


def end_to_end(subject: LanguageSubject, source: SAESource, columns: Sequence[int], texts: list[str]) -> float:
    """Return the wall seconds of the whole pass: tokenise, forward, encode, keep examples."""
    targets = [Target(source, column) for column in columns]
    options = CollectOptions(features_at_once=len(columns), windows_at_once=AT_ONCE)
    begin = time.perf_counter()
    collect(subject, targets, TextStream(texts), options)
    return time.perf_counter() - begin


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--features", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    subject = load_subject("organism", device=options.device)
    texts = make_texts(subject, options.tokens)
    sources = resolve_saes(["organism"])[-2:]  # of the last site
    batches = states_of(subject, sources[0], texts)
    print(f"{sum(map(len, batches)):,} tokens, {torch.get_num_threads()} threads")
    for source in sources:
        compare_stage(subject, source, batches, options)
    del batches
    whole = {
        name: end_to_end(subject, sources[0], chosen, texts) for name, chosen in columns_of(sources[0], options).items()
    }
    print(f"end to end: some {whole['some']:.1f} s, all {whole['all']:.1f} s, {whole['all'] / whole['some']:.1f} times")


def columns_of(source: SAESource, options: argparse.Namespace) -> dict[str, list[int]]:
    """Return some features, drawn at random, and all of them."""
    assert source.d_sae is not None
    order = torch.randperm(source.d_sae, generator=torch.Generator().manual_seed(0))
    return {"some": [int(f) for f in order[: options.features]], "all": list(range(source.d_sae))}


def compare_stage(
    subject: LanguageSubject, source: SAESource, batches: list[torch.Tensor], options: argparse.Namespace
) -> None:
    """Encode some and all features in turn, and print how long each takes."""
    encoder = source.load_encoder(subject.device)
    encoders = {
        name: ColumnEncoder(source, encoder, chosen, range(len(chosen)), len(chosen))
        for name, chosen in columns_of(source, options).items()
    }
    for one in encoders.values():  # what is compiled is compiled at its first use
        encode_stage(one, batches[:1])
    stage: dict[str, list[float]] = {name: [] for name in encoders}
    for _ in range(options.rounds):  # interleaved, so that what else the machine does strikes both
        for name, one in encoders.items():
            stage[name].append(encode_stage(one, batches))
    ratios = [a / b for a, b in zip(stage["all"], stage["some"], strict=True)]
    some, every = (statistics.median(stage[name]) for name in ("some", "all"))
    print(
        f"{source.sae_id}: {options.features} features {some:.3f} s, all {source.d_sae} {every:.3f} s, "
        f"{statistics.median(ratios):.1f} times ({min(ratios):.1f} to {max(ratios):.1f})"
    )


if __name__ == "__main__":
    main()
