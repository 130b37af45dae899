"""Every reader of a user's file, on damaged files: it reads them or refuses them in one line.

Each input is a good file with a few random changes. `MINICAP_FUZZ=10000` tries that many of each.
"""

import json
import os
import resource
import time
import zipfile
from pathlib import Path

import numpy
import pytest
from PIL import Image

from minicap.data.captions import read_captions, read_names
from minicap.data.features import Features, read_features
from minicap.data.results import image_ids, read_results
from minicap.data.store import FeatureStore
from minicap.encoder.image import load_image
from minicap.encoder.photos import find_photos
from minicap.encoder.session import Encoder
from minicap.encoder.weight_files import read_weights
from minicap.encoder.wrap import Wrapping, wrap
from minicap.model import checkpoint
from minicap.model.trained_model import Model
from minicap.utils.errors import UserError, plain, short
from tests.tiny import model

pytestmark = pytest.mark.slow
COUNT = int(os.environ.get("MINICAP_FUZZ", "150"))
MEMORY = 3 << 30  # bytes that a reader may allocate
SECONDS = 20  # that it may take, on a busy machine

# What means something in one of the formats.
TOKENS = [
    b'"', b"'", b",", b";", b"\t", b"|", b"\n", b"\r", b"\r\n", b"\0", b"{", b"}", b"[", b"]", b":",
    b"[" * 5000, b'{"a":' * 5000, b"null", b"-1", b"1e999", b"NaN", b"9" * 400, b"\\ud800", b"\\",
    b"\xef\xbb\xbf", b"\xff\xfe", b"\xff", b"\xe2\x80\xa8", b"image", b"caption", b"split", b"#0",
    b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80", b"PK\x03\x04", b"\x1f\x8b\x08",
    b"\xff\xd8", b"\xff\xd9", b"\xff\xda", b"IDAT", b"ftypheic", b"../../x", b" ", b"a" * 3000,
]  # fmt: skip


