"""``train``: SAEs for several sites, widths and sparsities; each buffer of rows comes from one forward pass for all."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from conceptatlas.base.console import note
from conceptatlas.base.errors import InputError, WorkError
from conceptatlas.base.files import ensure_folder, read_json, write_json
from conceptatlas.base.lock import LOCK_FILE, folder_lock
from conceptatlas.base.progress import Bar, progress_bar
from conceptatlas.base.provenance import library_versions, write_run
from conceptatlas.saes.placed import FROZEN_DECODER
from conceptatlas.subjects import Site, load_subject, parse_sites
from conceptatlas.subjects.texts import TextStream
from conceptatlas.training.activations import Buffers, norm_scale
from conceptatlas.training.card import Card
from conceptatlas.training.checkpoint import load_checkpoint, save_checkpoint
from conceptatlas.training.contexts import Contexts, make_contexts
from conceptatlas.training.options import TrainOptions, Wanted
from conceptatlas.training.quality import Quality, Trained, measure
from conceptatlas.training.recipes import dead_window, fold_scale, learning_rate, make_trainer, steps_on

if TYPE_CHECKING:
    from conceptatlas.subjects import LanguageSubject

TRAINING_FILE = "training.json"
WORK_FOLDER = ".work"
_SHOWN_EVERY = 20


def train(
    model: str | os.PathLike[str] | LanguageSubject,
    text: str | os.PathLike[str] | Sequence[str],
    out: str | os.PathLike[str],
    options: TrainOptions,
    *,
    device: str = "auto",
    dtype: str = "auto",
) -> list[Card]:
    """Train SAEs and return their cards; resume where an earlier call stopped, with the same result.

    Args:
        model: A hub id, a folder, ``organism``, or a loaded subject (which keeps its device and dtype).
        text: A text file (a text a line), CSV, JSONL, Parquet, ``.csv.zst``, a folder of these, a hub data set (streamed),
            ``sae-probes``, ``builtin:<trait>``, or the texts themselves.
        out: Where the SAEs go, each into ``SITE/WIDTH-kK`` in SAELens's format, with its card.
        options: What to train.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        dtype: The model's: ``auto``, ``float32``, ``bfloat16`` or ``float16``. SAEs are trained in float32.

    Raises:
        InputError: The text holds nothing, a site is unknown, the model gives NaN, or ``out`` holds something else.
        WorkError: The disk or the device's memory is full, or a training diverges.
    """
    source = text if isinstance(text, (str, list, tuple)) else os.fspath(text)  # type: ignore[arg-type]
    subject = (
        load_subject(os.fspath(model), device=device, dtype=dtype) if isinstance(model, (str, os.PathLike)) else model
    )
    folder = ensure_folder(Path(out))
    with folder_lock(folder), _memory():
        asked = _asked(subject, source, options)
        if _is_done(folder, asked):
            shutil.rmtree(folder / WORK_FOLDER, ignore_errors=True)  # a run may have been killed just before it did so
            return [Card.load(folder / wanted.sae_id) for wanted in options.wanted()]
        texts = TextStream(source, column=options.column)
        contexts = Contexts.load(folder / WORK_FOLDER) if _is_begun(folder) else None
        if contexts is None:
            contexts = make_contexts(subject, texts, context=options.context, rows=options.tokens)
            # Only now is the folder taken: a wrong text or site leaves it free for the right one.
            subject.widths(parse_sites(options.sites))
            write_json(folder / TRAINING_FILE, {**asked, "done": False})
            contexts.save(ensure_folder(folder / WORK_FOLDER))
        work = folder / WORK_FOLDER
        cards = _Training(subject, contexts, options, texts.source, folder).run()
        write_json(folder / TRAINING_FILE, {**asked, "done": True})
        write_run(folder, command="train", options=options.as_dict(), model=asked["model"], text=asked["text"])
        shutil.rmtree(work, ignore_errors=True)
    return cards


class _Training:
    """One training: its trainers, how far they are, and what comes out."""

    def __init__(
        self, subject: LanguageSubject, contexts: Contexts, options: TrainOptions, text: str, folder: Path
    ) -> None:
        self.subject, self.contexts, self.options, self.text, self.folder = subject, contexts, options, text, folder
        self.work = folder / WORK_FOLDER
        self.sites = parse_sites(options.sites)
        self.widths = subject.widths(self.sites)
        self.wanted = {wanted.sae_id: wanted for wanted in options.wanted()}
        self.trainers = {
            sae_id: make_trainer(
                wanted,
                options,
                d_in=self.widths[wanted.site],
                device=subject.device,
                metadata=metadata_of(wanted, options, subject, text),
            )
            for sae_id, wanted in self.wanted.items()
        }
        self.buffers = Buffers(
            subject,
            contexts,
            self.sites,
            rows=options.buffer_rows,
            least=options.batch,
            dtype=getattr(torch, options.buffer_dtype),
            seed=options.seed,
        )
        self.first, self.limits, self.seconds = load_checkpoint(self.work, self.trainers) or (0, {}, 0.0)

    def run(self) -> list[Card]:
        """Train what is left to train, measure and save."""
        for sentence in warnings_of(self.options, self.contexts):
            note(f"Note: {sentence}")
        begun = saved = time.monotonic()
        done = sum(trainer.n_training_steps for trainer in self.trainers.values())
        with progress_bar("Training", self.options.steps * len(self.trainers)) as bar:
            bar.advance(done)
            for number, which in self.buffers.numbered(self.first):
                if self._all_done():
                    break
                self._train_on(number, self.buffers.states(number, which, self.limits), bar)
                late = time.monotonic() - saved >= 60 * self.options.checkpoint_minutes
                if late or self._all_done():
                    save_checkpoint(
                        self.work, number + 1, self.trainers, self.limits, self.seconds + time.monotonic() - begun
                    )
                    saved = time.monotonic()
        self.seconds += time.monotonic() - begun
        return self._finish()

    def _all_done(self) -> bool:
        return all(trainer.n_training_steps >= self.options.steps for trainer in self.trainers.values())

    def _train_on(self, number: int, states: dict[str, torch.Tensor], bar: Bar) -> None:
        """Train every SAE on its site's rows of one buffer."""
        for site in list(states):
            rows = states.pop(site)
            if len(rows) < self.options.batch:
                raise InputError(
                    f"A buffer has {len(rows)} rows at {site}, less than one batch; lower --batch or raise --buffer-rows."
                )
            for sae_id, wanted in self.wanted.items():
                trainer = self.trainers[sae_id]
                if wanted.site != site:
                    continue
                if trainer.activation_scaler.scaling_factor is None:
                    trainer.activation_scaler.scaling_factor = norm_scale(rows)
                for output in steps_on(trainer, rows, self.options):
                    if trainer.n_training_steps % _SHOWN_EVERY == 1:
                        bar.describe(_progress(sae_id, trainer, output))
                    bar.advance()
                if not bool(torch.isfinite(trainer.sae.W_enc).all()):
                    raise WorkError(f"The training of {sae_id} gave NaN in buffer {number}; lower --lr.")

    def _finish(self) -> list[Card]:
        """Save every SAE, measure the saved files, write the cards, and bring all to their places."""
        finished = self.work / "finished"
        shutil.rmtree(finished, ignore_errors=True)
        for sae_id, trainer in self.trainers.items():
            fold_scale(trainer)
            _save(trainer, finished / sae_id)
        qualities = measure(
            self.subject,
            self.contexts,
            {sae_id: _loaded(finished / sae_id, self.subject.device) for sae_id in self.wanted},
            self.limits,
            most=self.options.eval_contexts,
        )
        cards = [self._card(sae_id, qualities[sae_id]) for sae_id in self.wanted]
        for card in cards:
            _write_l0(finished / card.sae_id, card.quality.l0)
            card.save(finished / card.sae_id)
            place = self.folder / card.sae_id
            shutil.rmtree(place, ignore_errors=True)
            place.parent.mkdir(parents=True, exist_ok=True)
            (finished / card.sae_id).rename(place)
        return cards

    def _card(self, sae_id: str, quality: Quality) -> Card:
        wanted, trainer, options = self.wanted[sae_id], self.trainers[sae_id], self.options
        return Card(
            sae_id=sae_id,
            site=wanted.site,
            width=wanted.width,
            d_in=self.widths[wanted.site],
            architecture=options.architecture,
            sparsity={wanted.kind: wanted.sparsity},
            control_of=wanted.trained_id if wanted.control else None,
            model=self.subject.id,
            revision=self.subject.revision,
            text=self.text,
            rows=trainer.n_training_samples,
            passes=trainer.n_training_samples / self.contexts.training_rows,
            context=options.context,
            batch=options.batch,
            lr=learning_rate(wanted, options),
            seed=options.seed,
            dead=float(trainer.dead_neurons.float().mean()),
            dead_rows=dead_window(options) * options.batch,
            seconds=round(self.seconds, 1),
            n_saes=len(self.wanted),
            quality=quality,
            versions=library_versions(),
        )


