"""From a request to a job: model and SAEs found, items tokenised, contradictions refused, shards cut."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from conceptatlas.base.errors import InputError
from conceptatlas.concepts import Concept
from conceptatlas.recording.engines.types import Devices
from conceptatlas.recording.job import Job
from conceptatlas.recording.manifest import EMBED_SITE, RecordOptions, SubjectInfo
from conceptatlas.recording.plan import BATCH_TOKENS, Plan, make_plan, shard_rows_for
from conceptatlas.recording.request import DEFAULT_PER_FEATURE, Request
from conceptatlas.recording.work import WorkFolder
from conceptatlas.saes import SAESource, require_width, resolve_saes
from conceptatlas.saes.asked import fit_to_model
from conceptatlas.subjects import LanguageSubject, Site, parse_sites
from conceptatlas.subjects.loading import choose_dtype, load_model, resolve_source

ORGANISM = "organism"
# Architectures in which one feature cannot be known without all the others.
_ALL_AT_ONCE = ("topk", "abstopk")


@dataclass(frozen=True)
class Prepared:
    """A job and what the manifest says of it."""

    job: Job
    subject: LanguageSubject
    info: SubjectInfo
    tokenizer: str
    truncated: int
    warnings: list[str]

    @property
    def device_name(self) -> str:
        """The device as people call it (it stands in ``run.json`` only)."""
        device = self.subject.device
        return torch.cuda.get_device_name(device) if device.type == "cuda" else self.job.options.device

    def resolved(self) -> dict[str, Any]:
        """Return what the options came to; a run that goes on must come to the same."""
        digest = hashlib.sha256()
        for ids, mask in zip(self.job.plan.token_ids, self.job.plan.masks, strict=True):
            digest.update(ids.tobytes() + mask.tobytes())
        return {
            "device": self.job.options.device,
            "dtype": self.job.options.dtype,
            "model revision": self.info.revision,
            "attention": self.info.attention,
            "SAEs": [[source.slug, source.site, source.d_in, source.d_sae] for source in self.job.sources],
            "sites": list(self.job.kept_sites),
            "shards": [list(shard) for shard in self.job.plan.shards],
            "batch tokens": self.job.batch_tokens,
            "tiles": self.job.tile_features(),
            "tokens": digest.hexdigest(),
        } | ({"hidden states": "final and pooled"} if self.job.options.keeps_pooled else {})


def prepare(
    work: WorkFolder,
    concept: Concept,
    model: Any,
    saes: list[Any],
    request: Request,
    devices_of: Callable[[str], Devices],
    *,
    strict: bool,
) -> Prepared:
    """Load the model, find the SAEs, tokenise the items and cut the work.

    Args:
        work: Where pieces go.
        concept: The items.
        model: A name, or a loaded subject; the shards run on the same kind of device as a loaded one.
        saes: Names or sources.
        request: The options.
        devices_of: What an engine makes of ``--device``.
        strict: An SAE that fails the self-check is an error.

    Raises:
        InputError: An unknown model or SAE, an SAE of another width, a site that is not there, a feature out of range,
            an item that is too long or has no row.
    """
    subject, device = _subject(model, request, devices_of)
    sources, notes = _fitted(_sources(saes, subject), subject)
    for source in sources:
        _check_source(source, subject, request)
    kept = _kept_sites(request, subject, sources)
    sites = parse_sites([*(source.site for source in sources), *kept])
    for site in sites:
        subject.check_site(site)
    tokenized = subject.tokenize(concept.texts, max_tokens=request.max_tokens, truncate=request.truncate)
    model_bytes = 4 * sum(parameter.numel() for parameter in subject.hf_model.parameters())
    row_bytes = 4 * sum(_width(site, subject, sources) for site in sites)
    plan = make_plan(
        concept,
        tokenized,
        fragments=request.fragments,
        shard_rows=request.shard_rows or shard_rows_for(model_bytes, row_bytes),
        token_texts=subject.token_texts,
    )
    job = Job(
        plan=plan,
        row_bytes=row_bytes,
        sources=sources,
        sites=sites,
        kept_sites=kept,
        options=_options(request, subject, device, kept),
        batch_tokens=BATCH_TOKENS.get(device, BATCH_TOKENS["cpu"]),
        work=work,
        strict=strict,
    )
    return Prepared(
        job=job,
        subject=subject,
        info=_subject_info(subject),
        tokenizer=type(subject.tokenizer).__name__,
        truncated=tokenized.n_truncated,
        warnings=[*_warnings(plan, tokenized.n_truncated, subject, sources, request), *notes],
    )


def _subject(model: Any, request: Request, devices_of: Callable[[str], Devices]) -> tuple[LanguageSubject, str]:
    """Return the model, loaded with the dtype that the shards run it in, and their kind of device."""
    if isinstance(model, LanguageSubject):
        return model, model.device.type
    source = resolve_source(str(model))
    devices = devices_of(request.device)
    dtype = choose_dtype(request.dtype, torch.device(devices.shards))
    loaded = load_model(source, device=torch.device(devices.planner), dtype=dtype)
    return LanguageSubject(source, loaded), devices.shards


def _sources(saes: list[Any], subject: LanguageSubject) -> list[SAESource]:
    """Resolve what was given by name; sources come as they are. Each SAE once."""
    found: list[SAESource] = []
    for given in saes:
        if isinstance(given, str):
            found += resolve_saes([given], model_id=subject.id)
        else:
            found.append(given.completed())
    unique = {source.slug: source for source in found}
    return list(unique.values())


def _fitted(sources: list[SAESource], subject: LanguageSubject) -> tuple[list[SAESource], list[str]]:
    """Do what the SAEs' configurations ask of the model; say what was done and what was not."""
    named = [source for source in sources if isinstance(source, SAESource)]
    fitted, notes = fit_to_model(named, subject)
    by_slug = {source.slug: source for source in fitted}
    return [by_slug.get(source.slug, source) for source in sources], notes


