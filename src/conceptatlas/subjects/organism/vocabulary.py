"""Which words belong to a trait: those of its lexical acts that nothing else in the grammar uses."""

from __future__ import annotations

from functools import cache

from conceptatlas.subjects.organism.acts import all_acts, lexical_acts
from conceptatlas.subjects.organism.lexicon import Trait
from conceptatlas.subjects.organism.tokenizer import filler_words


@cache
def trait_words(trait: Trait) -> frozenset[str]:
    """Return the words that occur in this trait's lexical acts and nowhere else in any story.

    Relational acts have no such words: there the trait is in how sentences fit together.
    """
    own = {word for act in lexical_acts(trait) for word in act.phrase.split() if word.isalpha()}
    own_acts = set(lexical_acts(trait))
    elsewhere = {word for act in all_acts() if act not in own_acts for word in act.phrase.split()}
    return frozenset(own - elsewhere - filler_words())
