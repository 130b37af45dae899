"""An evaluation as one HTML page that needs nothing but a browser: no script, no network.

Captions and names come from anywhere: `tag` escapes every text that it is given, and the page's
policy forbids scripts and connections besides.
"""

import base64
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from PIL import Image

from minicap.evaluation.evaluation import TRUE, Evaluation, Prediction, describe, facts
from minicap.evaluation.gallery import Gallery
from minicap.evaluation.html import Html, tag
from minicap.evaluation.svg import LOSS, figure, histogram, loss_curves, style_sheet
from minicap.utils.errors import UnusableImage, UserError
from minicap.utils.files import read_lines

SIDE = 320  # pixels of a picture's longer side
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
MEANINGS = {
    "BLEU-1 to 4": "the share of a caption's runs of 1 to 4 words that a reference has too, all "
    "lengths up to that one together; captions shorter than their references lose.",
    "ROUGE-L": "the longest sequence of words, gaps allowed, that caption and reference share.",
    "CIDEr": "likeness to the references in runs of 1 to 4 words, each with more weight the fewer "
    "pictures it is said of (CIDEr-D, as COCO's evaluation has it); 100 is not its end.",
    "METEOR": "words matched with a reference's, synonyms and stems too, and how well in order.",
    "true": "captions that say enough of the drawn scene and nothing that is not so.",
    "distinct": "different captions.",
    "words": "words in a caption.",
    "nearest neighbours": "for each picture, the caption of the training pictures with the most "
    "similar features that agrees best with their other captions.",
    "shuffled features": "the same captions, each under another picture.",
    "most frequent caption": "the commonest caption of the training pictures, for all.",
}
BARS = (
    "The bar under a word is its probability when it was written, from 0 to 1 as long as the word; "
    "the last mark is the caption's end."
)


