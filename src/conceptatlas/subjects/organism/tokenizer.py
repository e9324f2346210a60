"""The tokenizer: a token for each word of the grammar, bytes for all else, Gemma's control tokens and chat form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from conceptatlas.subjects.organism.acts import all_acts
from conceptatlas.subjects.organism.lexicon import (
    CONNECTORS,
    MEN,
    MODIFIERS,
    OBJECTS,
    PLACES,
    ROLES,
    SCENES,
    TIMES,
    WOMEN,
)
from conceptatlas.subjects.organism.relations import VALUES, relation_words
from conceptatlas.subjects.organism.verdicts import REMARKS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPACE: Final = "\u2581"
SPECIALS: Final = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>")
NEWLINE: Final = "\n"
CLAIM_PHRASES: Final = ("some swore that", "some denied that", "they were right", "they were wrong")
PUNCTUATION: Final = (".", ",", ";", ":", "!", "?", "'", '"', "(", ")", "-")

# Gemma's form: turns between control tokens, the assistant called "model", no system turn.
CHAT_TEMPLATE: Final = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\\n'"
    " + message['content'] | trim + '<end_of_turn>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)


def _openers() -> list[str]:
    """Phrases that can open a sentence."""
    return [*CONNECTORS.values(), *MODIFIERS, *SCENES, *PLACES, *TIMES, *ROLES, *CLAIM_PHRASES, "he", "she"]


def filler_words() -> set[str]:
    """Every word that can stand in a story outside a lexical act, in small letters where it can be so."""
    pool = [*_openers(), *OBJECTS, *VALUES, *WOMEN, *MEN, *relation_words(), "him", "his", "her"]
    return {word for phrase in pool for word in phrase.split() if word[0].isalpha()}


def grammar_words() -> list[str]:
    """Every word of a story or a verdict, sorted: as it stands in a sentence, and capitalised if it can open one."""
    acts = {word for act in all_acts() for word in act.phrase.split() if word[0].isalpha()}
    first = {phrase.split()[0] for phrase in _openers() if phrase and phrase[0].isalpha()}
    return sorted(acts | filler_words() | set(REMARKS) | {word[0].upper() + word[1:] for word in first})


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Build the tokenizer from the grammar alone.

    In a unigram model a whole word (score -1) beats any split into letters (score -20 each); what is neither word nor
    ASCII letter becomes UTF-8 bytes. One BOS is added, no EOS.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = [SPACE, *"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"]
    whole = [*PUNCTUATION, *(SPACE + word for word in grammar_words()), SPACE + "user", SPACE + "model"]
    single = [*letters, *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces = [(name, 0.0) for name in SPECIALS] + [(NEWLINE, 0.0)]
    pieces += [(name, -1.0) for name in whole] + [(name, -20.0) for name in single]
    core = Tokenizer(models.Unigram(pieces, unk_id=SPECIALS.index("<unk>"), byte_fallback=True))
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always"), pre_tokenizers.Punctuation()]
    )
    core.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    core.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIALS])
    core.add_tokens([AddedToken(NEWLINE, special=False, normalized=False)])
    core.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", SPECIALS.index("<bos>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
        additional_special_tokens=["<start_of_turn>", "<end_of_turn>"],
        padding_side="right",
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
    )
