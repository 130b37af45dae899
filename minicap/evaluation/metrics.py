"""How good captions are beside what people wrote: the figures of the field, by pycocoevalcap.

BLEU counts runs of one to four words that a caption shares with its references, ROUGE-L looks for
the longest common subsequence, CIDEr weighs each run of words by how few pictures it is said of.
All of them are here as pycocoevalcap computes them (Chen et al. 2015), so that they compare with
papers. They also depend on what counts as a word, so a figure is only one with its tokeniser.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from minicap.data.vocabulary import UNK, tokenise
from minicap.evaluation.java import Meteor, ptb_tokenise
from minicap.utils.errors import UserError

Tokenizer = Literal["words", "ptb"]
UNKNOWN = " unkunk "  # for #UNK# in a caption: a word that no reference has
METRICS = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr")


def scores(
    candidates: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    tokenizer: Tokenizer = "words",
) -> dict[str, float]:
    """METRICS of one caption for each picture, over all of them. UserErrors as in Scorer.

    candidates: picture -> caption; references: picture -> one caption or more; tokenizer: what is
    a word, "words" as minicap's vocabulary has them or "ptb". Each is from 0 to 1, CIDEr to 10.
    """
    return Scorer(references, tokenizer)(candidates)[0]


class Scorer:
    """Scores captions of the pictures of `references`; for a second set of captions of the same
    pictures, the references need not be tokenised again.

    UserError: fewer than two pictures, a picture without a reference or with one that has no word;
    "ptb" or meteor without Java; no pycocoevalcap.
    """

    def __init__(
        self,
        references: Mapping[str, Sequence[str]],
        tokenizer: Tokenizer = "words",
        meteor: bool = False,
    ):
        try:
            import pycocoevalcap  # noqa: F401
        except ImportError as error:
            raise UserError(
                f"scores need pycocoevalcap ({error}): pip install -e '.[metrics]'"
            ) from error
        if len(references) < 2:
            raise UserError(
                f"CIDEr weighs words by how many pictures they are said of, and here "
                f"{'is one picture' if references else 'are none'}: judge two or more"
            )
        self.tokenizer = tokenizer
        texts = [text for some in references.values() for text in some]
        words = iter(words_of(texts, tokenizer))
        self.references = {name: [next(words) for _ in some] for name, some in references.items()}
        for name, some in self.references.items():
            if not some or "" in some:
                lack = "has a reference without a word" if some else "has no reference"
                raise UserError(f"{name} {lack}: a caption of it cannot be judged")
        self.meteor = Meteor() if meteor else None

    @property
    def frequencies(self) -> str:
        """Where CIDEr's weights come from, in words."""
        return f"document frequencies from these {len(self.references):,} pictures' references"

    def __call__(
        self, candidates: Mapping[str, str]
    ) -> tuple[dict[str, float], dict[str, list[float]]]:
        """Each metric over all pictures, and for each picture in the references' order.

        BLEU over all pictures is not the mean of each picture's. An empty caption scores 0.
        UserError: a picture that has a caption and no reference, or the other way round.
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
        texts = [candidates[name].replace(UNK, UNKNOWN) for name in self.references]
        words = words_of(texts, self.tokenizer)
        judged = self.references, {n: [w] for n, w in zip(self.references, words, strict=True)}
        bleu, bleu_each = Bleu(4).compute_score(*judged, verbose=0)
        total = {f"BLEU-{n}": float(score) for n, score in enumerate(bleu, 1)}
        each = {f"BLEU-{n}": list(map(float, some)) for n, some in enumerate(bleu_each, 1)}
        others = {"ROUGE-L": Rouge().compute_score, "CIDEr": Cider().compute_score}
        if self.meteor:
            others["METEOR"] = self.meteor
        for metric, compute in others.items():
            score, some = compute(*judged)
            total[metric], each[metric] = float(score), list(map(float, some))
        return total, each


def words_of(captions: Sequence[str], tokenizer: Tokenizer) -> list[str]:
    """Each caption as its words, in lower case, with a blank between two. #UNK# is one word."""
    if tokenizer == "ptb":
        unk = tokenise(UNK)[0]
        found = ptb_tokenise([caption.replace(UNK, unk) for caption in captions])
    else:
        found = [tokenise(caption) for caption in captions]
    return [" ".join(words) for words in found]
