"""Training SAEs at four sites: ``conceptatlas.train`` against SAELens's own runner, in one run, on the same budget.

    python -m benchmarks.train                          # the built-in model, whose SAEs can be compared in quality
    python -m benchmarks.train --model made             # a Gemma-2-shaped random model (d 512, 8 layers): speed only
    python -m benchmarks.train --model smollm2 --text sae-probes --width 4096 --k 32 --tokens 20480

SAELens is run as its users run it for a Hugging Face model (``AutoModelForCausalLM``): once for each site
(``LanguageModelSAETrainingRunner``), and once for all of them (``MultiSAETrainingRunner``). Texts, rows, batch, width, k,
learning rate and schedule are the same; SAELens joins texts to contexts without padding. Times are of the training alone,
without evaluation; where the machine has other work, trust the processor's seconds. Quality is measured on the same held-out
contexts, by the same code, on the saved files.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import datasets

from benchmarks.label import make_texts
from benchmarks.record_parts import machine, make_concept, make_model, show
from conceptatlas.subjects import LanguageSubject, load_subject
from conceptatlas.subjects.texts import TextStream
from conceptatlas.training import TrainOptions
from conceptatlas.training import run as ours
from conceptatlas.training.contexts import make_contexts
from conceptatlas.training.quality import measure
from conceptatlas.training.recipes import dead_window, learning_rate, make_trainer

N_SITES = 4
STORE_PROMPTS = 16


class Spent(NamedTuple):
    """Wall and processor seconds."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> Spent:
        """Return the two clocks."""
        return cls(time.perf_counter(), time.process_time())

    def since(self) -> Spent:
        """Return what has passed on them."""
        return Spent(time.perf_counter() - self.wall, time.process_time() - self.cpu)


def options_for(subject: LanguageSubject, arguments: argparse.Namespace) -> TrainOptions:
    layers = [round((place + 1) * (subject.n_layers - 1) / N_SITES) for place in range(N_SITES)]
    return TrainOptions(
        sites=tuple(f"blocks.{layer}.hook_resid_post" for layer in layers),
        widths=(arguments.width,),
        k=(arguments.k,),
        tokens=arguments.tokens,
        batch=arguments.batch,
        buffer_rows=16 * arguments.batch,
        checkpoint_minutes=1e9,
        seed=arguments.seed,
    )


@contextlib.contextmanager
def proxied(subject: LanguageSubject, hooks: list[str]) -> Iterator[Any]:
    """Yield SAELens's wrapper of the model; its hooks are taken off again at the end."""
    from sae_lens.load_model import HookedProxyLM

    modules = [subject.hf_model.get_submodule(name) for name in hooks]
    before = [dict(module._forward_hooks) for module in modules]
    yield HookedProxyLM(subject.hf_model, subject.tokenizer, hook_names=hooks)
    for module, had in zip(modules, before, strict=True):
        module._forward_hooks.clear()
        module._forward_hooks.update(had)


