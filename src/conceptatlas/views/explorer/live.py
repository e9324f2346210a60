"""Trying things on the model itself: a sentence of one's own, and steering. The model is loaded when first needed.

Work runs in one thread, one job at a time; a page shows how far it is and asks again.
"""

from __future__ import annotations

import itertools
import re
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from conceptatlas.base.errors import ConceptAtlasError, InputError
from conceptatlas.evidence import FeatureRef, cut_text
from conceptatlas.views.explorer.missing import Missing

if TYPE_CHECKING:
    from conceptatlas.recording import Recording
    from conceptatlas.saes import SAESource
    from conceptatlas.subjects import LanguageSubject
    from conceptatlas.views.study_folder import Study

MAX_TEXT = 4_000
MAX_JOBS = 64
MAX_NEW_TOKENS = 40
# Where a turn ends; small models chatter on after it.
_END_OF_TURN = re.compile(r"<end_of_turn>|<\|(?:eot_id|im_end|end|endoftext)\|>|</s>|<eos>")
MAX_DOSE = 10


@dataclass(frozen=True)
class Tried:
    """A sentence of the user's own, cut into tokens, with the chosen features' activations [K, P]."""

    pieces: tuple[str, ...]
    acts_KP: npt.NDArray[np.float32]
    features: tuple[FeatureRef, ...]


@dataclass(frozen=True)
class Steered:
    """A continuation with and without a feature's direction added."""

    prompt: str
    before: str
    after: str
    feature: FeatureRef
    dose: float


@dataclass
class Job:
    """Something under way: ``status`` is what it is doing; ``result`` or ``error`` ends it."""

    number: int
    status: str = "waiting for its turn"
    result: Tried | Steered | None = None
    error: str | None = None
    asked: dict[str, Any] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self.result is not None or self.error is not None


class Engine:
    """The model and the SAEs of a study, loaded when first needed."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self._subject: LanguageSubject | None = None
        self._sources: dict[str, SAESource] = {}
        self._halves: OrderedDict[tuple[str, str], Any] = OrderedDict()

    def subject(self, say: Callable[[str], None]) -> LanguageSubject:
        """Return the model, loading it the first time."""
        if self._subject is None:
            from conceptatlas.subjects import load_subject

            name = self._model_name()
            say(f"loading the model {name}")
            self._subject = load_subject(name)
        return self._subject

    def _model_name(self) -> str:
        subject = self.recording.manifest.subject
        return subject.location or subject.id

    @property
    def recording(self) -> Recording:
        """The study's recording, which names the model and the SAEs.

        Raises:
            InputError: There is none.
        """
        if self.study.recording is None:
            raise InputError("This study has no recording, so its model is not known; record first.")
        return self.study.recording

    def source(self, slug: str, say: Callable[[str], None]) -> SAESource:
        """Return where an SAE of the recording is loaded from."""
        if slug not in self._sources:
            say("finding the SAE")
            self._sources[slug] = self.recording.source(slug)
        return self._sources[slug]

    def half(self, slug: str, kind: str, say: Callable[[str], None]) -> Any:
        """Return the encoder or decoder of an SAE; the eight used last stay in memory."""
        key = (slug, kind)
        if key not in self._halves:
            source = self.source(slug, say)
            say(f"loading the {kind} of {source.sae_id}")
            device = str(self.subject(say).device)
            self._halves[key] = source.load_encoder(device) if kind == "encoder" else source.load_decoder(device)
            while len(self._halves) > 8:
                self._halves.popitem(last=False)
        self._halves.move_to_end(key)
        return self._halves[key]

    def activations(self, text: str, features: tuple[FeatureRef, ...], say: Callable[[str], None]) -> Tried:
        """Return the features' activations along a text."""
        from conceptatlas.saes import encode_rows
        from conceptatlas.subjects import Site

        subject = self.subject(say)
        tokens = subject.tokenize([text], max_tokens=1024, truncate=True)
        rows = tokens.rows[0]
        if not rows.any():
            raise InputError("This text has no tokens but special ones; type a few words.")
        sites = {feature.slug: Site.parse(self.recording.sae(feature.slug).site) for feature in features}
        say("running the model")
        hidden = subject.hidden_states(tokens.token_ids, list(dict.fromkeys(sites.values())), tokens.rows)
        acts = np.zeros((len(features), int(rows.sum())), dtype=np.float32)
        for number, feature in enumerate(features):
            encoder = self.half(feature.slug, "encoder", say)
            columns = encode_rows(hidden[str(sites[feature.slug])], encoder, columns=[feature.feature_id])
            places, values = columns.feature(0)
            acts[number, places] = values
        pieces = cut_text(text, [int(end) for end in tokens.char_ends[0][rows]])[: acts.shape[1]]
        return Tried(tuple(pieces), acts, features)

    def steered(self, prompt: str, feature: FeatureRef, dose: float, say: Callable[[str], None]) -> Steered:
        """Continue a text (as the user's turn, where the model has a chat template) with and without a feature.

        ``dose`` is in units of the mean norm of the text's hidden states at the feature's site.
        """
        from conceptatlas.evidence.edits import steer, unit
        from conceptatlas.evidence.readout import LanguageOutputs, Readout
        from conceptatlas.subjects import Site

        subject = self.subject(say)
        site = self.recording.sae(feature.slug).site
        (ids,) = Readout("auto").token_ids(subject, [prompt])
        outputs = LanguageOutputs(subject)
        norm = float(outputs.activations([ids], site).float().norm(dim=-1).mean())
        direction = unit(self.half(feature.slug, "decoder", say).W_dec[feature.feature_id].float())
        edit = outputs.on_text(steer(direction, dose * norm))
        say("writing without the feature")
        before = first_turn(subject.generate(ids, max_new_tokens=MAX_NEW_TOKENS).text)
        say("writing with the feature")
        with subject.edited(Site.parse(site), edit):
            after = first_turn(subject.generate(ids, max_new_tokens=MAX_NEW_TOKENS).text)
        return Steered(prompt, before, after, feature, dose)


