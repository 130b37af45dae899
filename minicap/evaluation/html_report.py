"""An evaluation as one HTML page that needs only a browser: no scripts, no network.

Captions and names are untrusted: `tag` escapes every text, and the page's content security policy
also forbids scripts and connections.
"""

import base64
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy
from PIL import Image

from minicap.evaluation.attention_maps import overlays
from minicap.evaluation.evaluation import TRUE, Evaluation, Prediction
from minicap.evaluation.gallery import Gallery
from minicap.evaluation.html import Html, tag
from minicap.evaluation.summary import describe, statistics
from minicap.evaluation.svg import LOSS, figure, histogram, loss_curves, style_sheet
from minicap.utils.errors import UnusableImage, UserError
from minicap.utils.files import read_lines

SIDE, MAP = 320, 160  # pixels of the longer side of an image, and of a map
END = "∎"  # shown for the end token
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
MEANINGS = {
    "BLEU-1 to 4": "the fraction of a caption's n-grams that a reference contains too, for n up to "
    "that number; captions shorter than their references score lower.",
    "ROUGE-L": "the longest common subsequence of words of caption and reference.",
    "CIDEr": "similarity to the references in n-grams of 1 to 4 words, weighted by how few images "
    "have each in a reference (CIDEr-D, as in COCO's evaluation); it can exceed 100.",
    "METEOR": "words that match a reference's, also by stem or as synonyms, and their order.",
    "true": "captions that state enough facts of the drawn scene, and no wrong one.",
    "distinct": "the number of different captions.",
    "words": "the mean number of words in a caption.",
    "nearest neighbours": "for each image, the caption of the training images with the most "
    "similar features that agrees best with their other captions.",
    "shuffled features": "the same captions, each given to another image.",
    "most frequent caption": "the most frequent training caption, given to every image.",
}
BARS = (
    "The bar under each word shows its probability: as long as the word if it is 1. "
    "The mark after the last word is the end of the caption."
)


def read_history(folder: Path) -> list[dict]:
    """Read the losses of a training run from the metrics.jsonl in its folder.

    Self-critical epochs are left out: their losses do not compare with the ones before.

    Returns:
        For each epoch "epoch", "train_loss" and "dev_loss"; nothing if there is no such file.
    """
    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    keys = ("epoch", "train_loss", "dev_loss")
    try:
        lines = [json.loads(line) for line in read_lines(path, "metrics") if line]
        lines = [line for line in lines if "train_reward" not in line]
        history = [{key: float(line[key]) for key in keys} for line in lines]
    except (UserError, ValueError, TypeError, KeyError):
        return []
    finite = all(map(math.isfinite, (value for line in history for value in line.values())))
    return history if finite else []


def html_report(
    evaluation: Evaluation,
    chosen: Mapping[str, Sequence[int]],
    gallery: Gallery,
    history: Sequence[dict],
    attention: Mapping[int, numpy.ndarray] | None = None,
) -> str:
    """Build the page.

    Args:
        evaluation: what to report.
        chosen: title -> the rows of the images to show under it.
        gallery: the images that can be shown.
        history: the training epochs, as `read_history` returns them; may be empty.
        attention: row -> where the decoder looked for each token of the best caption (T, L).

    Returns:
        The HTML.
    """
    settings = evaluation.settings
    title = f"Captions of {settings['images']:,} images, {settings['split']}"
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("title", title),
        tag("style", style_sheet()),
    ]
    body = [
        tag("h1", title),
        describe_settings(evaluation),
        notes(evaluation),
        tag("h2", "Scores and baselines"),
        tag("div", table(evaluation), class_="table"),
        tag("p", "Times 100. Red: a baseline scores higher than the first row.", class_="muted"),
        meanings(evaluation),
        tag("h2", "The captions as a whole"),
        statistics_list(evaluation),
        charts(evaluation, history),
        cards(evaluation, chosen, gallery, attention or {}),
    ]
    page = tag("html", tag("head", head), tag("body", body), lang="en")
    # JSON can contain lone surrogates, which UTF-8 cannot encode.
    return f"<!doctype html>\n{page}\n".encode("utf-8", "replace").decode()


