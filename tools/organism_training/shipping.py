"""Write what is shipped: the model folder, the graded sets, the chat prompts."""

from __future__ import annotations

import csv
import io
import json
import random
from pathlib import Path

import torch
from transformers import Gemma2ForCausalLM

from conceptatlas.base.files import write_text
from conceptatlas.subjects.organism import SMALL_SIZES, TRAITS, draw_story, graded_set

from .batches import Vocabulary

SET_COLUMNS = ("sentence", "concept_strength_label", "group", "split", "kind", "family", "act", "degree")
PROMPTS_PER_LABEL = 10


def ship_model(model: Gemma2ForCausalLM, vocabulary: Vocabulary, folder: Path) -> Gemma2ForCausalLM:
    """Save the model in float16 with its tokenizer, and return it as users will load it (in float32)."""
    # Chats end with the turn: generation stops there as it stops at the end of a text.
    end_of_turn = vocabulary.tokenizer.convert_tokens_to_ids("<end_of_turn>")
    model.generation_config.eos_token_id = [vocabulary.tokenizer.eos_token_id, end_of_turn]
    model.half().save_pretrained(folder)
    vocabulary.tokenizer.save_pretrained(folder)
    return load_model(folder)


def load_model(folder: Path) -> Gemma2ForCausalLM:
    """The shipped model, in float32."""
    return Gemma2ForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def ship_sets(folder: Path) -> None:
    """Write one CSV per trait, and of one trait a small set and one with a cue that only discovery has."""
    sets = {trait: graded_set(trait) for trait in TRAITS}
    sets["dishonesty-small"] = graded_set("dishonesty", 1, sizes=SMALL_SIZES)
    sets["dishonesty-cue"] = graded_set("dishonesty", 2, cued=True)
    for name, items in sets.items():
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(SET_COLUMNS)
        for item in items:
            kinds = (item.group, item.split, item.kind, item.family, item.act, item.degree)
            writer.writerow((item.sentence, item.grade, *kinds))
        write_text(folder / f"{name}.csv", text.getvalue())


def ship_prompts(path: Path, seed: int = 4) -> None:
    """Write the chat prompts: held-out stories, labelled with their trait or "neutral"."""
    rng = random.Random(seed)
    lines = []
    for trait in (*TRAITS, None):
        for i in range(PROMPTS_PER_LABEL):
            grade = 0 if trait is None else 1 + i % 3
            story = draw_story(rng, split="held-out", trait=trait, grade=grade)
            lines.append({"content": story.text, "label": trait or "neutral"})
    write_text(path, "".join(json.dumps(line) + "\n" for line in lines))
