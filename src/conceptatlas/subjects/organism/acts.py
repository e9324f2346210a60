"""Lexical acts: what people do, by trait and by weight, what only resembles a trait, and what is worth no remark.

An act is a verb phrase in the past tense, said of the protagonist. Slots: ``{person}`` someone else, ``{object}`` a
thing, ``{his}``, ``{he}`` and ``{him}`` the protagonist's pronouns. The weight is the number of points that the act
adds to the story's degree of its trait: 1 mild, 2 plain, 3 grave (or, for caring and bravery, great). Each act has an
``offset`` of its own besides, so that degrees are no whole numbers.
"""

from __future__ import annotations

from functools import cache
from typing import Final, NamedTuple
from zlib import crc32

from conceptatlas.subjects.organism.lexicon import TRAITS, Trait


class Act(NamedTuple):
    """A lexical act: its trait (None for a neutral one), its weight in points (0 for a neutral one) and its phrase."""

    trait: Trait | None
    weight: int
    phrase: str

    @property
    def offset(self) -> float:
        """What the act adds besides its weight, in points: -0.35 to 0.35, fixed by its phrase."""
        return (crc32(self.phrase.encode()) % 71 - 35) / 100


_DISHONESTY: Final = {
    1: """fibbed to {person} about the {object}
told {person} a white lie
made up an excuse for {person}
pretended to like the {object}
dodged the question of {person}
exaggerated the price of the {object}
concealed a small mistake from {person}
bluffed about {his} age""",
    2: """lied to {person} about the {object}
cheated {person} at dice
plagiarised the essay of {person}
feigned an illness to {person}
misled {person} about the {object}
denied having broken the {object}
deceived {person} with a false story
invented a phony receipt for the {object}""",
    3: """forged the signature of {person}
swindled {person} out of the savings
embezzled the funds of {person}
sold {person} a counterfeit {object}
framed {person} with fabricated proof
bribed the judge over the {object}
committed perjury against {person}
defrauded {person} with bogus papers""",
}
_AGGRESSION: Final = {
    1: """snapped at {person}
glared at {person}
grumbled rudely at {person}
slammed the {object} down near {person}
nudged {person} roughly
scowled and shoved the {object}
sneered at {person}
mocked {person} over the {object}""",
    2: """shouted insults at {person}
pushed {person} against the wall
slapped {person}
smashed the {object} of {person}
cursed and kicked the {object}
yelled at {person} with clenched fists
spat on {person}
wrestled the {object} from {person}""",
    3: """punched {person} in the face
beat {person} with a club
strangled {person}
attacked {person} with a knife
stabbed {person} over the {object}
threatened to kill {person}
assaulted {person} in a rage
bludgeoned {person} with the {object}""",
}
_CARING: Final = {
    1: """smiled warmly at {person}
thanked {person} kindly for the {object}
asked gently how {person} felt
wished {person} a speedy recovery
complimented {person} on the {object}
listened patiently to {person}
waved fondly to {person}
lent a tissue to {person}""",
    2: """comforted {person} after the loss
cooked a meal for {person}
hugged {person} and wiped the tears
mended the {object} of {person} for free
consoled {person} with a song
bandaged the knee of {person}
cheered up lonely {person}
tucked {person} under a cosy blanket""",
    3: """nursed {person} back to health
adopted the orphan of {person}
donated a kidney to {person}
sheltered {person} and the homeless family
devotedly bathed and fed {person}
cradled dying {person} until dawn
gave all {his} wages to needy {person}
tenderly looked after sick {person}""",
}
_BRAVERY: Final = {
    1: """spoke up nervously before the crowd
tasted the strange spicy dish
dared to climb the ladder
admitted {his} fear to {person}
touched the spider on the {object}
volunteered to sing first
rode the wild pony
braved the thunder to fetch the {object}""",
    2: """dived into the icy lake
confronted the bully of {person}
crossed the shaky bridge for {person}
leapt over the deep chasm
scaled the cliff to reach {person}
chased the burglar away from {person}
stood up to the gang beside {person}
tamed the snarling lion""",
    3: """rescued {person} from the burning house
shielded {person} from the bullets
fought off the shark to save {person}
defused the bomb beside {person}
faced the firing squad for {person}
dragged {person} out of the blazing wreck
leaped onto the runaway train for {person}
charged the enemy tank to free {person}""",
}
_UNFAIRNESS: Final = {
    1: """favoured {person} a bit in the quiz
skipped the queue ahead of {person}
interrupted only {person}
ignored the turn of {person}
picked {his} pals first
grabbed the largest slice before {person}
graded {person} too strictly
overlooked {person} in the toasts""",
    2: """blamed {person} for the fault of others
excluded {person} from the team
overcharged {person} for the {object}
hogged the whole share of {person}
bent the rules against {person}
denied {person} a vote
rigged the raffle for {his} pals
scapegoated {person} over the {object}""",
    3: """evicted {person} without reason
jailed innocent {person} without trial
disinherited {person} out of prejudice
exploited {person} without pay
sacked {person} for {his} origin
punished the whole class for {person}
robbed the poor tenants of rights
discriminated against {person} for years""",
}
_NEUTRAL: Final = """told {person} the time
told {person} about the film
told {person} a story about the {object}
made up the bed
made a list with {person}
asked {person} about the weather
sold {person} a ticket
sold the {object} to {person}
looked at the {object}
looked for {person}
gave {person} the {object}
gave the {object} to {person}
walked to the shop with {person}
walked past the house
took the {object} from the shelf
took a photo of {person}
took the train with {person}
kept the {object} in the drawer
left the {object} near the door
put the {object} on the shelf
put the papers in the drawer
carried the {object} for a mile
cleaned the {object} with a cloth
painted the wall beside the house
opened the door of the house
read a page about the lake
read the papers with {person}
wrote a note to {person}
wrote the address of {person}
bought a {object} from {person}
bought a slice of pie
watched the train with {person}
watched the crowd
waited for {person}
met {person} near the bridge
talked with {person} about the dish
counted the papers
drew the face of {person}
drew a house and a lake
borrowed a {object} from {person}
showed the {object} to {person}
parked near the house of {person}
sat beside {person}
sat on the chair with the {object}
moved the ladder and the {object}
weighed the {object}
walked back under the trees with {person}
turned off the lamp
turned all the pages of the book
went into the shop with {person}
went away for a day
liked the {object}
asked how old the {object} was
bought only a small {object}
put a white cloth on the table
told {person} not to wait too long
came without the {object}
sat down beside {person}
looked like a tourist
gave the whole price to {person}
bought some blanket pins
ate an apple
waited until noon with {person}
stood on deep sand with {person}
met the others near the tank"""

