"""The language model under study: activations at sites, rows, and runs with an edit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from conceptatlas.base.errors import InputError
from conceptatlas.subjects.blocks import find_stack
from conceptatlas.subjects.bridge import bridge_place, build_bridge
from conceptatlas.subjects.capture import Batch, edit_hook, hooks, pad_batch, reading
from conceptatlas.subjects.generation import Generated, continue_text, end_ids, head_on_rows, output_head
from conceptatlas.subjects.loading import Loaded, Source, choose_device, choose_dtype, load_model, resolve_source
from conceptatlas.subjects.norms import ignores_mean
from conceptatlas.subjects.places import Place, find_place
from conceptatlas.subjects.prefix import (
    BIDIRECTIONAL,
    PROVEN,
    Pass,
    Prefix,
    breaks_when_run,
    context_limit,
    plan_passes,
    rope_break,
)
from conceptatlas.subjects.sites import Site
from conceptatlas.subjects.tokens import Tokenized, TokenRules

TokenIds = npt.NDArray[np.int32]
RowMask = npt.NDArray[np.bool_]
Edit = Callable[[torch.Tensor], torch.Tensor]
# Takes token ids and the rows asked for (all where None) of one batch, returns the states of each site.
ReadBatch = Callable[[Sequence[TokenIds], Sequence[RowMask] | None], dict[str, torch.Tensor]]


def load_subject(
    model: str | Path, *, device: str | torch.device = "auto", dtype: str | torch.dtype = "auto"
) -> LanguageSubject:
    """Load a language model.

    Args:
        model: ``organism`` (built in), a folder, a hub id, or TransformerLens's name of one (``gemma-2-2b``).
        device: ``auto`` (CUDA, else MPS, else CPU), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        dtype: ``auto`` (the checkpoint's on an accelerator, float32 on a CPU), ``float32``, ``bfloat16``, ``float16``.

    Raises:
        InputError: The model is missing, gated or damaged, or the device or dtype is unknown; says what to do.
    """
    source = resolve_source(model)
    chosen = choose_device(device)
    return LanguageSubject(source, load_model(source, device=chosen, dtype=choose_dtype(dtype, chosen)))


class LanguageSubject:
    """A Hugging Face causal language model or encoder.

    Attributes:
        id: Its name in artefacts (hub id, folder name, or ``organism``).
        location: What it was loaded from: a folder's path or the hub id.
        revision: The hub's commit, or ``sha256:…`` over a folder's content.
        model_class: The Hugging Face class.
        dtype: Of its activations.
        device: Where it runs.
        attention: The attention implementation (``eager`` for Gemma-2, whose soft-capping needs it).
        d_model: Width of the residual stream.
        n_layers: Number of blocks.
        tokenizer: The Hugging Face tokenizer.
        hf_model: The unmodified model.
        prefix: Whether one pass gives the hidden states of all fragments (see `prefix.Proof`).
    """

    def __init__(self, source: Source, loaded: Loaded) -> None:
        self.id = source.id
        self.location = source.location
        self.source = source
        self.revision = loaded.revision
        self.hf_model = loaded.model
        self.tokenizer = loaded.tokenizer
        self.config = loaded.text_config
        self.model_class = type(loaded.model).__name__
        self.attention = str(self.config._attn_implementation)
        self.d_model = int(self.config.hidden_size)
        self.n_layers = int(self.config.num_hidden_layers)
        self.stack = find_stack(loaded.model, self.n_layers)
        weight = self.stack.embed.weight
        self.dtype = weight.dtype
        self.device = weight.device
        self.vocabulary = int(weight.shape[0])
        self.token_rules = TokenRules(loaded.tokenizer, limit=context_limit(self.config), name=source.id)
        pad = self.tokenizer.pad_token_id
        # Some tokenizers have a pad token that the model never got an embedding for.
        self.pad_id = int(pad) if pad is not None and pad < self.vocabulary else 0
        self._edits = 0
        self.prefix_rule = self._find_prefix_rule()

    @property
    def prefix(self) -> str:
        """``proven by architecture``, ``checked on this model`` or ``needs true passes``."""
        return self.prefix_rule.proof

    @cached_property
    def ignores_mean(self) -> bool:
        """Whether its norms take the mean off their rows (LayerNorm, not RMSNorm)."""
        return ignores_mean(self.stack.layers[0])

    @property
    def bos(self) -> str:
        """Who adds the BOS: ``added by the tokenizer``, ``prepended`` or ``none``."""
        return self.token_rules.bos

    # Tokens ----------------------------------------------------------------------------------------------------------

    def tokenize(self, texts: Sequence[str], *, max_tokens: int | None = None, truncate: bool = False) -> Tokenized:
        """Tokenise items as the model was trained to see them; see `TokenRules.tokenize`."""
        return self.token_rules.tokenize(texts, max_tokens=max_tokens, truncate=truncate)

    def token_texts(self, ids: TokenIds) -> list[str]:
        """Return each token's text as it reads within a sentence."""
        return self.token_rules.token_texts(ids)

    # Sites -----------------------------------------------------------------------------------------------------------

    def check_site(self, site: Site) -> None:
        """Raise InputError unless ``site`` stands in this model."""
        if site.layer is not None and site.layer >= self.n_layers:
            raise InputError(
                f"There is no {site} in {self.id}: its {self.n_layers} blocks are numbered 0 to {self.n_layers - 1}."
            )

    def widths(self, sites: Sequence[Site]) -> dict[str, int]:
        """Return the width of each site, ``str(site)`` -> D."""
        found = {str(site): self.d_model for site in sites if site.hook in _RESIDUAL}
        for site in sites:
            self.check_site(site)
        rest = [site for site in sites if str(site) not in found]
        if rest:
            values = self.hidden_states([np.zeros(1, dtype=np.int32)], rest)
            found |= {name: int(value.shape[1]) for name, value in values.items()}
        return {str(site): found[str(site)] for site in sites}

    @cached_property
    def _bridge(self) -> Any:
        return build_bridge(self.hf_model, self.tokenizer, self.location)

    def _places(self, sites: Sequence[Site]) -> tuple[dict[str, Place], dict[str, Place]]:
        """Return where to read the sites: those that plain hooks reach, and those that need the bridge."""
        plain: dict[str, Place] = {}
        bridged: dict[str, Place] = {}
        for site in sites:
            self.check_site(site)
            place = find_place(site, self.stack, self.config)
            if place is not None:
                plain[str(site)] = place
                continue
            place = bridge_place(self._bridge, site)
            if place is None:
                raise InputError(
                    f"There is no {site} in {self.model_class}; residual sites (hook_resid_pre, hook_resid_post) exist "
                    "in every architecture."
                )
            bridged[str(site)] = place
        if bridged and self._edits:
            raise InputError(
                f"The site {next(iter(bridged))} of {self.model_class} cannot be read while an edit is in force; read "
                "a residual, MLP or attention output site."
            )
        return plain, bridged

    # Runs ------------------------------------------------------------------------------------------------------------

    def hidden_states(
        self,
        token_ids: Sequence[TokenIds],
        sites: Sequence[Site],
        rows: Sequence[RowMask] | None = None,
        *,
        dtype: torch.dtype | None = None,
    ) -> dict[str, torch.Tensor]:
        """Run one right-padded batch through the text model, up to the deepest site, and return the asked rows.

        Args:
            token_ids: One int32 array per item, as `tokenize` gives them. The caller plans batches that fit memory.
            sites: Where to read.
            rows: One bool mask per item; all tokens where None.
            dtype: Of the result; the model's own where None.

        Returns:
            ``str(site)`` -> [T, D] on the model's device, rows concatenated in the order of the items. Each is the
            hidden state of its own fragment, also where that takes more than one pass (see `prefix`).
        """
        with self.reading(sites, dtype=dtype) as read:
            return read(token_ids, rows)

    @contextmanager
    def reading(self, sites: Sequence[Site], *, dtype: torch.dtype | None = None) -> Iterator[ReadBatch]:
        """Yield what does as `hidden_states` for one batch after the other, given ``token_ids`` and ``rows``.

        It may be called in several threads at a time where `runs_side_by_side`.
        """
        plain, bridged = self._places(sites)
        with ExitStack() as stack:
            ways = [
                (run, stack.enter_context(reading(places, dtype=dtype)))
                for run, places in ((self._forward, plain), (self._forward_bridge, bridged))
                if places
            ]

            @torch.no_grad()
            def read(token_ids: Sequence[TokenIds], rows: Sequence[RowMask] | None) -> dict[str, torch.Tensor]:
                masks = [np.ones(len(ids), dtype=bool) for ids in token_ids] if rows is None else list(rows)
                self._check_batch(token_ids, masks)
                found: list[tuple[Pass, dict[str, torch.Tensor]]] = []
                for one, batch in self._batches(token_ids, masks):
                    values: dict[str, torch.Tensor] = {}
                    for run, read_pass in ways:
                        values |= read_pass(run, batch)
                    found.append((one, values))
                return self._in_order(found, [str(site) for site in sites])

            yield read

    def runs_side_by_side(self, sites: Sequence[Site]) -> bool:
        """Whether passes that read ``sites`` may run in several threads at a time, and gain by it.

        On a CPU, and where a pass changes nothing of the model: that is known of transformers' own classes, except for rope
        that follows the length, and not of the bridge.
        """
        own = type(self.hf_model).__module__.startswith("transformers.")
        still = own and rope_break(self.config) is None
        return self.device.type == "cpu" and still and not self._places(sites)[1]

    def _batches(self, token_ids: Sequence[TokenIds], masks: Sequence[RowMask]) -> Iterator[tuple[Pass, Batch]]:
        for one in plan_passes(self.prefix_rule, token_ids, masks, self.token_rules.suffix):
            yield one, pad_batch(one.token_ids, one.rows, pad_id=self.pad_id, device=self.device)

    def _in_order(
        self, found: Sequence[tuple[Pass, Mapping[str, torch.Tensor]]], names: Sequence[str]
    ) -> dict[str, torch.Tensor]:
        """Join the passes' rows in the order of the items."""
        if len(found) == 1:
            return {name: found[0][1][name] for name in names}
        order = torch.from_numpy(np.argsort(np.concatenate([one.places for one, _ in found]))).to(self.device)
        return {name: torch.cat([values[name] for _, values in found]).index_select(0, order) for name in names}

    def _check_batch(self, token_ids: Sequence[TokenIds], rows: Sequence[RowMask]) -> None:
        if len(token_ids) != len(rows) or any(len(i) != len(m) for i, m in zip(token_ids, rows, strict=False)):
            raise ValueError("token_ids and rows must have one array per item, of the same length")
        if not any(mask.any() for mask in rows):
            raise ValueError("a batch needs at least one row")
        largest = max(int(ids.max()) for ids in token_ids if len(ids))
        if largest >= self.vocabulary:
            raise InputError(
                f"The token id {largest} is beyond the {self.vocabulary} embeddings of {self.id}; its tokenizer does not "
                "belong to it, or tokens were added that the model never saw."
            )

    def _forward(self, batch: Batch) -> object:
        """Run the text model without its head. Right padding needs no mask where tokens see only what precedes them."""
        self._reset_rope(self.stack.base)
        return self.stack.base(input_ids=batch.input_ids, **self._mask_or_cache(batch))

    def _forward_bridge(self, batch: Batch) -> object:
        self._reset_rope(self._bridge)
        return self._bridge(batch.input_ids, return_type="logits", **self._mask_or_cache(batch))

    def _mask_or_cache(self, batch: Batch) -> dict[str, Any]:
        return {"attention_mask": batch.attention_mask} if self.prefix_rule.limit == 0 else {"use_cache": False}

    def _reset_rope(self, model: torch.nn.Module) -> None:
        """Bring dynamic rope back to its original frequencies: it keeps those of the longest text that it has seen."""
        if self.prefix_rule.beyond != "equal fragments":
            return
        for module in model.modules():
            if hasattr(module, "max_seq_len_cached") and hasattr(module, "original_inv_freq"):
                module.inv_freq = module.original_inv_freq.to(self.device)
                module.max_seq_len_cached = module.original_max_seq_len

    def _find_prefix_rule(self) -> Prefix:
        config = self.config
        if getattr(config, "use_bidirectional_attention", False):
            return BIDIRECTIONAL
        broken = rope_break(config)
        if config.model_type in PROVEN:
            return broken or Prefix("proven by architecture")
        self.prefix_rule = Prefix("checked on this model")

        def run(ids: TokenIds) -> npt.NDArray[np.float32]:
            site = Site("hook_resid_post", self.n_layers - 1)
            return self.hidden_states([ids], [site], dtype=torch.float32)[str(site)].cpu().numpy()

        tolerance = 1e-3 if self.dtype == torch.float32 else 5e-2
        if breaks_when_run(run, self.vocabulary, tolerance):
            return BIDIRECTIONAL
        return broken or Prefix("checked on this model")

    # Edits -----------------------------------------------------------------------------------------------------------

    @contextmanager
    def edited(self, site: Site, fn: Edit) -> Iterator[None]:
        """Run everything inside the block with the values at ``site`` replaced by ``fn`` of them.

        Args:
            site: Where to edit.
            fn: [B, S, D] -> [B, S, D], in the model's dtype; called on every pass (with S = 1 per generated token).

        Raises:
            InputError: The site can be read but not edited.
        """
        self.check_site(site)
        place = find_place(site, self.stack, self.config)
        if place is None or not place.editable:
            raise InputError(
                f"The site {site} of {self.model_class} can be read but not edited; edit a residual site "
                "(hook_resid_pre, hook_resid_post), or the output of the MLP or of attention."
            )
        self._edits += 1
        try:
            with hooks([edit_hook(place, fn)]):
                yield
        finally:
            self._edits -= 1

    def logits(
        self, token_ids: Sequence[TokenIds], rows: Sequence[RowMask] | None = None, *, grad: bool = False
    ) -> torch.Tensor:
        """Return next-token logits at the asked rows, float32 [T, V], rows concatenated in the order of the items.

        Args:
            token_ids: One int32 array per item.
            rows: One bool mask per item; each item's last token where None.
            grad: Keep the graph, for gradients with respect to what an edit put in.

        Raises:
            InputError: The model has no head that predicts tokens.
        """
        masks = [np.arange(len(ids)) == len(ids) - 1 for ids in token_ids] if rows is None else list(rows)
        self._check_batch(token_ids, masks)
        head = output_head(self.hf_model, self.id)
        found: list[tuple[Pass, dict[str, torch.Tensor]]] = []
        with torch.set_grad_enabled(grad):
            for one, batch in self._batches(token_ids, masks):
                self._reset_rope(self.stack.base)
                with head_on_rows(head, batch.rows):
                    output = self.hf_model(input_ids=batch.input_ids, **self._mask_or_cache(batch))
                found.append((one, {"logits": output.logits[0].float()}))
            return self._in_order(found, ["logits"])["logits"]

    def generate(
        self,
        prompt: str | TokenIds,
        *,
        max_new_tokens: int = 40,
        temperature: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Generated:
        """Continue a text; inside `edited`, with the edit.

        Args:
            prompt: The text, or its token ids.
            max_new_tokens: At most so many; the model's end token ends it earlier.
            temperature: 0 takes the likeliest token each time.
            generator: For the draws at other temperatures.

        Raises:
            InputError: The model is no causal language model.
        """
        if self.prefix_rule.limit == 0:
            raise InputError(f"{self.id} ({self.model_class}) is no causal model and cannot continue a text.")
        output_head(self.hf_model, self.id)
        ids = self.tokenize([prompt]).token_ids[0] if isinstance(prompt, str) else np.asarray(prompt, dtype=np.int32)
        self._reset_rope(self.stack.base)
        new = continue_text(
            self.hf_model,
            torch.from_numpy(ids.astype(np.int64))[None].to(self.device),
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            generator=generator,
            stop=end_ids(self.hf_model, self.tokenizer),
        )
        text = self.tokenizer.decode(new, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return Generated(ids, np.array(new, dtype=np.int32), str(text))


_RESIDUAL = frozenset({"embed", "hook_resid_pre", "hook_resid_mid", "hook_resid_post"})
