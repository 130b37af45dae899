"""Small evaluations that several tests use."""

from minicap.data.evaluation_set import EvaluationSet
from minicap.evaluation.evaluation import FACTS, TRUE, Evaluation, Prediction, SystemScores
from minicap.evaluation.metrics import METRICS, words_of


def images(number, features=None, encoder=None):
    """An evaluation set of `number` images with one reference each."""
    names = [f"{n}.jpg" for n in range(number)]
    references = [[f"a dog and {n} cats"] for n in range(number)]
    return EvaluationSet(names, references, features, encoder, [])


def evaluation(captions, baseline=None, cider=(0.3, 0.2), vocabulary=None, true=None):
    """An evaluation of these captions with one baseline.

    cider: the value of all metrics, for the captions and the baseline.
    """

    def system(texts, value):
        each = {name: [value] * len(texts) for name in METRICS}
        scores = dict.fromkeys(METRICS, value)
        if true is not None:
            scores[TRUE], each[TRUE] = true, [true] * len(texts)
            each[FACTS] = [5.0] * len(texts)
        return SystemScores(texts, words_of(texts, "course"), scores, each)

    systems = {"model": system(captions, cider[0])}
    systems["shuffled features"] = system(baseline or captions[1:] + captions[:1], cider[1])
    predictions = [[Prediction(caption)] for caption in captions]
    settings = {"split": "dev", "images": len(captions), "tokenizer": "course"}
    return Evaluation(images(len(captions)), systems, predictions, vocabulary, settings, [])
