"""HTML elements: texts are escaped."""

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from minicap.evaluation.html import Html, join, tag


class Reader(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.seen, self.text = [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, name, attributes):
        self.seen.append((name, attributes))

    def handle_data(self, data):
        self.text += data


TEXT = st.text(st.sampled_from("<>&\"' abc;#x/=`\u00e9犬"), max_size=30)


@given(TEXT, TEXT)
def test_any_text_survives_escaping(inside, attribute):
    read = Reader(tag("p", inside, tag("b", inside), title=attribute, class_=None))
    assert read.seen == [("p", [("title", attribute)]), ("b", [])]
    assert read.text == inside * 2


def test_children_attributes_and_html():
    assert tag("p", ["a", ["<"], None], "b", class_="x y", aria_label="1") == (
        '<p class="x y" aria-label="1">a&lt;b</p>'
    )
    assert tag("svg", view_box="0 0 1 1") == '<svg viewBox="0 0 1 1"></svg>'
    assert tag("img", src="a", alt="") == '<img src="a" alt="">'
    assert join([Html("<br>"), "<br>"]) == "<br>&lt;br&gt;"
