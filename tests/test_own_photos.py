"""docs/own-photos.md, run from the first command to the last on real photos."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from minicap.data.captions import read_captions
from minicap.data.features import read_features
from minicap.model.trained_model import Model

PAGE = Path(__file__).parents[1] / "docs/own-photos.md"
BLOCKS = re.findall(r"^```(sh|python)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_the_page_as_it_stands(real_data, tmp_path):
    """With a hundred photos of COCO and, in place of the official weights, which are not available
    here, random ones in a file of the same layout."""
    pytest.importorskip("h5py")
    pytest.importorskip("onnxruntime")
    from tests.encoder.published import varied_weights, write_keras

    weights = tmp_path / "weights.h5"
    write_keras(weights, varied_weights())
    place = tmp_path / "a user's folder"
    place.mkdir()
    (place / "photos").symlink_to(real_data / "coco/val2017")
    (place / "captions.json").symlink_to(real_data / "coco/captions_val2017.json")
    (place / "new").mkdir()
    photos = sorted((real_data / "inception_v3_golden/images").iterdir())[:3]
    for name, photo in zip(["photo.jpg", "b.jpg", "c.jpg"], photos, strict=True):
        shutil.copy(photo, place / "new" / name)
    environment = os.environ | {
        "MINICAP_INCEPTION_H5": str(weights),
        "MINICAP_CACHE": str(tmp_path / "cache"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(PAGE.parents[1]),
    }
    printed = []
    for language, block in BLOCKS:
        command = ["bash", "-ec"] if language == "sh" else [sys.executable, "-c"]
        done = subprocess.run(
            [*command, block],
            cwd=place,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        printed.append(done.stdout)
    exported, encoded, trained, captions, to_file, from_python = printed
    assert "inception_v3.onnx" in exported and "squeeze-bilinear-299" in exported
    # The file has captions of 4,941 photos; the others are missing.
    assert "100 photos encoded, 4,841 skipped" in encoded
    features = read_features(place / "features")
    assert features.array.shape == (100, 2048)
    known = read_captions(place / "captions.json").texts
    assert set(features.names) <= known.keys()
    assert "random splits with seed" in trained and "captions.png" in trained
    assert (place / "model/captions.png").exists()
    model = Model.load(place / "model/model.safetensors")
    assert model.encoder == features.encoder
    lines = captions.splitlines()
    assert [line.split("\t")[0] for line in lines] == ["new/b.jpg", "new/c.jpg", "new/photo.jpg"]
    assert all(len(line.split("\t")[1].split()) > 2 for line in lines)
    assert lines[2].split("\t")[1] in from_python
    assert "3 photos captioned in captions.csv" in to_file
    rows = (place / "captions.csv").read_text().splitlines()
    assert rows == ["photo,caption", *(line.replace("\t", ",") for line in lines)]


def test_a_smoke_test_with_a_trained_network(real_data, tmp_path):
    """COCO's photos with MobileNetV2: encode, train on random splits, caption."""
    pytest.importorskip("onnxruntime")
    onnx = real_data / "encoders/mobilenetv2.onnx"
    commands = [
        ["encode", real_data / "coco/val2017", "--out", "features", "--encoder", onnx],
        ["train", "--captions", real_data / "coco/captions_val2017.json", "--features", "features"]
        + ["--epochs", "4", "--min-count", "2", "--out", "model"],
        ["caption", *sorted((real_data / "coco/val2017").iterdir())[:4]]
        + ["--model", "model/model.safetensors", "--encoder", onnx],
    ]
    for name, *words in commands:
        done = subprocess.run(
            [sys.executable, "-m", f"minicap.{name}", *map(str, words)],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(PAGE.parents[1])},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        if name == "train":
            losses = re.findall(r"dev loss (\d+\.\d+)", done.stdout)
            assert len(losses) == 4 and float(losses[-1]) < float(losses[0])
    assert len(done.stdout.splitlines()) == 4
