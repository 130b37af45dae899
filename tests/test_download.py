"""`minicap download`, with a local server."""

import dataclasses
import hashlib
import io
import os
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from minicap import download
from minicap.data import public
from minicap.data.features import read_features
from minicap.utils import command_line, downloads
from tests.loopback import Server, good, status

ROOT = Path(__file__).parents[1]
NAMES = [f"{number}.jpg" for number in range(12)]
TOKENS = "".join(f"{name}#{k}\ta dog runs here {k}\n" for name in NAMES for k in range(2))


def packed(files: dict[str, bytes | str]) -> bytes:
    """A zip file of these files in memory, independent of the time."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name, content in files.items():
            file.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def jpeg(seed: int) -> bytes:
    import numpy
    from PIL import Image

    out = io.BytesIO()
    pixels = numpy.random.default_rng(seed).integers(0, 256, (20, 30, 3), numpy.uint8)
    Image.fromarray(pixels).save(out, "JPEG")
    return out.getvalue()


TEXTS = {
    "Flickr8k.token.txt": TOKENS,
    "__MACOSX/._Flickr8k.token.txt": "not this one",
    "Flickr_8k.trainImages.txt": "\n".join(NAMES[:8]),
    "Flickr_8k.devImages.txt": "\n".join(NAMES[8:10]),
    "Flickr_8k.testImages.txt": "\n".join(NAMES[10:]),
    "../evil.txt": "outside",
    "readme.txt": "not wanted",
}
PHOTOS = {f"Flicker8k_Dataset/{name}": jpeg(seed) for seed, name in enumerate(NAMES)}


@pytest.fixture
def publish(monkeypatch):
    """Publish zip files (part -> content) on a local server as the parts of Flickr8k in DATA_SETS.

    Returns the server. `answers`: part -> the server's answers, by default `good`.
    """
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(downloads, "PAUSE", 0.001)
    servers = []

    def start(zips: dict[str, bytes], answers: dict | None = None) -> Server:
        real = public.DATA_SETS["flickr8k", 2013]
        lists = {part: list((answers or {}).get(part, [good(zips[part])])) for part in zips}

        def by_path(request):
            part = next(p for p in zips if request.path.endswith(real.parts[p].name))
            answer = lists[part][0]
            if len(lists[part]) > 1:
                lists[part].pop(0)
            server.paths.append(request.path)
            answer(request)

        server = Server(by_path)
        server.paths = []
        servers.append(server)
        base = server.url.rpartition("/")[0]
        parts = {
            part: dataclasses.replace(
                real.parts[part],
                url=f"{base}/{real.parts[part].name}",
                size=len(content),
                md5=hashlib.md5(content).hexdigest(),
            )
            for part, content in zips.items()
        }
        changed = dataclasses.replace(real, parts=parts)
        monkeypatch.setitem(public.DATA_SETS, ("flickr8k", 2013), changed)
        return server

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    """Run the command: exit status, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*words):
        with pytest.raises(SystemExit) as ended:
            command_line.run(lambda: download.main(["flickr8k", *map(str, words)]))
        return ended.value.code, *capfd.readouterr()

    return call


def listed(folder):
    return sorted(path.name for path in folder.iterdir())


ALL = [
    "Flickr8k.token.txt", "Flickr8k_Dataset.zip", "Flickr_8k.devImages.txt",
    "Flickr_8k.testImages.txt", "Flickr_8k.trainImages.txt",
]  # fmt: skip


def test_a_second_run_downloads_nothing(publish, run, tmp_path):
    server = publish({"captions": packed(TEXTS), "photos": packed(PHOTOS)})
    code, out, err = run()
    assert not code, err
    assert listed(tmp_path / "flickr8k") == ALL and listed(tmp_path) == ["flickr8k"]
    assert (tmp_path / "flickr8k/Flickr8k.token.txt").read_text() == TOKENS
    assert (tmp_path / "flickr8k/Flickr8k_Dataset.zip").read_bytes() == packed(PHOTOS)
    sent = server.sent
    code, out, err = run()
    assert not code and server.sent == sent and len(server.paths) == 2
    assert "Flickr8k_text.zip, 0.0 MB, already downloaded" in out and "next" in out


def test_licence_source_and_size_are_printed_before_the_download(publish, run, tmp_path):
    server = publish({"captions": packed(TEXTS), "photos": packed(PHOTOS)})
    code, out, _ = run("--dry-run")
    assert not code and not server.paths and not (tmp_path / "flickr8k").exists()
    assert (
        "research and teaching only" in out
        and "public copy" in out
        and re.search(r"to +flickr8k, [0-9.]+ GB free\n", out)
    )


