"""One grammar, used in both directions: it writes captions, and it judges whether one is true.

GRAMMAR is read like this. `name = a | b | c` is a rule with its alternatives, <name> is a rule
used, [x] may be left out, and {attribute=value,value} is a claim: what was said holds only if the
scene's attribute has one of those values. `stands~stand` is a singular and a plural: it claims
count=1 or count=2,3. So agreement needs no rule of its own ("two dogs sits" claims two counts at
once, and is true of nothing), nor does sense ("a car flies" claims that a car is at home in the
air). `a` stands for "a" or "an", as the next word wants it.

GenerationConfig expands <caption> at random, along claims that hold. Judging parses the words by recursive
descent and compares the claims of what was parsed with the scene.
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
MIN_FACTS = 4  # the kind and its number, and at least two facts more

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
    """One right-hand side: its claims, and its words and rules in order, as (is a rule?, text)."""

    claims: Claims
    symbols: tuple[tuple[bool, str], ...]


def _read_grammar(text: str) -> dict[str, list[Alternative]]:
    rules = {}
    for rule in re.split(r"\n(?=\w)", text.strip()):
        name, body = rule.split("=", 1)
        variants = [v for alternative in body.split("|") for v in _variants(alternative)]
        rules[name.strip()] = list(dict.fromkeys(map(_alternative, variants)))
    return rules


def _variants(text: str) -> list[str]:
    """Every reading of "[x]" (with and without) and of "one~many" (all the first, all the second)."""
    if "[" in text:
        head, rest = text.split("[", 1)
        optional, tail = rest.split("]", 1)
        return [v for middle in (optional, " ") for v in _variants(head + middle + tail)]
    if "~" in text:
        one, many = (re.sub(r"(\w+)~(\w+)", rf"\{n}", text) for n in (1, 2))
        return ["{count=1} " + one, "{count=2,3} " + many]
    return [text]


def _alternative(text: str) -> Alternative:
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
    return "an" if following[0] in "aeiou" else "a"


# ---- writing -----------------------------------------------------------------------------------


def write_captions(scene: Scene, rng: np.random.RandomState, n: int = 5) -> list[str]:
    """n different true captions, each built differently where the scene has as many ways to say it.

    None has more than MAX_WORDS words or fewer than MIN_FACTS facts.
    """
    truth = _truth(scene)
    captions: list[str] = []
    while len(captions) < n:
        for i in rng.permutation(len(RULES["caption"])):
            written = _write(RULES["caption"][i], truth, rng)
            if written is None or len(captions) == n:
                continue
            words, claims = written
            if len(words) <= MAX_WORDS and len(_stated(claims)) >= MIN_FACTS:
                following = zip(words, words[1:] + ["."])
                text = " ".join(
                    _article(after) if word == "a" else word for word, after in following
                )
                if text not in captions:
                    captions.append(text)
    return captions


def _truth(scene: Scene) -> dict[str, str]:
    return {name: str(getattr(scene, name)) for name in (*ATTRIBUTES, "home")}


def _write(alternative: Alternative, truth: dict[str, str], rng) -> tuple[list[str], Claims] | None:
    """Words for an alternative and what they claim, all of it true; None where there are none."""
    claims = alternative.claims
    if any(truth[attribute] not in values for attribute, values in claims):
        return None
    words: list[str] = []
    for is_rule, text in alternative.symbols:
        if not is_rule:
            words.append(text)
            continue
        choices = RULES[text]
        attempts = (_write(choices[i], truth, rng) for i in rng.permutation(len(choices)))
        written = next((attempt for attempt in attempts if attempt is not None), None)
        if written is None:
            return None
        words += written[0]
        claims += written[1]
    return words, claims


# ---- judging -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """Whether a caption is true, the attributes that it pins to one value, and why it is false."""

    true: bool
    stated: tuple[str, ...]
    reason: str

    @property
    def facts(self) -> int:
        return len(self.stated)


def judge(caption: str, scene: Scene) -> Verdict:
    """Is the caption true of the scene? It is if it can be parsed, all that it claims holds, and it
    states MIN_FACTS facts or more: attributes of which it leaves one value only. ("Beside" leaves
    left and right: true, but no fact.)
    """
    readings = _readings(tuple(tokenise(caption)))
    if isinstance(readings, str):
        return Verdict(False, (), readings)
    truth = _truth(scene)
    verdicts = [_judge_claims(claims, truth) for claims in readings]
    return max(verdicts, key=lambda verdict: (verdict.true, verdict.facts))


def _judge_claims(claims: Claims, truth: dict[str, str]) -> Verdict:
    stated = _stated(claims)
    for attribute, values in claims:
        if truth[attribute] not in values:
            said = " or ".join(sorted(values))
            reason = f"it says {attribute} {said}, which is {truth[attribute]}"
            return Verdict(False, stated, reason)
    if len(stated) < MIN_FACTS:
        return Verdict(False, stated, f"it states {len(stated)} facts, fewer than {MIN_FACTS}")
    return Verdict(True, stated, "")


def _stated(claims: Claims) -> tuple[str, ...]:
    """The attributes of which the claims leave one value."""
    left: dict[str, frozenset] = {}
    for attribute, values in claims:
        left[attribute] = left.get(attribute, values) & values
    return tuple(name for name in ATTRIBUTES if len(left.get(name, ())) == 1)


@lru_cache(maxsize=1 << 16)
def _readings(words: tuple[str, ...]) -> list[Claims] | str:
    """The claims of every parse of the words, or in words why there is none."""
    furthest = 0

    @cache
    def parse(rule: str, at: int) -> list[tuple[int, Claims]]:
        """(end, claims) for every way in which the rule matches the words from `at` on."""
        return list(
            dict.fromkeys(
                (end, alternative.claims + claims)
                for alternative in RULES[rule]
                for end, claims in match(alternative.symbols, at)
            )
        )

    def match(symbols: tuple[tuple[bool, str], ...], at: int) -> Iterator[tuple[int, Claims]]:
        """The same for a row of symbols."""
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
    where = f"before {words[furthest]!r}" if furthest < len(words) else "at its end"
    return f"not a caption of this grammar: it breaks off {where}"


def _is_word(words: tuple[str, ...], at: int, word: str) -> bool:
    if at >= len(words):
        return False
    if word == "a" and at + 1 < len(words):
        word = _article(words[at + 1])
    return words[at] == word
