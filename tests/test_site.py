"""The site: it builds without a warning, and a browser renders every page offline.

Chromium opens each page in a frame as wide as a phone, and then wider. It can reach no host except
this test's own server, and each page's requests are checked.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy
import pytest

from minicap.nn.lstm import lstm_step

ROOT = Path(__file__).parents[1]
NAMES = "chromium", "chromium-browser", "google-chrome"
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--no-first-run",
    "--enable-logging=stderr",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
WIDTHS = [390, 800, 1100]  # pixels: a phone, a tablet, a small screen

HARNESS = """<!doctype html><meta charset="utf-8">
<title>check</title><link rel="icon" href="data:,"><script>
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
async function look(page) {
  const frame = document.createElement("iframe");
  frame.width = WIDTHS[0]; frame.height = 800;
  frame.src = page;
  const loaded = new Promise((done) => (frame.onload = done));
  document.body.append(frame);
  await loaded;
  const inner = frame.contentDocument, article = inner.querySelector("article") || inner.body;
  const all = (selector) => [...article.querySelectorAll(selector)];
  const mathjax = () => frame.contentWindow.MathJax?.startup?.promise;
  for (let k = 0; k < 100 && all(".math").length && !mathjax(); k++) await wait(50);
  await mathjax();
  const width = (e) => e.getBoundingClientRect().width;
  for (const image of all("img")) { image.loading = "eager"; await image.decode().catch(() => 0); }
  const found = {
    page,
    math: all(".math").length,
    drawn: all(".math mjx-container > svg").filter((e) => width(e) > 3).length,
    containers: all(".math").filter((e) => e.querySelector("mjx-container > svg")).length,
    bad: all("[data-mml-node=merror]").length,
    images: all("img").length,
    shown: all("img").filter((e) => e.naturalWidth && width(e) > 30).length,
    outside: frame.contentWindow.performance.getEntriesByType("resource")
      .map((e) => e.name).filter((name) => !/^(data|blob):/.test(name))
      .filter((name) => !name.startsWith(location.origin)),
    wide: WIDTHS.map((width) => {
      frame.width = width;
      return inner.documentElement.scrollWidth;
    }),
  };
  const figure = inner.querySelector(".lstm-step");
  if (figure) found.steps = STEPS.map((inputs) => {
    for (const slider of figure.querySelectorAll("input")) {
      slider.value = inputs[slider.dataset.name];
      slider.dispatchEvent(new Event("input", {bubbles: true}));
    }
    return JSON.parse(figure.dataset.values);
  });
  frame.remove();
  return found;
}
addEventListener("load", async () => {
  const found = [];
  for (const page of PAGES) found.push(await look(page));
  await fetch("/result", {method: "POST", body: JSON.stringify(found)});
});
</script><body></body>"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site. Warnings, for example about dead links, are errors."""
    for name in ("sphinx", "furo", "myst_parser"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"the site needs {name} (extra: docs)")
    place = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "-n", "-q", "-d", place / "doctrees"]
    done = subprocess.run(
        [*command, ROOT / "docs", place / "html"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return place / "html"


def pages_of(site):
    return sorted(str(path.relative_to(site)) for path in site.rglob("*.html"))


@pytest.mark.slow
def test_site_builds_without_a_warning(site):
    pages = pages_of(site)
    assert "index.html" in pages and "reference/minicap.nn.lstm.html" in pages
    assert len([page for page in pages if page.startswith("walkthrough/")]) >= 6


class Server(SimpleHTTPRequestHandler):
    """Serves the site and the harness, receives the result, and records errors."""

    def do_GET(self):
        if self.path == "/check.html":
            body = self.server.harness.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        else:
            super().do_GET()

    def do_POST(self):
        self.server.result = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()
        self.server.done.set()

    def log_message(self, *arguments):
        pass

    def log_error(self, form, *arguments):
        self.server.errors.append(form % arguments)


@pytest.mark.slow
def test_browser_renders_every_page(site, tmp_path):
    """All formulas and images, within the frame, without errors or requests to other hosts."""
    if CHROMIUM is None:
        pytest.skip("no Chromium: apt-get install chromium")
    pages = [page for page in pages_of(site) if page != "search.html"]
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Server, directory=str(site)))
    server.errors, server.result = [], None
    server.done = threading.Event()
    rng = numpy.random.default_rng(0)
    names = "z_i", "z_j", "z_f", "z_o", "c", "dh", "dc"
    steps = [dict(zip(names, rng.uniform(-2, 2, 7).round(2), strict=True)) for _ in range(5)]
    server.harness = HARNESS
    for name, value in ("PAGES", pages), ("WIDTHS", WIDTHS), ("STEPS", steps):
        server.harness = server.harness.replace(name, json.dumps(value))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    log = tmp_path / "chromium.log"
    with open(log, "wb") as output:
        browser = subprocess.Popen(
            [
                CHROMIUM,
                *FLAGS,
                f"--user-data-dir={tmp_path / 'profile'}",
                f"{address}/check.html",
            ],
            stdout=output,
            stderr=output,
        )
        try:
            assert server.done.wait(300), log.read_text(errors="replace")[-4000:]
        finally:
            browser.terminate()
            browser.wait(30)
            server.shutdown()
    console = [line for line in log.read_text(errors="replace").splitlines() if "CONSOLE" in line]
    assert server.errors == []
    assert console == []
    found = {entry["page"]: entry for entry in server.result}
    assert list(found) == pages
    for page, entry in found.items():
        assert entry["math"] == entry["containers"] <= entry["drawn"] and entry["bad"] == 0, page
        assert entry["images"] == entry["shown"], page
        assert entry["outside"] == [], page
        for width, wide in zip(WIDTHS, entry["wide"], strict=True):
            assert wide <= width, f"{page} is {wide} pixels wide in a frame of {width}"
    chapters = [entry for page, entry in found.items() if page.startswith("walkthrough/0")]
    assert sum(entry["math"] for entry in chapters) > 100
    assert all(entry["images"] for entry in chapters)
    shown = found["walkthrough/06-lstm-backward.html"]["steps"]
    assert [step["inputs"] for step in shown] == steps
    for step in shown:
        assert_step_is_minicap_s(**step)


def assert_step_is_minicap_s(inputs, forward, backward):
    """The interactive figure's numbers, which the browser has computed, are those of the layer."""
    z = numpy.array([[inputs[f"z_{gate}"] for gate in "ijfo"]])
    gates = numpy.empty_like(z)
    h, c, step_backward = lstm_step(z, numpy.array([[inputs["c"]]]), out=gates)
    expected = [*gates[0].copy(), c[0, 0], h[0, 0]]
    numpy.testing.assert_allclose([*forward.values()], expected, rtol=0, atol=1e-12)
    dz, dc = step_backward(numpy.array([[inputs["dh"]]]), numpy.array([[inputs["dc"]]]))
    numpy.testing.assert_allclose([*backward.values()], [*dz[0], dc[0, 0]], rtol=0, atol=1e-12)