def test_the_commands_printed_at_the_end_run(publish, run, tmp_path):
    pytest.importorskip("onnxruntime")
    from tests.encoder.test_session import tiny

    publish({"captions": packed(TEXTS), "photos": packed(PHOTOS)})
    code, out, _ = run("--out", "a folder")
    assert not code
    tiny(tmp_path / "inception_v3.onnx")
    export, *lines = re.findall("(?:next)? +minicap (.*)", out)
    assert export == "export" and len(lines) == 2
    more = {"train": ["--epochs", "1", "--min-count", "1", "--out", "model"]}
    for line in lines:
        words = shlex.split(line)
        done = subprocess.run(
            [sys.executable, "-m", "minicap", *words, *more.get(words[0], [])],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    assert len(read_features(tmp_path / "a folder/features").names) == 12
    assert "train 8 images with 16 captions, dev 2 images" in done.stdout
    assert "captions.png" in done.stdout


def test_a_broken_connection_is_resumed_by_the_next_run(publish, run, tmp_path):
    photos = packed(PHOTOS)
    cut = [good(photos, cut=1000), status(503)]
    publish({"captions": packed(TEXTS), "photos": photos}, {"photos": cut})
    code, _, err = run()
    assert code == 1 and "1,000 bytes are kept" in err.splitlines()[-1]
    server = publish({"captions": packed(TEXTS), "photos": photos})
    code, _, err = run()
    assert not code, err
    assert server.sent == len(photos) - 1000
    assert listed(tmp_path / "flickr8k") == ALL


def test_only_the_chosen_parts_are_downloaded(publish, run, tmp_path):
    server = publish({"captions": packed(TEXTS), "photos": packed(PHOTOS)})
    code, out, _ = run("--parts", "photos")
    assert not code and listed(tmp_path / "flickr8k") == ["Flickr8k_Dataset.zip"]
    assert len(server.paths) == 1 and "next" not in out  # without captions nothing can be trained
    code, _, err = run("--parts", "train")
    assert code == 1 and "--parts train: flickr8k only has captions, photos" in err


def test_a_full_disk_is_detected_before_the_download(publish, run, tmp_path, monkeypatch):
    server = publish({"captions": packed(TEXTS), "photos": packed(PHOTOS)})
    monkeypatch.setattr(public, "free_bytes", lambda folder: 1_000_000_000)
    code, _, err = run()
    assert code == 1 and "must be free, but only 1.0 GB are" in err and err.count("\n") == 1
    assert not server.paths and not (tmp_path / "flickr8k").exists()


def test_a_partial_download_needs_only_the_remaining_space(publish, run, tmp_path, monkeypatch):
    photos = packed(PHOTOS)
    publish({"captions": packed(TEXTS), "photos": photos})
    assert not run("--parts", "captions")[0]
    (tmp_path / "flickr8k/Flickr8k_Dataset.zip.part").write_bytes(photos[:2000])
    left = len(photos) - 2000 + public.RESERVE
    monkeypatch.setattr(public, "free_bytes", lambda folder: left - 1)
    assert run()[0] == 1
    monkeypatch.setattr(public, "free_bytes", lambda folder: left)
    assert not run()[0]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"no zip file", "File is not a zip file"),
        (
            packed({"Flickr8k.token.txt": "x"}),
            "Flickr_8k.trainImages.txt is missing in this zip",
        ),
        (
            packed(TEXTS | {"Flickr_8k.testImages.txt": "x" * 5000}),
            "testImages.txt in this zip file is",
        ),
    ],
    ids=["no zip", "a file is missing", "a bomb"],
)
def test_a_wrong_archive_is_refused(publish, run, tmp_path, monkeypatch, content, line):
    monkeypatch.setattr(public, "LARGEST", 4096)
    publish({"captions": content, "photos": packed(PHOTOS)})
    code, _, err = run()
    assert code == 1 and line in err.splitlines()[-1] and "Traceback" not in err
    assert "Flickr8k_text.zip" in listed(tmp_path / "flickr8k")
    assert not [name for name in listed(tmp_path / "flickr8k") if name.endswith(".tmp")]


def test_a_damaged_member(publish, run):
    damaged = bytearray(packed(TEXTS))
    damaged[60] ^= 0xFF
    publish({"captions": bytes(damaged), "photos": packed(PHOTOS)})
    code, _, err = run()
    assert code == 1 and "cannot be unpacked" in err.splitlines()[-1]


def test_a_wrong_checksum_is_refused(publish, run, tmp_path):
    other = packed(TEXTS | {"readme.txt": "changed!!!"})
    publish({"captions": packed(TEXTS), "photos": packed(PHOTOS)}, {"captions": [good(other)]})
    code, _, err = run()
    assert code == 1 and "not the file that was expected" in err
    assert listed(tmp_path / "flickr8k") == []


def test_without_network_the_error_names_the_url(publish, run):
    server = publish({"captions": packed(TEXTS), "photos": packed(PHOTOS)})
    server.close()
    code, _, err = run()
    assert code == 1 and re.search(r"download http:\S+Flickr8k_text.zip by hand and put it at", err)


@pytest.mark.parametrize("key", public.DATA_SETS)
def test_the_records_are_complete(key):
    data = public.DATA_SETS[key]
    assert list(data.parts)[0] == "captions" and data.parts["captions"].files
    urls = [archive.url for archive in data.parts.values()]
    assert len(set(urls)) == len(urls)
    for archive in data.parts.values():
        assert re.fullmatch("[0-9a-f]{32}", archive.md5) and archive.name.endswith(".zip")
    assert len({archive.md5 for archive in data.parts.values()}) == len(urls)
    files = data.parts["captions"].files
    for part, words in data.next.items():
        named = set(re.findall(r"\{folder\}/(\S+\.(?:zip|txt|json))", words))
        assert data.parts[part].name in named
        assert named - {data.parts[part].name} <= set(files)