def _check_source(source: SAESource, subject: LanguageSubject, request: Request) -> None:
    require_width(source, subject.d_model)
    if source.d_sae is None:
        return
    beyond = [feature for feature in request.features or () if feature >= source.d_sae]
    if beyond:
        raise InputError(
            f"--features has {beyond[0]}, and the features of {source.sae_id!r} count from 0 to {source.d_sae - 1}."
        )


def _width(site: Site, subject: LanguageSubject, sources: list[SAESource]) -> int:
    """Return D at a site."""
    return next((s.d_in for s in sources if Site.parse(s.site) == site and s.d_in), subject.d_model)


def _kept_sites(request: Request, subject: LanguageSubject, sources: list[SAESource]) -> list[str]:
    """Return the sites whose hidden states are kept: the embedding first, then in the order of the forward pass."""
    if request.hidden == "none":
        return []
    if request.hidden_sites == "saes":
        names = [str(Site.parse(source.site)) for source in sources]
    elif request.hidden_sites == "all":
        names = [f"blocks.{layer}.hook_resid_post" for layer in range(subject.n_layers)]
    else:
        names = [name.strip() for name in request.hidden_sites.split(",") if name.strip()]
    return [str(site) for site in parse_sites([EMBED_SITE, *names])]


def _options(request: Request, subject: LanguageSubject, device: str, kept: list[str]) -> RecordOptions:
    per_feature = request.per_feature or DEFAULT_PER_FEATURE
    return RecordOptions(
        keep=request.keep,
        per_feature=per_feature if request.keep == "top" else None,
        hidden=request.hidden,
        hidden_sites=kept,
        fragments=request.fragments,
        features=None if request.features is None else sorted(set(request.features)),
        device=device,
        dtype=str(subject.dtype).removeprefix("torch."),
        sae_dtype=request.sae_dtype,
        max_tokens=request.max_tokens,
        truncate=request.truncate,
        seed=request.seed,
        group_near_duplicates=request.group_near_duplicates,
    )


def _subject_info(subject: LanguageSubject) -> SubjectInfo:
    return SubjectInfo(
        id=subject.id,
        location=subject.id if subject.id == ORGANISM else subject.location,
        revision=subject.revision,
        model_class=subject.model_class,
        dtype=str(subject.dtype).removeprefix("torch."),
        attention=subject.attention,
        d_model=subject.d_model,
        n_layers=subject.n_layers,
        prefix=subject.prefix,
        bos=subject.bos,
    )


def _warnings(
    plan: Plan, truncated: int, subject: LanguageSubject, sources: list[SAESource], request: Request
) -> list[str]:
    found = []
    if truncated:
        found.append(f"{truncated} of {plan.n_items} items were cut to {request.max_tokens} tokens.")
    if subject.prefix_rule.reason:
        found.append(f"Fragments had passes of their own where needed: {subject.prefix_rule.reason}.")
    whole = [source.slug for source in sources if not source.is_row_wise or source.architecture in _ALL_AT_ONCE]
    if request.features is not None and whole:
        found.append(
            f"{len(whole)} SAEs ({', '.join(whole[:3])}{' …' if len(whole) > 3 else ''}) are TopK-like: all their "
            "features were encoded, and those asked for were kept."
        )
    return found
