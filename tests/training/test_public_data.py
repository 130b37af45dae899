"""`minicap train --data`, with small stand-ins on a local server, killed in each step."""

import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from minicap import train
from minicap.data import public
from minicap.data.features import read_features
from minicap.data.splits import uniform
from minicap.model.trained_model import Model
from minicap.training import public_data
from minicap.utils import command_line
from tests.loopback import Server, good
from tests.test_download import PHOTOS, TEXTS, packed

pytest.importorskip("onnxruntime")

# The command, with the data set of a local server. It kills itself in the middle of a step: when
# the progress bar with these words has advanced so many times.
DRIVER = """
import json, os, signal, sys, tqdm
from dataclasses import replace
from minicap import train
from minicap.data import public
from minicap.utils import command_line

about = json.loads(sys.argv[1])
real = public.DATA_SETS["flickr8k", 2013]
parts = {name: replace(real.parts[name], **values) for name, values in about["parts"].items()}
public.DATA_SETS["flickr8k", 2013] = replace(real, parts=parts)
words, count = about["kill"]
update = tqdm.tqdm.update

def counted(bar, n=1):
    global count
    label = getattr(bar, "desc", "") + getattr(bar, "unit", "batch")  # a hidden bar has neither
    count -= words in label
    if count < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return update(bar, n)

tqdm.tqdm.update = counted
command_line.run(lambda: train.main(sys.argv[2:]))
"""
SMALL = (
    "--hidden-size=8", "--embedding-size=6", "--epochs=3", "--self-critical-epochs=1",
    "--batch-size=4", "--samples-per-image=2", "--min-count=1", "--workers=1",
)  # fmt: skip


@pytest.fixture
def parts(monkeypatch):
    """The data set's archives on a local server, as replacements of the real ones."""
    monkeypatch.setenv("no_proxy", "*")
    zips = {"captions": packed(TEXTS), "photos": packed(PHOTOS)}
    real = public.DATA_SETS["flickr8k", 2013].parts
    server = Server(
        lambda request: good(zips["photos" if "Dataset" in request.path else "captions"])(request)
    )
    base = server.url.rpartition("/")[0]
    yield {
        part: {
            "url": f"{base}/{real[part].name}",
            "size": len(content),
            "md5": hashlib.md5(content).hexdigest(),
        }
        for part, content in zips.items()
    }
    server.close()


def test_killed_in_each_step_it_resumes(parts, tmp_path):
    """The model is that of a run without interruptions."""
    from tests.encoder.test_session import tiny

    tiny(tmp_path / "encoder.onnx")

    def run(folder, kill=("none", 1)):
        place = tmp_path / folder
        place.mkdir(exist_ok=True)
        about = json.dumps({"parts": parts, "kill": kill})
        words = ["--data=flickr8k", "--yes", f"--encoder={tmp_path / 'encoder.onnx'}", *SMALL]
        return subprocess.run(
            [sys.executable, "-c", DRIVER, about, *words],
            cwd=place,
            capture_output=True,
            text=True,
            check=False,
        )

    whole = run("whole")
    assert whole.returncode == 0, whole.stderr
    for kill, there, missing in (
        (("text.zip", 0), "flickr8k/Flickr8k_text.zip.part", "flickr8k/Flickr8k.token.txt"),
        (("Dataset.zip", 0), "flickr8k/Flickr8k.token.txt", "flickr8k/Flickr8k_Dataset.zip"),
        (("photos", 1), "flickr8k/features/store.json", "runs"),
        (("batch", 2), "runs/flickr8k", "runs/flickr8k/run.safetensors"),
        (("batch", 6), "runs/flickr8k/run.safetensors", "runs/flickr8k/history.png"),
    ):
        killed = run("halves", kill)
        assert killed.returncode == -9, (kill, killed.stdout, killed.stderr)
        assert (tmp_path / "halves" / there).exists(), kill
        assert not (tmp_path / "halves" / missing).exists(), kill
    done = run("halves")
    assert done.returncode == 0, done.stderr
    assert "already downloaded" in done.stdout and "nothing to do" in done.stdout
    paths = [
        tmp_path / folder / "runs/flickr8k/model.safetensors" for folder in ("whole", "halves")
    ]
    models = [Model.load(path) for path in paths]
    for name, array in models[0].decoder.parameters.items():
        assert array.tobytes() == models[1].decoder.parameters[name].tobytes()
    again = run("halves")
    assert again.returncode == 0 and "nothing left to do" in again.stdout


