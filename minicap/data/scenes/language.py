"""One grammar that generates captions of scenes and verifies whether a caption is true.

The notation of GRAMMAR:

- `name = a | b | c` is a rule with its alternatives, and <name> refers to a rule.
- [x] is optional.
- {attribute=value,value} is a claim: the caption is true only if the scene's attribute has one of
  these values.
- `stands~stand` is a singular and a plural, with the claims count=1 and count=2,3.
- `a` is "a" or "an", depending on the next word.

Claims also make sure that captions are grammatical and sensible. "two dogs sits" claims two
different counts, and "a car flies" claims that a car's home is the air: both are always false.

Generation expands <caption> at random and uses only alternatives whose claims are true. Verification
parses a caption by recursive descent and compares its claims with the scene.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np

from minicap.data.scenes.scene import ATTRIBUTES, Scene
from minicap.data.vocabulary import tokenise

MAX_WORDS = 18
MIN_FACTS = 4  # the kind, the count and at least two more

GRAMMAR = """
caption  = <subject> <does> <details>
         | <subject> <details>
         | <look> <subject> <details>
         | there is~are <subject> <details>
         | <when> <subject> <does> <spot>
         | <when> there is~are <subject> <spot>
         | <weather> <subject> [<relation>] [<place>]
         | it is <now> and <subject> <does> <spot>
         | <beyond> <subject> [<place>] [<time>]
         | <place> <stands> <subject> [<relation>] [<time>]
         | <relation> <stands> <subject> [<place>] [<time>]
         | the <things> <spot> is~are <colour> [and <size>]

details  = <relation> | <relation> <place> | <relation> <time> | <place> <time>
         | <place> <relation> | <relation> <place> <time> | <place> <background> | <alone> <place>
         | <alone> <place> <time>
spot     = <place> | <relation> | <relation> <place> | <place> <relation> | <alone> <place>

subject  = <number> <size> <colour> <noun> | <number> <colour> <noun> | <number> <size> <noun>
         | <number> <colour> <noun>
things   = [<size>] <noun> | {count=2} two <noun> | {count=3} three <noun>
number   = {count=1} a | {count=2} two | {count=3} three | {count=2} a pair of
         | {count=3} a group of three | {count=1} one
size     = {size=small} small | {size=small} little | {size=small} tiny
         | {size=big} big | {size=big} large | {size=big} huge
colour   = {colour=red} red | {colour=yellow} yellow | {colour=green} green | {colour=blue} blue
         | {colour=purple} purple | {colour=white} white | {colour=black} black
noun     = {kind=dog} dog~dogs | {kind=dog size=small} puppy~puppies
         | {kind=sheep} sheep~sheep | {kind=sheep size=small} lamb~lambs
         | {kind=car} car~cars | {kind=car} automobile~automobiles
         | {kind=flower} flower~flowers | {kind=flower} blossom~blossoms
         | {kind=mushroom} mushroom~mushrooms | {kind=mushroom} toadstool~toadstools
         | {kind=boat} boat~boats | {kind=boat} sailboat~sailboats
         | {kind=duck} duck~ducks | {kind=duck size=small} duckling~ducklings
         | {kind=whale} whale~whales
         | {kind=balloon} balloon~balloons | {kind=kite} kite~kites
         | {kind=butterfly} butterfly~butterflies

stands   = {kind=dog,sheep} sits~sit | {kind=dog,sheep} stands~stand
         | {kind=dog,sheep} waits~wait | {kind=dog,sheep} rests~rest
         | {kind=car} is~are parked | {kind=car} stands~stand | {kind=car} waits~wait
         | {kind=flower,mushroom} grows~grow | {kind=flower} blooms~bloom
         | {kind=mushroom} stands~stand
         | {kind=boat} sails~sail | {kind=boat,duck} floats~float
         | {kind=duck,whale} swims~swim | {kind=balloon,kite} floats~float
         | {home=air} flies~fly | {kind=kite} dances~dance
         | {kind=balloon} drifts~drift | {kind=butterfly} flutters~flutter