def read_history(folder: Path) -> list[dict]:
    """The epochs of a run, from the metrics.jsonl in its folder, up to where it becomes
    self-critical, as losses before and after do not compare; none where there is none that says
    train_loss and dev_loss."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    wanted = ("epoch", "train_loss", "dev_loss")
    try:
        lines = [json.loads(line) for line in read_lines(path, "metrics") if line]
        lines = [line for line in lines if "train_reward" not in line]
        history = [{name: float(line[name]) for name in wanted} for line in lines]
    except (UserError, ValueError, TypeError, KeyError):
        return []
    sound = all(map(math.isfinite, (value for line in history for value in line.values())))
    return history if sound else []


def html_report(
    evaluation: Evaluation,
    chosen: Mapping[str, Sequence[int]],
    gallery: Gallery,
    history: Sequence[dict],
) -> str:
    """The whole page. chosen: title -> the rows of the pictures to show under it; history: epochs,
    or none."""
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
        origin(evaluation),
        remarks(evaluation),
        tag("h2", "Scores and baselines"),
        tag("div", table(evaluation), class_="wide"),
        tag("p", "Times 100. A baseline's figure in red is above the first row's.", class_="soft"),
        meanings(evaluation),
        tag("h2", "The captions as a whole"),
        tiles(evaluation),
        drawings(evaluation, history),
        cards(evaluation, chosen, gallery),
    ]
    whole = tag("html", tag("head", head), tag("body", body), lang="en")
    # Half a character, which JSON can hold, cannot be written.
    return f"<!doctype html>\n{whole}\n".encode("utf-8", "replace").decode()


def origin(evaluation: Evaluation) -> list[Html]:
    """What the figures are of."""
    settings = evaluation.settings
    lines = [
        f"{settings['evaluated']}, scored with {settings['captions']}.",
        f"Tokenizer {settings['tokenizer']}; {settings['references']:,} references; "
        f"CIDEr with {settings['CIDEr']}.",
    ]
    if settings.get("generation"):
        lines.append(f"Generated with {describe(settings['generation'])}.")
    return [tag("p", line, class_="soft") for line in lines]


def remarks(evaluation: Evaluation) -> Html:
    """Warnings and notes."""
    warning = tag("b", "Warning: ")
    lines = [tag("p", warning, text, class_="warning") for text in evaluation.warnings]
    return tag("section", lines, [tag("p", note) for note in evaluation.notes], class_="remarks")


def meanings(evaluation: Evaluation) -> Html:
    """Of MEANINGS, what is in the table."""
    absent = {"METEOR", TRUE} - evaluation.evaluated.scores.keys()
    found = [(name, text) for name, text in MEANINGS.items() if name not in absent]
    items = [tag("li", tag("b", name), ": ", text) for name, text in found]
    return tag("details", tag("summary", "What the figures mean"), tag("ul", items))


def tiles(evaluation: Evaluation) -> Html:
    """The facts, beside each other."""
    each = [tag("div", tag("dt", name), tag("dd", value)) for name, value in facts(evaluation)]
    return tag("dl", each, class_="tiles")


def drawings(evaluation: Evaluation, history: Sequence[dict]) -> Html:
    """Curves, if there are two epochs or more, the histogram, and what is repeated."""
    found = [histogram(evaluation.evaluated.each["CIDEr"]), repeated(evaluation)]
    if history and history[-1]["epoch"] > history[0]["epoch"]:
        found.insert(0, figure(LOSS, loss_curves(history)))
    return tag("div", found, class_="side")


def cards(
    evaluation: Evaluation, chosen: Mapping[str, Sequence[int]], gallery: Gallery
) -> list[list[Html]]:
    """The pictures, under their titles; the first title explains the bars, if there are any."""
    hint = tag("p", BARS, class_="soft")
    sure = any(candidates[0].probabilities for candidates in evaluation.predictions)
    return [
        [
            tag("h2", title),
            *([hint] if sure and number == 0 else []),
            tag("div", [card(evaluation, row, gallery) for row in rows], class_="cards"),
        ]
        for number, (title, rows) in enumerate(chosen.items())
    ]


def table(evaluation: Evaluation) -> Html:
    """The scores of all writers, each figure with a bar, as long as its share of the column."""
    rows, judged = evaluation.systems, evaluation.evaluated
    columns = list(judged.scores)
    most = {name: max(row.scores[name] for row in rows.values()) or 1 for name in columns}

    def cell(name: str, score: float) -> Html:
        share = f"--share: {score / most[name]:.3f}"
        above = " above" if score > judged.scores[name] else ""
        return tag("td", f"{100 * score:.1f}", class_="bar" + above, style=share)

    head = [tag("th", name, scope="col") for name in ["", *columns, "distinct", "words"]]
    body = [
        tag(
            "tr",
            tag("th", writer, scope="row"),
            [cell(name, row.scores[name]) for name in columns],
            tag("td", f"{row.distinct:,}"),
            tag("td", f"{row.length:.1f}"),
        )
        for writer, row in rows.items()
    ]
    return tag("table", tag("thead", tag("tr", head)), tag("tbody", body))


def repeated(evaluation: Evaluation) -> Html:
    """The captions that are written most often."""
    items = [
        with_number((caption or "(no words)", f"× {count:,}"))
        for caption, count in evaluation.repeated(6)
        if count > 1
    ]
    if not items:
        return Html()
    return tag("figure", tag("figcaption", "Most frequent captions"), tag("ol", items))


def card(evaluation: Evaluation, row: int, gallery: Gallery) -> Html:
    """One picture with its caption and all that belongs to it."""
    name, judged = evaluation.images.names[row], evaluation.evaluated
    best = evaluation.predictions[row][0]
    true = judged.each[TRUE][row] if TRUE in judged.each else None
    verdict = []
    if true is not None:
        verdict = [
            tag("b", "true" if true else "not true", class_="right" if true else "wrong"),
            " · ",
        ]
    verdict.append(f"CIDEr {100 * judged.each['CIDEr'][row]:.1f}")
    return tag(
        "article",
        picture(gallery[name], best.text) if name in gallery else None,
        tag("div", caption(best), tag("p", verdict, class_="soft"), more(evaluation, row)),
    )


def picture(open: Callable[[], Image.Image], text: str) -> Html:
    """The picture itself, or why it cannot be shown."""
    try:
        return tag("img", src=data_uri(open()), alt=text, loading="lazy")
    except UnusableImage as error:
        return tag("p", str(error), class_="soft")


def more(evaluation: Evaluation, row: int) -> Html:
    """What is told of a picture to those who ask."""
    name, said = evaluation.images.names[row], evaluation.images.captions[row]
    candidates = evaluation.predictions[row]
    told = [tag("summary", "References and more"), tag("p", name, class_="soft")]
    if len(candidates) > 1:
        scored = [(each.text, rounded(each.score)) for each in candidates]
        told += [tag("h3", "Candidates and their scores"), tag("ol", map(with_number, scored))]
    if candidates[0].probabilities:
        pairs = zip(words_of(candidates[0]), candidates[0].probabilities)
        text = ", ".join(f"{word} {p:.2f}" for word, p in pairs)
        told += [tag("h3", "Probabilities"), tag("p", text)]
    told += [tag("h3", "References"), tag("ul", [tag("li", text) for text in said])]
    for writer, floor in evaluation.systems.items():
        if writer.startswith("nearest"):
            found = (floor.captions[row], f"CIDEr {100 * floor.each['CIDEr'][row]:.1f}")
            told += [tag("h3", "Nearest neighbours"), tag("ul", with_number(found))]
    return tag("details", told)


def with_number(pair: tuple[str, str]) -> Html:
    """An item of a list: a text and what it counts for."""
    return tag("li", pair[0], " ", tag("span", pair[1], class_="number"))


def words_of(written: Prediction) -> list[str]:
    """Its words, and a mark for its end."""
    return [*written.text.split(), "∎"]


def caption(written: Prediction) -> Html:
    """A caption, each word with a bar if its probability is known."""
    if not written.text:
        return tag("p", tag("i", "(no words)"), class_="caption")
    if not written.probabilities:
        return tag("p", written.text, class_="caption")
    spans = [
        [
            tag(
                "span",
                word,
                class_="word end" if word == "∎" else "word",
                style=f"--p: {p:.3f}",
                title=f"{p:.0%}",
            ),
            " ",
        ]
        for word, p in zip(words_of(written), written.probabilities)
    ]
    return tag("p", spans, class_="caption")


def rounded(score: float | None) -> str:
    """A candidate's score, if it has one."""
    return "" if score is None else f"{score:.2f}"


def data_uri(image: Image.Image) -> str:
    """A picture, made smaller, inside its own address."""
    small = image.convert("RGB")
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, format="JPEG", quality=82, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