def theirs(subject: LanguageSubject, texts: list[str], options: TrainOptions, folder: Path, *, together: bool) -> Spent:
    """Train with SAELens's runner, once a site or once for all; return the time."""
    from sae_lens.config import LanguageModelSAERunnerConfig, LoggingConfig
    from sae_lens.llm_sae_training_runner import LanguageModelSAETrainingRunner
    from sae_lens.multi_sae_training_runner import MultiSAETrainingRunner, MultiSAETrainingRunnerConfig

    names = {module: name for name, module in subject.hf_model.named_modules()}
    hooks = {site: names[subject.stack.layers[int(site.split(".")[1])]] for site in options.sites}
    wanted = {one.site: one for one in options.wanted()}
    configs = {
        site: make_trainer(one, options, d_in=subject.d_model, device=subject.device, metadata={}).sae.cfg
        for site, one in wanted.items()
    }
    lr = learning_rate(options.wanted()[0], options)
    common: dict[str, Any] = {
        "context_size": options.context, "training_tokens": options.steps * options.batch, "streaming": True,
        "train_batch_size_tokens": options.batch, "lr": lr, "lr_end": lr / 10, "n_batches_in_buffer": 8,
        "lr_warm_up_steps": max(2, options.steps // 20), "lr_decay_steps": options.steps // 5, "output_path": None,
        "dead_feature_window": dead_window(options), "feature_sampling_window": 10**9, "checkpoint_path": None,
        "store_batch_size_prompts": STORE_PROMPTS, "logger": LoggingConfig(log_to_wandb=False), "verbose": False,
        "device": str(subject.device), "seed": options.seed, "n_batches_for_norm_estimate": 16,
    }  # fmt: skip
    single = common | {"is_dataset_tokenized": False, "exclude_special_tokens": True}
    for name in [name for name in single if name not in LanguageModelSAERunnerConfig.__dataclass_fields__]:
        del single[name]
    several = {
        name: value for name, value in common.items() if name in MultiSAETrainingRunnerConfig.__dataclass_fields__
    }
    data = datasets.Dataset.from_dict({"text": texts}).to_iterable_dataset()
    begin = Spent.now()
    if together:
        with proxied(subject, list(hooks.values())) as model:
            config = MultiSAETrainingRunnerConfig(saes=configs, hook_names=hooks, **several)
            found = MultiSAETrainingRunner(config, override_dataset=data, override_model=model).run()
    else:
        found = {}
        for site, hook in hooks.items():
            with proxied(subject, [hook]) as model:
                one = LanguageModelSAERunnerConfig(sae=configs[site], hook_name=hook, **single)
                found[site] = LanguageModelSAETrainingRunner(one, override_dataset=data, override_model=model).run()
    seconds = begin.since()
    for site, sae in found.items():
        sae.cfg.metadata.hook_name = site
        sae.save_inference_model(folder / site)
    return seconds


def of_ours(subject: LanguageSubject, texts: list[str], options: TrainOptions, folder: Path) -> Spent:
    """Train with `conceptatlas.train`, its evaluation left out; return the time."""
    spent = Spent(0.0, 0.0)
    plain: Callable[..., Any] = ours.measure

    def timed(*arguments: Any, **more: Any) -> Any:
        nonlocal spent
        begin = Spent.now()
        found = plain(*arguments, **more)
        spent = begin.since()
        return found

    ours.measure = timed
    begin = Spent.now()
    try:
        ours.train(subject, texts, folder, options)
    finally:
        ours.measure = plain
    whole = begin.since()
    return Spent(whole.wall - spent.wall, whole.cpu - spent.cpu)


def figures(
    subject: LanguageSubject, texts: list[str], options: TrainOptions, saved: dict[str, Path]
) -> dict[str, Any]:
    """Return FVU, L0 and loss recovered of saved SAEs on the same held-out contexts, mean over sites."""
    contexts = make_contexts(subject, TextStream(texts), context=options.context, rows=options.tokens)
    saes = {site: ours._loaded(folder, subject.device) for site, folder in saved.items()}
    found = measure(subject, contexts, saes, dict.fromkeys(saved, float("inf")), most=options.eval_contexts)
    return {
        name: [round(getattr(quality, name) or 0.0, 3) for quality in found.values()]
        for name in ("fvu", "l0", "loss_recovered")
    }


def texts_for(subject: LanguageSubject, arguments: argparse.Namespace, n_tokens: int) -> list[str]:
    """Return texts of about so many tokens, or a few more."""
    if arguments.text is None:
        # The made model's tokenizer has words of its own.
        return make_concept(n_tokens // 14).texts if arguments.model == "made" else make_texts(subject, n_tokens)
    texts, found = [], 0
    for _, text in TextStream(arguments.text):
        texts.append(text)
        found += int(subject.tokenize([text], max_tokens=10**6, truncate=True).n_rows[0])
        if found >= n_tokens:
            break
    return texts


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="organism", help="organism, made, or a name or folder")
    parser.add_argument("--text", default=None, help="a source of texts (default: made up)")
    parser.add_argument("--tokens", type=int, default=200_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--k", type=float, default=16)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work, model = Path(temporary), arguments.model
        if model == "made":
            model = str(make_model(work / "model", d_model=512, layers=8, d_mlp=2048, heads=8, kv_heads=4, d_head=64))
        subject = load_subject(model, dtype="float32")
        options = options_for(subject, arguments)
        texts = texts_for(subject, arguments, int(1.2 * options.tokens))
        show("machine", **machine())
        with contextlib.redirect_stderr(io.StringIO()):
            seconds = {
                "ours": of_ours(subject, texts, options, work / "ours"),
                "saelens, once a site": theirs(subject, texts, options, work / "single", together=False),
                "saelens, all at once": theirs(subject, texts, options, work / "multi", together=True),
            }
        sae_id = options.wanted()[0].sae_id.split("/")[1]
        folders = {"ours": "ours/{}/" + sae_id, "saelens, once a site": "single/{}", "saelens, all at once": "multi/{}"}
        for name, spent in seconds.items():
            saved = {site: work / folders[name].format(site) for site in options.sites}
            show(
                name,
                wall_s=round(spent.wall, 1),
                cpu_s=round(spent.cpu, 1),
                saes_an_hour=round(3600 * len(options.sites) / spent.wall, 1),
                wall_times_ours=round(spent.wall / seconds["ours"].wall, 2),
                cpu_times_ours=round(spent.cpu / seconds["ours"].cpu, 2),
                **figures(subject, texts, options, saved),
            )


if __name__ == "__main__":
    main()