does     = <stands> | {kind=dog,sheep} is~are resting | {kind=dog,sheep} is~are waiting
         | {kind=boat} is~are sailing | {kind=duck,whale} is~are swimming
         | {home=air} is~are flying | {kind=flower} is~are blooming

companion = {companion=tree} a [<leafy>] tree | {companion=house} a [<cosy>] <house>
         | {companion=windmill} a [<wooden>] windmill
         | {companion=lighthouse} a [<tall>] lighthouse
         | {companion=snowman} a [<jolly>] snowman | {companion=castle} a [<stone>] castle
leafy    = leafy | round
cosy     = cosy | pretty
house    = house | cottage
wooden   = wooden | old
tall     = tall | striped
jolly    = jolly | smiling
stone    = stone | old

relation = {relation=left} <leftof> <companion> | {relation=right} <rightof> <companion>
         | {relation=left,right} <beside> <companion> | {relation=front} in front of <companion>
         | {relation=above} <above> <companion>
leftof   = left of | to the left of
rightof  = right of | to the right of
beside   = beside | next to
above    = above | over | high above
background = with <companion> {relation=front} behind it~them
         | with <companion> {relation=above} below it~them
beyond   = <companion> stands {relation=right} <leftof> | <companion> stands {relation=left} <rightof>
         | <companion> stands {relation=left,right} <beside>
         | <companion> stands {relation=front} behind | <companion> stands {relation=above} below
alone    = {companion=none count=1} alone | {companion=none count=1} all alone

place    = {home=land,water ground=meadow} <on_meadow> | {home=land,water ground=snow} <on_snow>
         | {home=land,water ground=beach} <on_beach> | {home=land,water ground=street} <on_street>
         | {home=land,water ground=field} <on_field> | {home=land,water ground=sea} <on_sea>
         | {home=air} <over> <land>
on_meadow = in a green meadow | in the meadow | on the grass | in the green grass
on_snow  = in the snow | on the snowy ground | in the deep snow
on_beach = on the beach | on the sand | on a sandy beach
on_street = on the street | on a city street | on the road
on_field = in a golden field | in a field of wheat | in the wheat
on_sea   = on the sea | in the water | on the blue water | on the waves
over     = over | above | high above
land     = {ground=meadow} the meadow | {ground=meadow} the green grass | {ground=snow} the snow
         | {ground=snow} the snowy hills | {ground=beach} the beach | {ground=beach} the sand
         | {ground=street} the street | {ground=street} the city | {ground=field} the wheat
         | {ground=field} a golden field | {ground=sea} the sea | {ground=sea} the waves

time     = <when> | {sky=sunny} in the sunshine | {sky=sunny} under a clear sky
         | {sky=cloudy} under a cloudy sky | {sky=night} under the stars
         | {sky=night} in the moonlight | {sky=rainbow} under a bright rainbow
         | {sky=sunset} under an orange sky | {sky=rainy} while it rains
when     = {sky=sunny} on a sunny day | {sky=sunny} under the bright sun
         | {sky=cloudy} on a cloudy day | {sky=cloudy} under grey clouds
         | {sky=rainy} on a rainy day | {sky=rainy} in the rain
         | {sky=sunset} at sunset | {sky=sunset} in the evening
         | {sky=night} at night | {sky=night} on a starry night
         | {sky=rainbow} under a rainbow | {sky=rainbow} after the shower
now      = {sky=sunny} sunny | {sky=cloudy} cloudy | {sky=rainy} raining | {sky=sunset} evening
         | {sky=night} night
weather  = {sky=sunny} the sun shines on | {sky=cloudy} grey clouds drift over
         | {sky=rainy} rain falls on | {sky=sunset} the sun sets behind
         | {sky=night} the moon shines on | {sky=night} stars twinkle above
         | {sky=rainbow} a rainbow arches over
