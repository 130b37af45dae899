"""An evaluation as one HTML page that needs nothing but a browser: no script, no network.

Captions and names come from anywhere. `tag` escapes every text that it is given, so that no caption
can be more than text; the page's policy forbids scripts and connections besides.
"""

import base64
import html
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from PIL import Image

from minicap.errors import UnusableImage, UserError
from minicap.evaluation import TRUE, Evaluation, Written, facts
from minicap.files import read_lines
from minicap.gallery import Gallery
from minicap.report import ticks

SIDE = 320  # pixels of a picture's longer side
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
MEANINGS = {
    "BLEU-1 to 4": "the share of a caption's runs of 1 to 4 words that a reference has too, all "
    "lengths up to that one together; captions shorter than their references lose.",
    "ROUGE-L": "the longest sequence of words, gaps allowed, that a caption shares with a reference.",
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


class Html(str):
    """Text that is HTML already."""


def tag(name: str, /, *children: "str | Iterable | None", **attributes: object) -> Html:
    """An element. Children are texts, which are escaped, Html, or several of these; attributes are
    named as in HTML, `class_` for class and `view_box` for viewBox; those that are None are left
    out."""
    names = {"class_": "class", "view_box": "viewBox"}
    opened = "".join(
        f' {names.get(key, key.replace("_", "-"))}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in ("img", "meta"):
        return Html(f"<{name}{opened}>")
    return Html(f"<{name}{opened}>{together(children)}</{name}>")


def together(children: Iterable) -> Html:
    """Children beside each other."""
    parts = []
    for child in children:
        if isinstance(child, Html):
            parts.append(child)
        elif isinstance(child, str):
            parts.append(html.escape(child))
        elif child is not None:
            parts.append(together(child))
    return Html("".join(parts))


def read_history(folder: Path) -> list[dict]:
    """The epochs of a run, from the metrics.jsonl in its folder; none where there is none that
    says train_loss and dev_loss."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    try:
        lines = [json.loads(line) for line in read_lines(path, "metrics") if line]
        wanted = ("epoch", "train_loss", "dev_loss")
        return [{name: float(line[name]) for name in wanted} for line in lines]
    except (UserError, ValueError, TypeError, KeyError):
        return []


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
    if len(history) > 1:
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
        ),
        tag(
            "section",
            [tag("p", warning, class_="warning") for warning in evaluation.warnings],
            [tag("p", note) for note in evaluation.notes],
            class_="lot",
        ),
        tag("h2", "Scores beside the floors"),
        tag("div", table(evaluation), class_="wide"),
        tag("p", "Times 100. A floor's figure in red is above the first row's.", class_="soft"),
        tag(
            "details",
            tag("summary", "What the figures mean"),
            tag("ul", [tag("li", tag("b", k), ": ", text) for k, text in MEANINGS.items()]),
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
        for caption, count in evaluation.repeated(8)
    ]
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
            score = f" {100 * floor.each['CIDEr'][row]:.1f}"
            score = tag("span", score, class_="number")
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


WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 480, 260, 44, 14, 12, 34


def plot(title: str, shapes: Iterable[Html]) -> Html:
    """A drawing with a title."""
    drawing = tag("svg", shapes, view_box=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=title)
    return tag("figure", tag("figcaption", title), drawing)


def loss_curves(history: Sequence[dict]) -> Html:
    """Train and dev loss against epochs, two or more."""
    losses = [line[key] for line in history for key in ("train_loss", "dev_loss")]
    margin = 0.05 * (max(losses) - min(losses)) + 1e-6
    low, high = min(losses) - margin, max(losses) + margin
    first, last = history[0]["epoch"], history[-1]["epoch"]

    def at(epoch: float, loss: float) -> tuple[float, float]:
        x = LEFT + (epoch - first) / (last - first) * (WIDTH - LEFT - RIGHT)
        return x, TOP + (high - loss) / (high - low) * (HEIGHT - TOP - BOTTOM)

    shapes = []
    for loss in ticks(low, high):
        _, y = at(first, loss)
        shapes.append(
            tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=f"{y:.1f}", y2=f"{y:.1f}", class_="grid")
        )
        shapes.append(tag("text", f"{loss:.4g}", x=LEFT - 6, y=f"{y + 4:.1f}", text_anchor="end"))
    for epoch in ticks(first, last, 8):
        if epoch == int(epoch):
            x, _ = at(epoch, low)
            shapes.append(
                tag("text", f"{epoch:.0f}", x=f"{x:.1f}", y=HEIGHT - 16, text_anchor="middle")
            )
    for key, colour in (("train_loss", "cool"), ("dev_loss", "warm")):
        points = [at(line["epoch"], line[key]) for line in history]
        shapes.append(
            tag("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points), class_=colour)
        )
    best = min(history, key=lambda line: line["dev_loss"])
    x, y = at(best["epoch"], best["dev_loss"])
    shapes.append(tag("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=4, class_="warm"))
    for place, (text, colour) in enumerate(
        (("train", "cool"), (f"dev, best {best['dev_loss']:.3f}", "warm"))
    ):
        y = TOP + 14 + 18 * place
        shapes.append(
            tag(
                "line",
                x1=WIDTH - 160,
                x2=WIDTH - 138,
                y1=y - 4,
                y2=y - 4,
                stroke_width=2.5,
                class_=colour,
            )
        )
        shapes.append(tag("text", text, x=WIDTH - 132, y=y))
    return plot("Loss in nats per word, by epoch", shapes)


def histogram(cider: Sequence[float], step: int = 10, bins: int = 16) -> Html:
    """How many pictures have which CIDEr, times 100; the last bar has all above."""
    counts = [0] * bins
    for score in cider:
        counts[min(bins - 1, int(100 * score / step))] += 1
    wide = (WIDTH - LEFT - RIGHT) / bins
    scale = (HEIGHT - TOP - BOTTOM) / max(counts)
    shapes = []
    for count in ticks(0, max(counts), 4):
        y = f"{HEIGHT - BOTTOM - count * scale:.1f}"
        shapes.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid"))
        shapes.append(tag("text", f"{count:,.4g}", x=LEFT - 6, y=float(y) + 4, text_anchor="end"))
    for place, count in enumerate(counts):
        x, tall = LEFT + place * wide, count * scale
        bar = tag("title", f"{count:,}")
        shapes.append(
            tag(
                "rect",
                bar,
                x=f"{x + 1:.1f}",
                y=f"{HEIGHT - BOTTOM - tall:.1f}",
                width=f"{wide - 2:.1f}",
                height=f"{tall:.1f}",
            )
        )
        if place % 5 == 0 or place == bins - 1:
            label = f"{place * step}" + "+" * (place == bins - 1)
            shapes.append(
                tag(
                    "text",
                    label,
                    x=f"{x + wide / 2 * (place == bins - 1):.1f}",
                    y=HEIGHT - 16,
                    text_anchor="middle",
                )
            )
    return plot("Pictures by their CIDEr", shapes)
