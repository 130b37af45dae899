"""An evaluation as one HTML page that needs nothing but a browser: no script, no network.

Captions and names come from anywhere: `tag` escapes every text that it is given, and the page's
policy forbids scripts and connections besides.
"""

import base64
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from minicap.errors import UnusableImage, UserError
from minicap.evaluation import TRUE, Evaluation, Written, facts, manner
from minicap.files import read_lines
from minicap.gallery import Gallery
from minicap.markup import Html, tag
from minicap.svg import histogram, loss_curves

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


def page(
    evaluation: Evaluation,
    chosen: Mapping[str, Sequence[int]],
    gallery: Gallery,
    history: Sequence[dict],
) -> str:
    """The whole page. chosen: title -> the rows of the pictures to show under it; history: epochs,
    or none."""
    told = evaluation.settings
    title = f"Captions of {told['pictures']:,} pictures, {told['split']}"
    figures = [histogram(evaluation.judged.each["CIDEr"])]
    if history and history[-1]["epoch"] > history[0]["epoch"]:
        figures.insert(0, loss_curves(history))
    sections = [
        tag(
            "header",
            tag("h1", title),
            tag("p", f"{told['judged']}, judged by {told['captions']}.", class_="soft"),
            tag(
                "p",
                f"Tokenizer {told['tokenizer']}; {told['references']:,} references; "
                f"CIDEr with {told['CIDEr']}.",
                class_="soft",
            ),
            tag("p", f"Written with {manner(told['writing'])}.", class_="soft")
            if told.get("writing")
            else None,
        ),
        tag(
            "section",
            [
                tag("p", tag("b", "Warning: "), warning, class_="warning")
                for warning in evaluation.warnings
            ],
            [tag("p", note) for note in evaluation.notes],
            class_="lot",
        ),
        tag("h2", "Scores beside the floors"),
        tag("div", table(evaluation), class_="wide"),
        tag("p", "Times 100. A floor's figure in red is above the first row's.", class_="soft"),
        tag(
            "details",
            tag("summary", "What the figures mean"),
            tag("ul", [tag("li", tag("b", k), ": ", text) for k, text in meanings(evaluation)]),
        ),
        tag("h2", "The captions as a lot"),
        tag(
            "dl",
            [tag("div", tag("dt", name), tag("dd", value)) for name, value in facts(evaluation)],
            class_="tiles",
        ),
        tag("div", figures, repeated(evaluation), class_="side"),
    ]
    sure = any(candidates[0].probabilities for candidates in evaluation.written)
    for heading, rows in chosen.items():
        cards = [card(evaluation, row, gallery) for row in rows]
        sections += [tag("h2", heading), tag("div", cards, class_="cards")]
        if sure:
            hint = (
                "The bar under a word is its probability when it was written, from 0 to 1 as long "
                "as the word; the last mark is the caption's end."
            )
            sections.insert(-1, tag("p", hint, class_="soft"))
            sure = False
    style = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("title", title),
        tag("style", Html(style)),
    ]
    whole = tag("html", tag("head", head), tag("body", sections), lang="en")
    # Half a character, which JSON can hold, cannot be written.
    return f"<!doctype html>\n{whole}\n".encode("utf-8", "replace").decode()


def meanings(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Of MEANINGS, what is in the table."""
    absent = {"METEOR", TRUE} - evaluation.judged.scores.keys()
    return [(name, text) for name, text in MEANINGS.items() if name not in absent]


def table(evaluation: Evaluation) -> Html:
    """The scores of all writers, each figure with a bar, as long as its share of the column."""
    rows, judged = evaluation.rows, evaluation.judged
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
        tag("li", caption or "(no words)", " ", tag("span", f"× {count:,}", class_="number"))
        for caption, count in evaluation.repeated(6)
        if count > 1
    ]
    if not items:
        return Html()
    return tag("figure", tag("figcaption", "Written most often"), tag("ol", items))


def card(evaluation: Evaluation, row: int, gallery: Gallery) -> Html:
    """One picture with its caption and all that belongs to it."""
    name = evaluation.pictures.names[row]
    best, *rest = evaluation.written[row]
    judged = evaluation.judged
    verdict = f"CIDEr {100 * judged.each['CIDEr'][row]:.1f}"
    true = judged.each[TRUE][row] if TRUE in judged.each else None
    picture: Html | None = None
    if name in gallery:
        try:
            source = data_uri(gallery[name]())
            picture = tag("img", src=source, alt=best.text, loading="lazy")
        except UnusableImage as error:
            picture = tag("p", str(error), class_="soft")
    more = []
    if rest:
        shown = [
            tag("li", other.text, " ", tag("span", figure(other.score), class_="number"))
            for other in (best, *rest)
        ]
        more += [tag("h3", "Candidates and their scores"), tag("ol", shown)]
    if best.probabilities:
        pairs = zip(words_of(best), best.probabilities)
        text = ", ".join(f"{word} {p:.2f}" for word, p in pairs)
        more += [tag("h3", "Probabilities"), tag("p", text)]
    references = [tag("li", text) for text in evaluation.pictures.captions[row]]
    more += [tag("h3", "References"), tag("ul", references)]
    for writer, floor in evaluation.rows.items():
        if writer.startswith("nearest"):
            score = tag("span", f" CIDEr {100 * floor.each['CIDEr'][row]:.1f}", class_="number")
            more += [tag("h3", "Nearest neighbours"), tag("p", floor.captions[row], score)]
    return tag(
        "article",
        picture,
        tag(
            "div",
            caption(best),
            tag(
                "p",
                None
                if true is None
                else tag(
                    "span", "true" if true else "not true", class_="true" if true else "false"
                ),
                None if true is None else " · ",
                verdict,
                class_="soft",
            ),
            tag(
                "details",
                tag("summary", "References and more"),
                tag("p", name, class_="soft"),
                more,
            ),
        ),
    )


def words_of(written: Written) -> list[str]:
    """Its words, and a mark for its end."""
    return [*written.text.split(), "∎"]


def caption(written: Written) -> Html:
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


def figure(score: float | None) -> str:
    """A candidate's score, if it has one."""
    return "" if score is None else f"{score:.2f}"


def data_uri(image: Image.Image) -> str:
    """A picture, made smaller, inside its own address."""
    small = image.convert("RGB")
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, format="JPEG", quality=82, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
