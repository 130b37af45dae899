"""Caption metrics: BLEU, ROUGE-L, CIDEr and METEOR, computed by pycocoevalcap.

BLEU (Papineni et al. 2002) counts the n-grams of one to four words that a caption has in common
with its references. ROUGE-L (Lin 2004) finds the longest common subsequence. CIDEr (Vedantam et al.
2015) weights each n-gram by its rarity: the fewer images have it in a reference, the more it
counts. pycocoevalcap is the code of COCO's evaluation (Chen et al. 2015), so the scores compare
with published ones if the tokenizer is the same.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from minicap.data.tokenisers import TOKENISERS
from minicap.data.vocabulary import UNK
from minicap.evaluation.java import Meteor, ptb_tokenise
from minicap.utils.errors import UserError

Tokenizer = Literal["course", "unicode", "characters", "ptb"]
# What replaces #UNK# in a caption: one token that no reference contains.
UNKNOWN, UNKNOWN_LETTER = " unkunk ", "\ua66e"
METRICS = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr")


def scores(
    candidates: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    tokenizer: Tokenizer = "course",
) -> dict[str, float]:
    """Score one caption per image.

    Args:
        candidates: image -> its caption.
        references: image -> its references, one or more.
        tokenizer: one of `minicap.data.tokenisers`, or "ptb" for that of COCO's evaluation (needs
            Java).

    Returns:
        METRICS over all images: from 0 to 1, and CIDEr from 0 to 10.

    Raises:
        UserError: as for `Scorer`.

    Example:
        >>> scores({"a": "a dog", "b": "a bus"}, {"a": ["A dog."], "b": ["A red bus."]})["ROUGE-L"]
        0.88...
    """
    return Scorer(references, tokenizer)(candidates)[0]


class Scorer:
    """Scores captions of a fixed set of images, whose references are tokenised only once.

    Attributes:
        tokenizer: how captions are split into words.
        references: image -> its tokenised references.
        meteor: computes METEOR, or None.
    """

    def __init__(
        self,
        references: Mapping[str, Sequence[str]],
        tokenizer: Tokenizer = "course",
        meteor: bool = False,
    ):
        """Tokenise the references.

        Args:
            references: image -> its references, one or more; two images or more.
            tokenizer: as for `scores`.
            meteor: compute METEOR too (needs Java).

        Raises:
            UserError: fewer than two images; an image without a reference, or with one that has
                no word; no Java where it is needed; no pycocoevalcap.
        """
        try:
            import pycocoevalcap  # noqa: F401
        except ImportError as error:
            raise UserError(
                f"scores need pycocoevalcap ({error}): pip install -e '.[metrics]'"
            ) from error
        if len(references) < 2:
            raise UserError(
                f"CIDEr weights words by their rarity among the images, which needs two images or "
                f"more; {'there is only one' if references else 'there are none'}"
            )
        self.tokenizer = tokenizer
        texts = [text for captions in references.values() for text in captions]
        words = iter(words_of(texts, tokenizer))
        self.references = {name: [next(words) for _ in said] for name, said in references.items()}
        for name, captions in self.references.items():
            if not captions or "" in captions:
                problem = "has a reference without a word" if captions else "has no reference"
                raise UserError(f"{name} {problem}: its caption cannot be scored")
        self.meteor = Meteor() if meteor else None

    @property
    def frequencies(self) -> str:
        """Where CIDEr's document frequencies come from, in words."""
        return f"document frequencies from the references of these {len(self.references):,} images"

    def __call__(
        self, candidates: Mapping[str, str]
    ) -> tuple[dict[str, float], dict[str, list[float]]]:
        """Compute each metric.

        Args:
            candidates: image -> its caption. An empty caption scores 0.

        Returns:
            Metric -> its value over all images (for BLEU this is not the mean), and metric -> its
            value for each image, in the order of the references.

        Raises:
            UserError: an image has a caption but no references, or the reverse.
        """
        from pycocoevalcap.bleu.bleu import Bleu
        from pycocoevalcap.cider.cider import Cider
        from pycocoevalcap.rouge.rouge import Rouge

        for has, lacks, kind in (
            (candidates, self.references, "captions but no references"),
            (self.references, candidates, "references but no captions"),
        ):
            if odd := [name for name in has if name not in lacks]:
                raise UserError(f"{kind}: {', '.join(odd[:3])} ({len(odd):,} in all)")
        unknown = UNKNOWN_LETTER if self.tokenizer == "characters" else UNKNOWN
        texts = [candidates[name].replace(UNK, unknown) for name in self.references]
        words = words_of(texts, self.tokenizer)
        pair = self.references, {n: [w] for n, w in zip(self.references, words, strict=True)}
        bleu, bleu_each = Bleu(4).compute_score(*pair, verbose=0)
        total = {f"BLEU-{n}": float(score) for n, score in enumerate(bleu, 1)}
        each = {f"BLEU-{n}": list(map(float, values)) for n, values in enumerate(bleu_each, 1)}
        others = {"ROUGE-L": Rouge().compute_score, "CIDEr": Cider().compute_score}
        if self.meteor:
            others["METEOR"] = self.meteor
        for metric, compute in others.items():
            score, values = compute(*pair)
            total[metric], each[metric] = float(score), list(map(float, values))
        return total, each


def words_of(captions: Sequence[str], tokenizer: Tokenizer) -> list[str]:
    """Tokenise captions.

    Returns:
        Each caption's words in lower case, joined by spaces. #UNK# is one word.
    """
    if tokenizer == "ptb":
        tokenised = ptb_tokenise([caption.replace(UNK, "unk") for caption in captions])
    else:
        tokenised = [TOKENISERS[tokenizer](caption) for caption in captions]
    return [" ".join(words) for words in tokenised]