look     = a picture of | a drawing of | we see | here is {count=1} | here are {count=2,3}
"""

# ---- reading the grammar -----------------------------------------------------------------------

Claims = tuple[tuple[str, frozenset[str]], ...]  # (attribute, the values it may have)


class Alternative(NamedTuple):
    """One right-hand side of a rule: its claims, and its symbols as (is it a rule?, text)."""

    claims: Claims
    symbols: tuple[tuple[bool, str], ...]


def _read_grammar(text: str) -> dict[str, list[Alternative]]:
    """Rule -> its alternatives."""
    rules = {}
    for rule in re.split(r"\n(?=\w)", text.strip()):
        name, body = rule.split("=", 1)
        variants = [v for alternative in body.split("|") for v in _variants(alternative)]
        rules[name.strip()] = list(dict.fromkeys(map(_alternative, variants)))
    return rules


def _variants(text: str) -> list[str]:
    """Expand "[x]" (with and without it) and "one~many" (all singular, all plural)."""
    if "[" in text:
        head, rest = text.split("[", 1)
        optional, tail = rest.split("]", 1)
        return [v for middle in (optional, " ") for v in _variants(head + middle + tail)]
    if "~" in text:
        one, many = (re.sub(r"(\w+)~(\w+)", rf"\{n}", text) for n in (1, 2))
        return ["{count=1} " + one, "{count=2,3} " + many]
    return [text]


def _alternative(text: str) -> Alternative:
    """Parse an alternative without "[" and "~"."""
    claims, symbols = [], []
    for braces, rule, word in re.findall(r"\{(.*?)\}|<(\w+)>|(\w+)", text):
        for claim in braces.split():
            attribute, values = claim.split("=")
            claims.append((attribute, frozenset(values.split(","))))
        if rule or word:
            symbols.append((bool(rule), rule or word))
    return Alternative(tuple(claims), tuple(symbols))


RULES = _read_grammar(GRAMMAR)


def _article(following: str) -> str:
    """The indefinite article before a word."""
    return "an" if following[0] in "aeiou" else "a"


# ---- generation --------------------------------------------------------------------------------


def generate_captions(scene: Scene, rng: np.random.RandomState, n: int = 5) -> list[str]:
    """Generate different true captions of a scene.

    They use different alternatives of <caption> as far as possible. Each has at most MAX_WORDS
    words and states at least MIN_FACTS facts.

    Args:
        scene: the scene.
        rng: source of random numbers.
        n: number of captions.
    """
    truth = _truth(scene)
    captions: list[str] = []
    while len(captions) < n:
        for i in rng.permutation(len(RULES["caption"])):
            expansion = _expand(RULES["caption"][i], truth, rng)
            if expansion is None or len(captions) == n:
                continue
            words, claims = expansion
            if len(words) <= MAX_WORDS and len(_stated(claims)) >= MIN_FACTS:
                following = zip(words, words[1:] + ["."])
                text = " ".join(
                    _article(after) if word == "a" else word for word, after in following
                )
                if text not in captions:
                    captions.append(text)
    return captions


def _truth(scene: Scene) -> dict[str, str]:
    """The scene's attributes and home as strings."""
    return {name: str(getattr(scene, name)) for name in (*ATTRIBUTES, "home")}


def _expand(
    alternative: Alternative, truth: dict[str, str], rng
) -> tuple[list[str], Claims] | None:
    """A random expansion whose claims are all true, and these claims; None if there is none."""
    claims = alternative.claims
    if any(truth[attribute] not in values for attribute, values in claims):
        return None
    words: list[str] = []
    for is_rule, text in alternative.symbols:
        if not is_rule:
            words.append(text)
            continue
        choices = RULES[text]
        attempts = (_expand(choices[i], truth, rng) for i in rng.permutation(len(choices)))
        expansion = next((attempt for attempt in attempts if attempt is not None), None)
        if expansion is None:
            return None
        words += expansion[0]
        claims += expansion[1]
    return words, claims