def test_it_asks_before_a_download(parts, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    real = public.DATA_SETS["flickr8k", 2013]
    changed = {name: dataclasses.replace(real.parts[name], **parts[name]) for name in parts}
    monkeypatch.setitem(
        public.DATA_SETS, ("flickr8k", 2013), dataclasses.replace(real, parts=changed)
    )

    def error(*words):
        with pytest.raises(SystemExit) as ended:
            command_line.run(lambda: train.main(["--data=flickr8k", *words]))
        assert ended.value.code == 1
        output = capsys.readouterr()
        return output.out, output.err

    out, err = error()  # not a terminal: nobody can answer
    assert "research and teaching only" in out and "add --yes" in err
    monkeypatch.setattr(public_data.sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: "n")
    assert "nothing was downloaded" in error()[1]
    assert not (tmp_path / "flickr8k").exists()
    assert "leave yours out" in error("--captions=a.txt", "--features=b.npz")[1]


def test_inception_is_exported_if_no_encoder_is_named(tmp_path, monkeypatch, capsys):
    """Once: the file is used again."""
    from tests.encoder.test_session import tiny

    monkeypatch.chdir(tmp_path)
    folder = Path("flickr8k")
    folder.mkdir()
    for name in public.DATA_SETS["flickr8k", 2013].parts["captions"].files:
        (folder / name).write_text(TEXTS[name])
    (folder / "Flickr8k_Dataset.zip").write_bytes(packed(PHOTOS))
    exported = []

    def export(options):
        exported.append(options)
        tiny(Path("inception_v3.onnx"))

    monkeypatch.setattr(public_data, "export", export)
    for _ in range(2):
        files = public_data.PublicData("flickr8k").prepare("cpu")
    assert len(exported) == 1 and exported[0].weights is None
    assert len(read_features(files.features[0]).names) == 12
    assert "InceptionV3 to inception_v3.onnx" in capsys.readouterr().out
    assert files.train_split == folder / "Flickr_8k.trainImages.txt"


def test_the_splits_of_coco(tmp_path, monkeypatch):
    """5,000 photos of val (here 2) are dev, and the others are added to train."""
    monkeypatch.setattr(public, "COCO_DEV", 2)
    data = public.data_set("coco", 2014)
    for split, numbers in ("train2014", range(4)), ("val2014", range(4, 9)):
        names = [f"COCO_{split}_{n:012}.jpg" for n in numbers]
        content = {
            "images": [{"id": n, "file_name": name} for n, name in enumerate(names)],
            "annotations": [{"image_id": n, "caption": "a dog"} for n in range(len(names))],
        }
        (tmp_path / f"captions_{split}.json").write_text(json.dumps(content))
    for _ in range(2):
        files = public.data_files(data, tmp_path)
        train, dev = (path.read_text().split() for path in (files.train_split, files.dev_split))
        assert len(train) == 7 and len(dev) == 2 and not set(train) & set(dev)
        val = [f"COCO_val2014_{n:012}.jpg" for n in range(4, 9)]
        assert set(dev) == set(sorted(val, key=lambda name: uniform(name, 0))[:2])
    assert [path.name for path in files.captions] == [
        "captions_train2014.json",
        "captions_val2014.json",
    ]
    zips = [path.name for path in public.photo_archives(data, tmp_path)]
    assert sorted(zips) == ["train2014.zip", "val2014.zip"]
