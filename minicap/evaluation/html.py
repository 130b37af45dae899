"""HTML and SVG, put together so that no text can become more than text."""

import html
from collections.abc import Iterable


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
    parts: list[str] = []
    for child in children:
        if isinstance(child, Html):
            parts.append(child)
        elif isinstance(child, str):
            parts.append(html.escape(child))
        elif child is not None:
            parts.append(together(child))
    return Html("".join(parts))