def damaged(content: bytes, rng: numpy.random.Generator) -> bytes:
    """Change a file in one to four places."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        size = len(data)
        start, other = rng.integers(0, size + 1, 2)
        length = int(rng.choice([1, 2, 4, 30, 1000]))
        match rng.integers(0, 6):
            case 0 if size:
                data[start % size] = rng.integers(256)
            case 1:
                data[start:start] = TOKENS[rng.integers(len(TOKENS))]
            case 2:
                token = TOKENS[rng.integers(len(TOKENS))]
                data[start : start + len(token)] = token
            case 3:
                del data[start : start + length]
            case 4:
                data[start:start] = data[other : other + length]
            case 5 if rng.random() < 0.3:
                del data[start:]
    return bytes(data)


def caption_files(folder: Path) -> None:
    names = [f"{n}.jpg" for n in range(6)]
    (folder / "flickr.txt").write_text(
        "".join(f"{n}#{k}\tA dog .\n" for n in names for k in (0, 1))
    )
    for name, mark in ("comma", ","), ("semicolon", ";"), ("tab", "\t"), ("bar", "| "):
        rows = [["image", "caption", "split"]] + [[n, f'"A {mark} dog"', "train"] for n in names]
        (folder / f"{name}.csv").write_text("\n".join(map(mark.join, rows)))
    (folder / "excel.csv").write_bytes(b"sep=;\r\nname;comment\r\n1.jpg;\xc3\x84 dog\r\n")
    images = [{"id": n, "file_name": name} for n, name in enumerate(names)]
    annotations = [{"image_id": n, "caption": "A dog."} for n in range(6)]
    for name, content in {
        "coco": {"images": images, "annotations": annotations},
        "karpathy": {
            "images": [
                {"filename": n, "split": "val", "sentences": [{"raw": "A dog", "tokens": ["a"]}]}
                for n in names
            ]
        },
        "neuraltalk": [{"file_path": n, "captions": ["A dog", "A cat"]} for n in names],
        "dictionary": {n: ["A dog", "A cat"] for n in names},
    }.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    lines = [json.dumps({"image": n, "caption": "A dog"}) for n in names]
    (folder / "lines.jsonl").write_text("\n".join(lines))
    (folder / "results.json").write_text(
        json.dumps([{"image_id": n, "caption": "a dog"} for n in range(6)])
    )


def feature_files(folder: Path) -> None:
    rng = numpy.random.default_rng(0)
    array = rng.normal(size=(20, 5)).astype("float32")
    features = Features([f"{n}.jpg" for n in range(20)], array, {"id": "a", "name": "b"})
    features.save(folder / "plain.npz")
    features.save(folder / "compressed.npz", rng.normal(size=(5, 3)))
    about = {"id": "a", "name": "b", "preprocessing": "c", "feature_size": 5}
    store = FeatureStore.create(folder / "store", features.names, about, 4)
    list(store.fill((start, array[start : start + 4], {}) for start in range(0, 20, 4)))


def picture_files(folder: Path) -> None:
    rng = numpy.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (24, 31, 3), dtype="uint8"))
    for ending in "jpg", "png", "gif", "bmp", "tif", "webp", "ppm", "tga", "avif", "heic":
        try:
            if ending == "heic":
                pytest.importorskip("pillow_heif").register_heif_opener()
            image.save(folder / f"image.{ending}")
        except (ValueError, OSError, KeyError):  # this build of Pillow cannot write it
            (folder / f"image.{ending}").unlink(missing_ok=True)
    image.save(folder / "progressive.jpg", progressive=True)
    with zipfile.ZipFile(folder / "photos.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.write(folder / "image.jpg", "a/image.jpg")
        packed.write(folder / "image.png", "b.png")
    (folder / "list.txt").write_text("a.jpg\nb/c.jpg\n")


def other_files(folder: Path) -> None:
    model({"id": "a", "name": "b"}).save(folder / "model.safetensors")
    arrays, about = checkpoint.load(folder / "model.safetensors", "model")
    checkpoint.save(folder / "run.safetensors", "run", arrays, about | {"options": {}})


def weight_files(folder: Path) -> None:
    from safetensors.numpy import save_file

    from tests.encoder.published import light_weights, state_dict, write_keras

    small = {
        name: array[:1].copy() for name, array in state_dict(light_weights()).items() if array.shape
    }
    save_file(small, folder / "weights.safetensors")
    h5py = pytest.importorskip("h5py")
    write_keras(folder / "weights.h5", light_weights())
    with h5py.File(folder / "other.h5", "w") as file:
        file["conv2d/kernel:0"] = numpy.zeros((3, 3, 3, 2))


def network_files(folder: Path) -> None:
    from tests.encoder.test_session import tiny
    from tests.encoder.test_wrap import network

    tiny(folder / "encoder.onnx")
    network(folder / "network.onnx")


def read_store(path: Path) -> None:
    read_features(path.parent)


def read_photos(path: Path) -> None:
    photos = find_photos(path)
    for name in photos.names[:3]:
        load_image(photos.open(name))


READERS = {
    caption_files: {
        "results.json": lambda path: read_results(path, image_ids(["0", "1"], {})),
        "": read_captions,
    },
    feature_files: {"": read_features},
    picture_files: {"photos.zip": read_photos, "list.txt": read_names, "": load_image},
    other_files: {"run.safetensors": lambda path: checkpoint.load(path, "run"), "": Model.load},
    weight_files: {"": read_weights},
    network_files: {"encoder.onnx": Encoder, "": lambda path: wrap(path, Wrapping(), "x")},
}


@pytest.fixture
def bounded_memory():
    """Allocating much more than the process has fails."""
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    old = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, old[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, old)


def refuses_in_one_line(read, path: Path) -> bool:
    """Whether a reader refuses a file. Anything but a UserError of one line fails the test."""
    start = time.monotonic()
    try:
        read(path)
        refused = False
    except UserError as error:
        text = plain(short(str(error)))
        assert text.strip() and "\n" not in text and len(text) < 4000, text  # with escapes
        refused = True
    assert time.monotonic() - start < SECONDS
    return refused


@pytest.mark.parametrize("make", READERS, ids=lambda make: make.__name__)
def test_damaged_files(make, tmp_path, bounded_memory):
    """Some are refused, some are read, and each file in its turn."""
    good = tmp_path / "good"
    good.mkdir()
    make(good)
    paths = sorted(path for path in good.rglob("*") if path.is_file())
    rng = numpy.random.default_rng(int(os.environ.get("MINICAP_FUZZ_SEED", "0")))
    refused = 0
    for number in range(COUNT):
        source = paths[number % len(paths)]
        reader = READERS[make].get(source.name) or READERS[make][""]
        content = damaged(source.read_bytes(), rng)
        if source.parent != good:  # one file of a feature store
            place, reader = source, read_store
            kept = source.read_bytes()
        else:
            place, kept = tmp_path / source.name, None
        place.write_bytes(content)
        try:
            refused += refuses_in_one_line(reader, place)
        except BaseException:
            (tmp_path / "failing").write_bytes(content)
            print(f"{number}: {source.name}, kept at {tmp_path / 'failing'}")
            raise
        finally:
            if kept is not None:
                source.write_bytes(kept)
    assert 0 < refused < COUNT