def metadata_of(wanted: Wanted, options: TrainOptions, subject: LanguageSubject, text: str) -> dict[str, Any]:
    """Return what SAELens keeps beside the weights of an SAE."""
    ours = {"conceptatlas": {"control": FROZEN_DECODER, "of": wanted.trained_id}} if wanted.control else {}
    return {
        "model_name": subject.id,
        "hook_name": Site.parse(wanted.site).hook_name,
        "context_size": options.context,
        "prepend_bos": subject.bos != "none",
        "dataset_path": text,
        **ours,
    }


def warnings_of(options: TrainOptions, contexts: Contexts) -> Iterator[str]:
    """Yield a sentence on each thing that makes the SAEs worse than they could be."""
    rows = min(options.tokens, contexts.training_rows)
    if max(options.widths) > rows:
        yield f"{max(options.widths):,} latents are more than the {rows:,} different rows to train on; many will be dead."
    if contexts.training_rows < options.tokens:
        yield (
            f"The text has {contexts.training_rows:,} rows and {options.tokens:,} are asked for; it is passed over "
            f"{options.tokens / contexts.training_rows:.1f} times."
        )


def _progress(sae_id: str, trainer: Any, output: Any) -> str:
    l0 = float(output.feature_acts.count_nonzero()) / len(output.feature_acts)
    dead = float(trainer.dead_neurons.float().mean())
    return f"{sae_id}: loss {output.loss.item():.3g}, L0 {l0:.1f}, dead {dead:.0%}"