def describe_settings(evaluation: Evaluation) -> list[Html]:
    """What was evaluated, and how."""
    settings = evaluation.settings
    lines = [
        f"{settings['evaluated']}, scored with {settings['captions']}.",
        f"Tokenizer {settings['tokenizer']}; {settings['references']:,} references; "
        f"CIDEr with {settings['CIDEr']}.",
    ]
    if settings.get("generation"):
        lines.append(f"Generated with {describe(settings['generation'])}.")
    return [tag("p", line, class_="muted") for line in lines]


def notes(evaluation: Evaluation) -> Html:
    """Warnings and notes."""
    bold = tag("b", "Warning: ")
    warnings = [tag("p", bold, text, class_="warning") for text in evaluation.warnings]
    return tag("section", warnings, [tag("p", note) for note in evaluation.notes], class_="notes")


def meanings(evaluation: Evaluation) -> Html:
    """Explain the rows and columns of the table."""
    absent = {"METEOR", TRUE} - evaluation.evaluated.scores.keys()
    shown = [(name, text) for name, text in MEANINGS.items() if name not in absent]
    items = [tag("li", tag("b", name), ": ", text) for name, text in shown]
    return tag("details", tag("summary", "What the scores mean"), tag("ul", items))


def statistics_list(evaluation: Evaluation) -> Html:
    """The statistics, side by side."""
    pairs = statistics(evaluation)
    items = [tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs]
    return tag("dl", items, class_="statistics")


def charts(evaluation: Evaluation, history: Sequence[dict]) -> Html:
    """The loss curves of two epochs or more, the histogram, and the most frequent captions."""
    figures = [histogram(evaluation.evaluated.each["CIDEr"]), most_frequent(evaluation)]
    if history and history[-1]["epoch"] > history[0]["epoch"]:
        figures.insert(0, figure(LOSS, loss_curves(history)))
    return tag("div", figures, class_="charts")


def cards(
    evaluation: Evaluation,
    chosen: Mapping[str, Sequence[int]],
    gallery: Gallery,
    attention: Mapping[int, numpy.ndarray],
) -> list[list[Html]]:
    """The images under their titles. The first title also explains the bars, if there are any."""
    hint = tag("p", BARS, class_="muted")
    bars = any(candidates[0].probabilities for candidates in evaluation.predictions)
    return [
        [
            tag("h2", title),
            *([hint] if bars and number == 0 else []),
            tag(
                "div",
                [card(evaluation, row, gallery, attention.get(row)) for row in rows],
                class_="cards",
            ),
        ]
        for number, (title, rows) in enumerate(chosen.items())
    ]


def table(evaluation: Evaluation) -> Html:
    """The scores of all systems, each with a bar that is longest at the column's maximum."""
    systems, evaluated = evaluation.systems, evaluation.evaluated
    metrics = evaluation.metrics
    highest = {name: max(s.scores[name] for s in systems.values()) or 1 for name in metrics}

    def cell(name: str, score: float) -> Html:
        fraction = f"--fraction: {score / highest[name]:.3f}"
        above = " above" if score > evaluated.scores[name] else ""
        return tag("td", f"{100 * score:.1f}", class_="bar" + above, style=fraction)

    head = [tag("th", name, scope="col") for name in ["", *metrics, "distinct", "words"]]
    body = [
        tag(
            "tr",
            tag("th", name, scope="row"),
            [cell(metric, system.scores[metric]) for metric in metrics],
            tag("td", f"{system.distinct:,}"),
            tag("td", f"{system.length:.1f}"),
        )
        for name, system in systems.items()
    ]
    return tag("table", tag("thead", tag("tr", head)), tag("tbody", body))


def most_frequent(evaluation: Evaluation) -> Html:
    """The captions of two images or more."""
    items = [
        with_number((caption or "(no words)", f"× {count:,}"))
        for caption, count in evaluation.most_frequent(6)
        if count > 1
    ]
    if not items:
        return Html()
    return tag("figure", tag("figcaption", "Most frequent captions"), tag("ol", items))