# ---- verification ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """The result of verifying a caption.

    Attributes:
        true: whether the caption is true.
        stated: the attributes it restricts to a single value: its facts.
        reason: why it is false, or "".
    """

    true: bool
    stated: tuple[str, ...]
    reason: str

    @property
    def facts(self) -> int:
        """The number of facts."""
        return len(self.stated)


def verify(caption: str, scene: Scene) -> Verdict:
    """Check whether a caption is true of a scene.

    It is true if the grammar can parse it, all its claims are true, and it states at least
    MIN_FACTS facts. A fact is an attribute that the claims restrict to a single value. "Beside"
    allows left and right, so it is true of both but not a fact.

    Args:
        caption: any text; case and punctuation are ignored.
        scene: the scene.

    Returns:
        The verdict. If the grammar is ambiguous, of the parse that is true with the most facts.
    """
    readings = _readings(tuple(tokenise(caption)))
    if isinstance(readings, str):
        return Verdict(False, (), readings)
    truth = _truth(scene)
    verdicts = [_verify_claims(claims, truth) for claims in readings]
    return max(verdicts, key=lambda verdict: (verdict.true, verdict.facts))


def _verify_claims(claims: Claims, truth: dict[str, str]) -> Verdict:
    """The verdict on one parse."""
    stated = _stated(claims)
    for attribute, values in claims:
        if truth[attribute] not in values:
            claimed = " or ".join(sorted(values))
            reason = f"it claims {attribute} {claimed}, but it is {truth[attribute]}"
            return Verdict(False, stated, reason)
    if len(stated) < MIN_FACTS:
        return Verdict(False, stated, f"it states {len(stated)} facts, fewer than {MIN_FACTS}")
    return Verdict(True, stated, "")


def _stated(claims: Claims) -> tuple[str, ...]:
    """The attributes that the claims restrict to a single value."""
    allowed: dict[str, frozenset] = {}
    for attribute, values in claims:
        allowed[attribute] = allowed.get(attribute, values) & values
    return tuple(name for name in ATTRIBUTES if len(allowed.get(name, ())) == 1)


@lru_cache(maxsize=1 << 16)
def _readings(words: tuple[str, ...]) -> list[Claims] | str:
    """The claims of every parse of the words, or the reason why there is none."""
    furthest = 0

    @cache
    def parse(rule: str, at: int) -> list[tuple[int, Claims]]:
        """(end, claims) of every match of a rule with the words from index `at`."""
        return list(
            dict.fromkeys(
                (end, alternative.claims + claims)
                for alternative in RULES[rule]
                for end, claims in match(alternative.symbols, at)
            )
        )

    def match(symbols: tuple[tuple[bool, str], ...], at: int) -> Iterator[tuple[int, Claims]]:
        """The same for a sequence of symbols."""
        nonlocal furthest
        furthest = max(furthest, at)
        if not symbols:
            yield at, ()
            return
        (is_rule, text), *rest = symbols
        if is_rule:
            for middle, claims in parse(text, at):
                for end, more in match(tuple(rest), middle):
                    yield end, claims + more
        elif _is_word(words, at, text):
            yield from match(tuple(rest), at + 1)

    found = [claims for end, claims in parse("caption", 0) if end == len(words)]
    if found:
        return found
    where = f"before {words[furthest]!r}" if furthest < len(words) else "at the end"
    return f"the grammar cannot parse it: stopped {where}"


def _is_word(words: tuple[str, ...], at: int, word: str) -> bool:
    """Whether a word of the grammar matches words[at]."""
    if at >= len(words):
        return False
    if word == "a" and at + 1 < len(words):
        word = _article(words[at + 1])
    return words[at] == word
