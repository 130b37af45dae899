"""The page in a real browser, as a user works with it: by mouse, by keyboard, on a phone."""

import contextlib
import json
import os
import re
import subprocess
import sys

import pytest

from minicap.evaluation.attention_maps import COLOURS
from minicap.server.app import PAGE
from minicap.server.samples import drawn_samples
from tests.server.conftest import noise
from tests.test_caption import save_encoder
from tests.test_site import CHROMIUM, FLAGS
from tests.tiny import ATTENTION, model

pytestmark = pytest.mark.slow
playwright = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")
CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]


@contextlib.contextmanager
def serving(folder, model):
    """Run a server with a model; yields its address."""
    encoder = save_encoder(folder / "encoder.onnx")
    model.save(folder / "model.safetensors")
    command = [sys.executable, "-m", "minicap", "serve", "--port=0", f"--encoder={encoder}"]
    process = subprocess.Popen(
        [*command, f"--model={folder / 'model.safetensors'}"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    lines = [process.stdout.readline() for _ in range(2)]
    yield re.search(r"http://\S+", lines[1])[0]
    process.terminate()
    process.wait(30)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("lab"), model()) as running:
        yield running


@pytest.fixture(scope="module")
def attending(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("lab"), model(**ATTENTION)) as running:
        yield running


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium: apt-get install chromium")
    flags = [flag for flag in FLAGS if flag not in ("--headless", "--enable-logging=stderr")]
    with playwright.sync_playwright() as running:
        launched = running.chromium.launch(executable_path=CHROMIUM, args=[*flags, *CAMERA])
        yield launched
        launched.close()


@pytest.fixture
def open_lab(browser, address):
    """Open the lab in a new window; at the end: nothing in the console, no outside requests."""
    seen = []

    @contextlib.contextmanager
    def opened(width=1280, height=900, address=address, **settings):
        context = browser.new_context(
            viewport={"width": width, "height": height}, reduced_motion="reduce", **settings
        )
        page = context.new_page()
        page.on("console", lambda message: seen.append(message.text))
        page.on("pageerror", lambda error: seen.append(str(error)))
        page.on(
            "request", lambda sent: sent.url.startswith((address, "blob:")) or seen.append(sent.url)
        )
        page.goto(address)
        page.wait_for_selector("#samples button")
        yield page
        context.close()

    yield opened
    assert seen == []


def words(page):
    """The caption's words, once all are there."""
    page.wait_for_selector("body:not(.busy) #words[data-done]")
    return [text.split("\n")[0] for text in page.locator("#words button").all_inner_texts()]


def upload(page, content=None, name="photo.jpg"):
    file = {"name": name, "mimeType": "image/jpeg", "buffer": content or noise()}
    page.set_input_files("#file", [file])


def check_accessible(page):
    found = axe.Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_upload_click_a_word_and_take_another(open_lab):
    with open_lab() as page:
        upload(page)
        before = words(page)
        page.locator("#words button").nth(1).click()
        offered = page.locator("#alternatives button")
        taken = offered.nth(1).get_attribute("aria-label").split()[1].rstrip(",")
        assert taken != before[1]
        offered.nth(1).click()
        page.wait_for_function(
            "state => document.querySelector('#restart').hidden === false", arg=0
        )
        after = words(page)
        assert after[0] == before[0] and after[1] == taken
        assert page.locator("#words .mine").count() == 2
        page.click("#restart")
        page.wait_for_selector("#restart", state="hidden")
        assert words(page) == before


def test_the_end_can_be_taken_too(open_lab):
    with open_lab() as page:
        upload(page)
        words(page)
        page.locator("#words button").nth(1).click()
        page.locator("#alternatives button", has_text="end the caption").click()
        assert len(words(page)) == 2 and words(page)[1] == "end"


def test_settings_act_at_once(open_lab):
    with open_lab() as page:
        upload(page)
        beam = words(page)
        assert page.locator("#beam").is_visible()
        assert page.locator("#tree .node.best").count() == len(beam)
        page.check("input[value=sampling]")
        page.wait_for_selector("#beam", state="hidden")
        found = set()
        for temperature in "1.5", "2":
            with page.expect_response(re.compile(f"temperature={temperature}")):
                page.locator("[name=temperature]").fill(temperature)
            found.add(tuple(words(page)))
        for _ in range(4):
            with page.expect_response("**/api/caption*"):
                page.click("#again")
            found.add(tuple(words(page)))
        assert len(found) > 1
        page.click("#defaults")
        page.wait_for_selector("#beam", state="visible")
        assert words(page) == beam


def test_greedy_is_a_beam_of_one(open_lab):
    with open_lab() as page:
        upload(page)
        words(page)
        page.locator("[name=beam_size]").fill("1")
        page.wait_for_function("() => !document.querySelector('#others ol li')")
        words(page)
        shown = page.locator("#settings label", has_text="Beam size").locator("output")
        assert shown.inner_text() == "greedy"


def test_samples_tree_and_cells(open_lab):
    with open_lab() as page:
        assert page.locator("#samples button").count() == len(drawn_samples())
        page.locator("#samples button").nth(2).click()
        words(page)
        assert page.locator("#samples [aria-pressed=true]").count() == 1
        page.locator("#step").fill("0")
        later = page.locator("#tree .node.later").count()
        assert later and page.locator("#tree .node:not(.later)").count()
        page.click("#play")
        page.wait_for_function("() => !document.querySelector('#tree .node.later')")
        assert page.locator("#tree .node.dropped").count()
        assert page.locator("#charts figure").count() == 6
        page.fill("#cells", "2, 5")
        page.click("#choose-cells button")
        page.wait_for_function("() => document.querySelectorAll('#charts figure').length === 2")
        assert page.locator("#charts figcaption").nth(1).inner_text().startswith("Cell 5 ")


def test_keyboard_only(open_lab):
    """Tab reaches the sample, the words, the alternatives; Enter and arrows act."""
    with open_lab() as page:

        def tab_to(selector, limit=60):
            for _ in range(limit):
                page.keyboard.press("Tab")
                if page.evaluate("s => document.activeElement.matches(s)", selector):
                    return
            pytest.fail(f"Tab does not reach {selector}")

        tab_to("#file")
        tab_to("#samples button")
        page.keyboard.press("Enter")
        before = words(page)
        tab_to("[name=beam_size]")
        with page.expect_response("**/api/caption*beam_size=6*"):
            page.keyboard.press("ArrowRight")
        words(page)
        tab_to("#words button:nth-child(2)")
        page.keyboard.press("Enter")
        tab_to("#alternatives li:nth-child(2) button")
        page.keyboard.press("Enter")
        page.wait_for_selector("#restart", state="visible")
        after = words(page)
        assert after[0] == before[0] or len(before) == 1
        page.wait_for_function("() => document.activeElement.matches('#words button')")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_readable_for_everybody(open_lab, scheme, width):
    """axe finds nothing: labels, contrast, roles. Nothing is wider than the screen."""
    with open_lab(width, color_scheme=scheme) as page:
        check_accessible(page)
        upload(page)
        words(page)
        page.locator("#words button").nth(0).click()
        check_accessible(page)
        page.check("input[value=sampling]")
        page.wait_for_selector("#beam", state="hidden")
        words(page)
        check_accessible(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_errors_are_shown_in_words(open_lab):
    with open_lab() as page:
        upload(page, bytes(16_000_001))
        assert "The limit is 16 MB" in page.locator("#error").inner_text()
        upload(page)
        words(page)
        page.fill("#cells", "many")
        # Replaced, because the browser reports the real status 400 in its console.
        page.evaluate("""() => (window.fetch = async () =>
            new Response('{"error": "in words"}', {status: 400}))""")
        page.click("#choose-cells button")
        page.wait_for_function("() => document.querySelector('#error').textContent === 'in words'")


def test_paste_and_drop(open_lab):
    give = """([kind, target]) => {
      const canvas = document.createElement("canvas");
      canvas.width = canvas.height = 50;
      return new Promise((done) => canvas.toBlob((blob) => {
        const data = new DataTransfer();
        data.items.add(new File([blob], "a.png", {type: "image/png"}));
        const event = kind === "paste"
          ? new ClipboardEvent("paste", {clipboardData: data, bubbles: true})
          : new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true});
        document.querySelector(target).dispatchEvent(event);
        done();
      }));
    }"""
    for kind, target in ("paste", "body"), ("drop", "#stage"):
        with open_lab() as page:
            page.evaluate(give, [kind, target])
            assert words(page)
            assert page.locator("#shown").is_visible()


def test_the_camera(open_lab):
    with open_lab(permissions=["camera"]) as page:
        page.click("#camera")
        page.wait_for_function("() => document.querySelector('video').videoWidth > 0")
        check_accessible(page)
        page.click("#shoot")
        assert words(page)
        assert page.locator("#viewfinder").is_hidden()


def drawn(page):
    """The map's colours, as a list of RGBA values; None if no map is shown."""
    return page.evaluate(
        """() => { const map = document.querySelector("#map");
        if (map.hidden) return null;
        const { data } = map.getContext("2d").getImageData(0, 0, map.width, map.height);
        return [map.width, map.height, ...data]; }"""
    )


def test_a_selected_word_shows_where_the_model_looked(open_lab, attending):
    with open_lab(address=attending) as page:
        assert page.locator("#map").is_hidden() and page.locator("#legend").is_hidden()
        upload(page)
        shown = words(page)
        assert drawn(page) is None and page.locator("#legend").is_visible()
        first = page.locator("#words button").nth(0)
        first.click()
        width, height, *pixels = drawn(page)
        assert width == height == 32 and len({tuple(pixels[i : i + 3]) for i in (0, 124)}) == 2
        photo, over = page.locator("#shown").bounding_box(), page.locator("#map").bounding_box()
        assert photo == over, "the map covers the photo"
        check_accessible(page)
        if len(shown) > 1:
            page.locator("#words button").nth(1).click()
            assert drawn(page)[2:] != pixels
            page.locator("#words button").nth(1).click()
        else:
            first.click()
        assert drawn(page) is None, "selecting it again shows the photo alone"


def test_a_model_without_attention_shows_no_map(open_lab):
    with open_lab() as page:
        upload(page)
        words(page)
        page.locator("#words button").nth(0).click()
        assert drawn(page) is None and page.locator("#legend").is_hidden()


def test_the_page_and_the_pictures_have_the_same_colours():
    listed = re.search(r"COLOURS = (\[\[.+?\]\]);", (PAGE / "lab.js").read_text())[1]
    assert json.loads(listed) == COLOURS.tolist()
    style = (PAGE / "lab.css").read_text()
    assert ", ".join(f"#{int(r):02x}{int(g):02x}{int(b):02x}" for r, g, b in COLOURS) in style