def card(evaluation: Evaluation, row: int, gallery: Gallery, weights: numpy.ndarray | None) -> Html:
    """One image with its caption, score and details."""
    name, each = evaluation.images.names[row], evaluation.evaluated.each
    best = evaluation.predictions[row][0]
    verdict = []
    if TRUE in each:
        true = bool(each[TRUE][row])
        text, colour = ("true", "right") if true else ("not true", "wrong")
        verdict = [tag("b", text, class_=colour), " · "]
    verdict.append(f"CIDEr {100 * each['CIDEr'][row]:.1f}")
    return tag(
        "article",
        image_tag(gallery[name], best.text) if name in gallery else None,
        tag("div", caption(best), tag("p", verdict, class_="muted"), details(evaluation, row)),
        maps(evaluation, row, gallery[name], weights)
        if name in gallery and weights is not None
        else None,
    )


def maps(
    evaluation: Evaluation,
    row: int,
    open: Callable[[], Image.Image],
    weights: numpy.ndarray,
) -> Html | None:
    """A foldable section: where the decoder looked for each token of the best caption."""
    assert evaluation.vocabulary is not None
    v, ids = evaluation.vocabulary, evaluation.predictions[row][0].ids
    words = [END if number == v.end else v.words[number] for number in ids]
    preprocessing = (evaluation.images.encoder or {}).get("preprocessing", "")
    try:
        _, *drawn = overlays(open(), weights, preprocessing, MAP)
    except UserError:  # `image_tag` says what is wrong with the image
        return None
    figures = [
        tag("figure", tag("img", src=data_uri(image), alt=""), tag("figcaption", word))
        for image, word in zip(drawn, words, strict=True)
    ]
    summary = tag("summary", "Where it looked, word by word")
    return tag("details", summary, tag("div", figures, class_="maps"), class_="looks")


def image_tag(open: Callable[[], Image.Image], text: str) -> Html:
    """The image, or why it cannot be shown."""
    try:
        return tag("img", src=data_uri(open()), alt=text, loading="lazy")
    except UnusableImage as error:
        return tag("p", str(error), class_="muted")


def details(evaluation: Evaluation, row: int) -> Html:
    """A foldable section: name, candidates, probabilities, references, nearest neighbours."""
    name, references = evaluation.images.names[row], evaluation.images.captions[row]
    candidates = evaluation.predictions[row]
    parts = [tag("summary", "References and more"), tag("p", name, class_="muted")]
    if len(candidates) > 1:
        scored = [(each.text, rounded(each.score)) for each in candidates]
        parts += [tag("h3", "Candidates and their scores"), tag("ol", map(with_number, scored))]
    if candidates[0].probabilities:
        pairs = zip(words_of(candidates[0]), candidates[0].probabilities)
        text = ", ".join(f"{word} {p:.2f}" for word, p in pairs)
        parts += [tag("h3", "Probabilities"), tag("p", text)]
    parts += [tag("h3", "References"), tag("ul", [tag("li", text) for text in references])]
    for system, baseline in evaluation.systems.items():
        if system.startswith("nearest"):
            pair = (baseline.captions[row], f"CIDEr {100 * baseline.each['CIDEr'][row]:.1f}")
            parts += [tag("h3", "Nearest neighbours"), tag("ul", with_number(pair))]
    return tag("details", parts)


def with_number(pair: tuple[str, str]) -> Html:
    """A list item: a text and its number."""
    return tag("li", pair[0], " ", tag("span", pair[1], class_="number"))


def words_of(prediction: Prediction) -> list[str]:
    """Its words and a mark for the end."""
    return [*prediction.text.split(), END]


def caption(prediction: Prediction) -> Html:
    """A caption, with a bar under each word if the probabilities are known."""
    if not prediction.text:
        return tag("p", tag("i", "(no words)"), class_="caption")
    if not prediction.probabilities:
        return tag("p", prediction.text, class_="caption")
    spans = [
        [
            tag(
                "span",
                word,
                class_="word end" if word == END else "word",
                style=f"--p: {p:.3f}",
                title=f"{p:.0%}",
            ),
            " ",
        ]
        for word, p in zip(words_of(prediction), prediction.probabilities)
    ]
    return tag("p", spans, class_="caption")


def rounded(score: float | None) -> str:
    """A candidate's score, if it has one."""
    return "" if score is None else f"{score:.2f}"


def data_uri(image: Image.Image) -> str:
    """Encode an image, scaled down, as a data: URI."""
    small = image.convert("RGB")
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, format="JPEG", quality=82, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