def first_turn(text: str) -> str:
    """Return what was written up to the end of the model's turn."""
    return _END_OF_TURN.split(text, maxsplit=1)[0]


class Live:
    """The jobs of one study."""

    def __init__(self, study: Study) -> None:
        self.engine: Any = Engine(study)
        self._jobs: OrderedDict[int, Job] = OrderedDict()
        self._numbers = itertools.count(1)
        self._lock = Lock()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="live")

    def try_text(self, text: str, features: tuple[FeatureRef, ...]) -> Job:
        """Start showing the features' activations on a text.

        Raises:
            InputError: The text is empty or too long, or no feature was chosen.
        """
        _check_text(text)
        if not features:
            raise InputError("No feature is chosen; open one, or rank first.")
        return self._start({"text": text}, lambda say: self.engine.activations(text, features, say))

    def steer(self, prompt: str, feature: FeatureRef, dose: float) -> Job:
        """Start writing with and without a feature.

        Raises:
            InputError: The text is empty or too long, or the dose is out of bounds.
        """
        _check_text(prompt)
        if not -MAX_DOSE <= dose <= MAX_DOSE:
            raise InputError(f"The dose is {dose:g}; give {-MAX_DOSE} to {MAX_DOSE} (in mean norms at the site).")
        return self._start(
            {"prompt": prompt, "dose": dose}, lambda say: self.engine.steered(prompt, feature, dose, say)
        )

    def job(self, number: int) -> Job:
        """Return a job.

        Raises:
            Missing: It is not known (any more).
        """
        with self._lock:
            if number not in self._jobs:
                raise Missing(f"There is no job {number} (any more); start it again.")
            return self._jobs[number]

    def _start(self, asked: dict[str, Any], work: Callable[[Callable[[str], None]], Tried | Steered]) -> Job:
        with self._lock:
            if sum(not job.done for job in self._jobs.values()) >= 8:
                raise InputError("Eight jobs are under way already; wait for one to end.")
            job = Job(next(self._numbers), asked=asked)
            self._jobs[job.number] = job
            while len(self._jobs) > MAX_JOBS:
                self._jobs.popitem(last=False)

        def say(status: str) -> None:
            job.status = status

        def run() -> None:
            try:
                job.result = work(say)
            except ConceptAtlasError as error:
                job.error = str(error)
            except Exception as error:  # noqa: BLE001 - a page must say so; the thread must live on
                job.error = f"Unexpected {type(error).__name__}: {error}"

        self._worker.submit(run)
        return job


def _check_text(text: str) -> None:
    if not text.strip():
        raise InputError("There is no text; type a sentence.")
    if len(text) > MAX_TEXT:
        raise InputError(f"The text has {len(text):,} characters, and {MAX_TEXT:,} fit; shorten it.")
