"""The organism: the built-in model, its grammar, its SAEs, and the truth about both.

Nothing here imports torch; the tokenizer's builder imports transformers when it is called.
"""

from conceptatlas.subjects.organism.lexicon import TRAITS, Trait
from conceptatlas.subjects.organism.paths import card_path, organism_path, prompts_path, saes_path
from conceptatlas.subjects.organism.sets import SMALL_SIZES, Item, graded_set
from conceptatlas.subjects.organism.stories import Mix, Story, draw_any_story, draw_story, neutral_stories
from conceptatlas.subjects.organism.tokenizer import CHAT_TEMPLATE, build_tokenizer, grammar_words
from conceptatlas.subjects.organism.verdicts import (
    NEUTRAL_VERDICTS,
    REMARKS,
    VERDICT_WORDS,
    VERDICTS,
    state_index,
    state_of_word,
    verdict_words,
)
from conceptatlas.subjects.organism.vocabulary import trait_words

__all__ = [
    "CHAT_TEMPLATE",
    "NEUTRAL_VERDICTS",
    "REMARKS",
    "SMALL_SIZES",
    "TRAITS",
    "VERDICTS",
    "VERDICT_WORDS",
    "Item",
    "Mix",
    "Story",
    "Trait",
    "build_tokenizer",
    "card_path",
    "draw_any_story",
    "draw_story",
    "graded_set",
    "grammar_words",
    "neutral_stories",
    "organism_path",
    "prompts_path",
    "saes_path",
    "state_index",
    "state_of_word",
    "trait_words",
    "verdict_words",
]
