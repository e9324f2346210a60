"""The language model under study: activations at sites, rows, and runs with an edit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from conceptatlas.base.errors import InputError
from conceptatlas.subjects.blocks import find_stack
from conceptatlas.subjects.capture import Batch, capture, edit_hook, hooks, pad_batch
from conceptatlas.subjects.loading import Loaded, Source, choose_device, choose_dtype, load_model, resolve_source
from conceptatlas.subjects.places import Place, find_place
from conceptatlas.subjects.prefix import (
    BIDIRECTIONAL,
    PROVEN,
    Pass,
    Prefix,
    breaks_when_run,
    plan_passes,
    rope_break,
)
from conceptatlas.subjects.sites import Site
from conceptatlas.subjects.tokens import Tokenized, TokenRules

TokenIds = npt.NDArray[np.int32]
RowMask = npt.NDArray[np.bool_]
Edit = Callable[[torch.Tensor], torch.Tensor]


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
        self.token_rules = TokenRules(
            loaded.tokenizer, limit=getattr(self.config, "max_position_embeddings", None), name=source.id
        )
        pad = self.tokenizer.pad_token_id
        self.pad_id = int(pad if pad is not None else self.config.pad_token_id or 0)
        self.prefix_rule = self._find_prefix_rule()

    @property
    def prefix(self) -> str:
        """``proven by architecture``, ``checked on this model`` or ``needs true passes``."""
        return self.prefix_rule.proof

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

    def _place(self, site: Site) -> Place:
        self.check_site(site)
        place = find_place(site, self.stack, self.config)
        if place is None:
            raise InputError(f"The site {site} cannot be read in {self.model_class}.")
        return place

    # Runs ------------------------------------------------------------------------------------------------------------

    @torch.no_grad()
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
        masks = [np.ones(len(ids), dtype=bool) for ids in token_ids] if rows is None else list(rows)
        self._check_batch(token_ids, masks)
        places = {str(site): self._place(site) for site in sites}
        found: list[tuple[Pass, dict[str, torch.Tensor]]] = []
        for one in plan_passes(self.prefix_rule, token_ids, masks, self.token_rules.suffix):
            batch = pad_batch(one.token_ids, one.rows, pad_id=self.pad_id, device=self.device)
            found.append((one, capture(partial(self._forward, batch), places, batch.rows, dtype=dtype)))
        if len(found) == 1:
            return found[0][1]
        order = torch.from_numpy(np.argsort(np.concatenate([one.places for one, _ in found]))).to(self.device)
        return {name: torch.cat([values[name] for _, values in found]).index_select(0, order) for name in places}

    def _check_batch(self, token_ids: Sequence[TokenIds], rows: Sequence[RowMask]) -> None:
        if len(token_ids) != len(rows) or any(len(i) != len(m) for i, m in zip(token_ids, rows, strict=False)):
            raise ValueError("token_ids and rows must have one array per item, of the same length")
        if not any(mask.any() for mask in rows):
            raise ValueError("a batch needs at least one row")

    def _forward(self, batch: Batch) -> torch.Tensor:
        """Run the text model without its head. Right padding needs no mask where tokens see only what precedes them."""
        self._reset_rope()
        mask = {"attention_mask": batch.attention_mask} if self.prefix_rule.limit == 0 else {}
        cache = {} if self.prefix_rule.limit == 0 else {"use_cache": False}
        output = self.stack.base(input_ids=batch.input_ids, **mask, **cache)
        return output[0] if isinstance(output, tuple) else output.last_hidden_state

    def _reset_rope(self) -> None:
        """Bring dynamic rope back to its original frequencies: it keeps those of the longest text that it has seen."""
        if self.prefix_rule.beyond != "equal fragments":
            return
        for module in self.stack.base.modules():
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
        place = self._place(site)
        if not place.editable:
            raise InputError(f"The site {site} can be read but not edited; edit {_EDIT_INSTEAD} of the block instead.")
        with hooks([edit_hook(place, fn)]):
            yield


_EDIT_INSTEAD = "hook_resid_post or hook_mlp_out"
