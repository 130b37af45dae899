"""Build HTML and SVG so that every text is escaped."""

import html
from collections.abc import Iterable


class Html(str):
    """Text that already is HTML, and so is not escaped."""


def tag(name: str, /, *children: "str | Iterable | None", **attributes: object) -> Html:
    """Build an element.

    Args:
        name: of the element.
        children: texts, which are escaped; Html, which is not; None, which is left out; or
            iterables of these.
        attributes: named as in HTML, with `_` for `-`, `class_` for `class` and `view_box` for
            `viewBox`. Those that are None are left out.

    Example:
        >>> tag("p", "a < b", class_="note")
        '<p class="note">a &lt; b</p>'
    """
    names = {"class_": "class", "view_box": "viewBox"}
    pairs = "".join(
        f' {names.get(key, key.replace("_", "-"))}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in ("img", "meta"):
        return Html(f"<{name}{pairs}>")
    return Html(f"<{name}{pairs}>{join(children)}</{name}>")


def join(children: Iterable) -> Html:
    """Concatenate children as `tag` takes them."""
    parts: list[str] = []
    for child in children:
        if isinstance(child, Html):
            parts.append(child)
        elif isinstance(child, str):
            parts.append(html.escape(child))
        elif child is not None:
            parts.append(join(child))
    return Html("".join(parts))