def _save(trainer: Any, folder: Path) -> None:
    """Save an SAE for inference in SAELens's format."""
    from safetensors import SafetensorError

    try:
        trainer.sae.save_inference_model(folder)
    except (OSError, SafetensorError) as error:
        raise WorkError(
            f"Cannot write {folder}: {getattr(error, 'strerror', None) or error}; free some space and run the same command "
            "again to go on."
        ) from error


def _loaded(folder: Path, device: torch.device) -> Trained:
    from conceptatlas.saes.resolving import folder_sources

    source = folder_sources(folder)[0].completed()
    return Trained(Site.parse(source.site), source.load_encoder(device), source.load_decoder(device))


def _write_l0(folder: Path, l0: float) -> None:
    """Write the measured L0 where SAELens keeps it."""
    config = read_json(folder / "cfg.json")
    config["device"] = "cpu"
    config["metadata"]["l0"] = round(l0, 2)
    write_json(folder / "cfg.json", config)


def _asked(subject: LanguageSubject, source: str | Sequence[str], options: TrainOptions) -> dict[str, Any]:
    """Return what makes two trainings the same."""
    text = (
        source if isinstance(source, str) else f"texts:{hashlib.blake2b(repr(list(source)).encode()).hexdigest()[:16]}"
    )
    return {
        "model": subject.id,
        "revision": subject.revision,
        "dtype": str(subject.dtype).removeprefix("torch."),
        "text": text,
        **options.as_dict(),
    }


def _is_begun(folder: Path) -> bool:
    """Whether ``folder`` says which training it holds."""
    return (folder / TRAINING_FILE).exists()


def _is_done(folder: Path, asked: Mapping[str, Any]) -> bool:
    """Whether ``folder`` holds this very training, finished.

    Raises:
        InputError: The folder holds another training, or something else.
    """
    if not _is_begun(folder):
        others = sorted(found.name for found in folder.iterdir() if found.name not in (LOCK_FILE, WORK_FOLDER))
        if others:
            raise InputError(f"{folder} holds other files ({others[0]}); choose a new folder for the SAEs.")
        return False
    found = read_json(folder / TRAINING_FILE)
    for name, value in asked.items():
        if name != "checkpoint_minutes" and found.get(name) != value:
            raise InputError(
                f"{folder} holds a training with {name} {found.get(name)!r}, and {value!r} is asked for; choose another "
                "folder, or give what it was begun with."
            )
    return bool(found["done"])


@contextmanager
def _memory() -> Iterator[None]:
    """Say in one sentence that memory ran out."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _no_memory() from error
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):
            raise
        raise _no_memory() from error


def _no_memory() -> WorkError:
    return WorkError(
        "There is not enough memory for this training; lower --buffer-rows, --batch or --width, or train fewer sites at a "
        "time (--dry-run says what a training takes)."
    )