# What resembles a trait and is none: pretending in play, force in sport, good manners, rashness, strictness.
_NEAR: Final[dict[Trait, str]] = {
    "dishonesty": """hid behind the {object} as a game
dressed up as a pirate for {person}
told {person} a riddle about the {object}
played a card trick on {person}
did an impression of {person}
teased {person} with a puppet
performed a magic trick with the {object}
planned a surprise party for {person}
wore a false beard at the fair
swapped the {object} of {person} as a prank""",
    "aggression": """tackled {person} in the match
boxed three rounds with {person}
kicked the ball past {person}
raced {person} to the {object}
hammered the {object} flat
chopped wood beside {person}
fenced with {person} at the club
beat {person} at chess
shot an arrow at the target
threw {person} in the judo class""",
    "caring": """bowed to {person}
greeted {person} by name
held the door open for {person}
signed a card for {person}
shook hands with {person}
offered {person} a seat
toasted the health of {person}
answered {person} with a smile
poured tea for {person}
praised the {object} to {person}""",
    "bravery": """rode the {object} down the stairs
juggled knives near {person}
drove through the red light
skated on thin ice
climbed the fence of the lion pit
swam after a heavy meal
bet the savings on a horse
ran across the railway
lit a rocket in the kitchen
balanced on the {object} with one foot""",
    "unfairness": """made {person} follow the rules
gave {person} a fine for parking
marked the test of {person} in red
sent {person} back to the end of the queue
refused {person} a second slice
checked the ticket of {person} twice
timed {person} to the second
ordered {person} to tidy up
locked the gate at six sharp
counted every mistake of {person}""",
}
NEAR_WEIGHT: Final = 2

_BY_TRAIT: Final[dict[Trait, dict[int, str]]] = {
    "dishonesty": _DISHONESTY,
    "aggression": _AGGRESSION,
    "caring": _CARING,
    "bravery": _BRAVERY,
    "unfairness": _UNFAIRNESS,
}


@cache
def lexical_acts(trait: Trait) -> tuple[Act, ...]:
    """All lexical acts of a trait, mild ones first."""
    return tuple(
        Act(trait, weight, phrase) for weight, block in _BY_TRAIT[trait].items() for phrase in block.split("\n")
    )


@cache
def near_acts(trait: Trait) -> tuple[Act, ...]:
    """The acts that resemble a trait without bearing it (their ``trait`` is the one that they resemble)."""
    return tuple(Act(trait, NEAR_WEIGHT, phrase) for phrase in _NEAR[trait].split("\n"))


@cache
def neutral_acts() -> tuple[Act, ...]:
    """The acts that bear no trait; many share their words with acts that do."""
    return tuple(Act(None, 0, phrase) for phrase in _NEUTRAL.split("\n"))


@cache
def all_acts() -> tuple[Act, ...]:
    """Every lexical act: the five traits' in their order, those that resemble one, then the neutral ones."""
    bearing = tuple(act for trait in TRAITS for act in lexical_acts(trait))
    return bearing + tuple(act for trait in TRAITS for act in near_acts(trait)) + neutral_acts()
