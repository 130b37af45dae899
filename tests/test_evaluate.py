"""`minicap evaluate`: what it prints, writes and refuses."""

import json
import os
import re

import numpy
import pytest
from PIL import Image

from minicap import evaluate, train
from minicap.data.features import Features, read_features
from minicap.data.results import results_text
from minicap.evaluation.evaluate import CAPTIONS, REPORT, SCORES
from minicap.evaluation.metrics import METRICS, scores
from minicap.generation.config import BEAM
from minicap.generation.generate import generate_text
from minicap.model.trained_model import Model
from minicap.training.run import MODEL
from minicap.utils import command_line
from minicap.utils.files import read_lines
from tests import tiny
from tests.tiny import arguments, write_data

pytest.importorskip("pycocoevalcap")

OUTPUTS = {SCORES, CAPTIONS, REPORT}


@pytest.fixture
def command(capsys):
    """Run the command in this process. Returns its exit status, output and error lines. Tracebacks
    and warnings by NumPy fail the test."""

    def call(*words):
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught, numpy.errstate(all="raise"):
            command_line.run(lambda: evaluate.main([*map(str, words)]))
        output = capsys.readouterr()
        assert "Traceback" not in output.err
        return caught.value.code or 0, output.out, output.err

    return call


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A training run on the tiny data, and its files. Read only."""
    folder = tmp_path_factory.mktemp("evaluate")
    files = write_data(folder / "data")
    train.main(arguments(files, f"--out={folder / 'run'}", "--learning-rate=0.05", "--epochs=6"))
    return folder / "run", files


@pytest.fixture
def results(tmp_path):
    """Write a results file for the tiny dev images."""

    def make(*captions, name="results.json"):
        path = tmp_path / name
        texts = dict(zip(("6.jpg", "7.jpg", "8.jpg"), captions, strict=False))
        path.write_text(results_text(texts, {name: name for name in texts}), encoding="utf-8")
        return path

    return make


def refused(result, *parts):
    """Assert exit status 1, no output, and one error line that has all these parts."""
    status, output, error = result
    assert status == 1 and not output and error.startswith("error: ") and error.count("\n") == 1
    for part in parts:
        assert str(part) in error, error


def model_option(folder):
    return f"--model={folder / MODEL}"


def on(files, split="dev"):
    """Options for the images of a split."""
    return f"--captions={files.captions[0]}", f"--{split}-split={getattr(files, split + '_split')}"


def test_a_model_on_its_training_data(command, run, tmp_path):
    """What is printed and what is written agree."""
    folder, files = run
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (40, 30), "red").save(photos / "7.jpg")
    status, text, error = command(model_option(folder), f"--out={tmp_path}", f"--photos={photos}")
    assert status == 0 and not error
    assert f"{folder / MODEL}, dev: 3 images with 7 references in {files.captions[0]}" in text
    assert (
        "tokenizer course; CIDEr: document frequencies from the references of these 3 images"
        in text
    )
    written = json.loads((tmp_path / SCORES).read_text())
    assert list(written["scores"]) == [
        "model",
        "nearest neighbours (6)",
        "shuffled features",
        "most frequent caption",
    ]
    captions = {e["image_id"]: e["caption"] for e in json.loads((tmp_path / CAPTIONS).read_text())}
    model, stored = Model.load(folder / MODEL), read_features(files.features[0])
    expected = generate_text([model], stored.array[6:9], BEAM)
    references = {
        f"{n}.jpg": [f"a {colour} dog {end}" for end in tiny.ENDINGS[: 2 + n % 2]]
        for n, colour in zip((6, 7, 8), tiny.COLOURS, strict=True)
    }
    assert captions == dict(zip(references, expected, strict=True))
    figures = scores(captions, references)
    assert {name: written["scores"]["model"][name] for name in METRICS} == figures
    (line,) = re.findall(r"^ +model +(.*)$", text, re.MULTILINE)
    assert line.split()[:6] == [f"{100 * figures[name]:.1f}" for name in METRICS]
    assert written["generation"]["beam_size"] == BEAM.beam_size
    assert f"generated beam size {BEAM.beam_size}, length penalty" in text
    report = (tmp_path / REPORT).read_text()
    assert 'class="word"' in report and "Candidates and their scores" in report
    assert report.count("<article>") == 1 and report.count("<svg") == 2
    for name in OUTPUTS:
        assert f"wrote     {tmp_path / name}" in text


def test_a_model_without_its_option_still_works(command, run, tmp_path):
    """The command line of earlier versions. The new one is printed on standard error."""
    folder, _ = run
    new = command(model_option(folder), f"--out={tmp_path}")
    status, text, error = command(folder / MODEL, f"--out={tmp_path}")
    assert (status, text) == new[:2] and status == 0
    assert error == f"note: the new form is: minicap evaluate --model {folder / MODEL}\n"


def test_captions_of_a_model_as_results(command, run):
    """The files are next to the model by default; captions.json has the model's scores."""
    folder, files = run
    command(model_option(folder))
    assert {path.name for path in (folder / "evaluation").iterdir()} == OUTPUTS
    before = json.loads((folder / "evaluation" / SCORES).read_text())
    status, text, _ = command(
        f"--results={folder / 'evaluation' / CAPTIONS}",
        f"--features={files.features[0]}",
        f"--train-split={files.train_split}",
        *on(files),
        f"--out={folder / 'again'}",
    )
    after = json.loads((folder / "again" / SCORES).read_text())
    assert status == 0 and " results  " in text
    assert after["scores"].pop("results") == before["scores"].pop("model")
    assert after["scores"] == before["scores"]
    assert after["vocabulary"] is None and before["vocabulary"] > 5


def test_another_split_and_other_data(command, run, tmp_path):
    """With a file of only the test images, the training set is still that of the model."""
    folder, files = run
    lines = files.captions[0].read_text().splitlines(keepends=True)
    captions = tmp_path / "test.csv"
    rows = [f'{line.split("#")[0]},"{line.split(chr(9))[1].strip()}"\n' for line in lines[-8:]]
    captions.write_text("image,caption\n" + "".join(rows))
    features, stored = tmp_path / "test.npz", read_features(files.features[0])
    Features(stored.names[9:], stored.array[9:], stored.encoder).save(features)
    own = f"--captions={captions}", f"--features={features}", f"--test-split={files.test_split}"
    outputs = []
    for words in (["--split=test"], own, [*own[:2], "--split=all"]):
        status, text, _ = command(model_option(folder), *words, f"--out={tmp_path}")
        assert status == 0 and "3 images with 8 references" in text
        outputs.append(json.loads((tmp_path / SCORES).read_text())["scores"])
    assert outputs[0] == outputs[1] == outputs[2] and len(outputs[0]) == 4


def test_generation_options_and_an_ensemble(command, run, tmp_path):
    """An ensemble of a model with itself generates what the model does; options change captions."""
    folder, _ = run
    found = []
    for words in (
        [],
        [f"--ensemble={folder / MODEL}"],
        ["--beam-size=1", "--length-penalty=0", "--prefix=blue blue"],
    ):
        status, text, _ = command(model_option(folder), *words, f"--out={tmp_path}")
        assert status == 0
        found.append(json.loads((tmp_path / CAPTIONS).read_text()))
    assert found[0] == found[1] != found[2]
    assert "generated beam size 1, length penalty 0.0, prefix blue blue\n" in text
    assert all(entry["caption"].startswith("blue blue") for entry in found[2])


def test_results_need_only_captions(command, run, results):
    """In any format. A note says which baselines are left out."""
    _, files = run
    path = results("a red dog sits", "a blue dog", "a green dog runs fast")
    status, text, _ = command(f"--results={path}", *on(files))
    assert status == 0 and "no baselines from train: " in text
    written = json.loads((path.parent / "evaluation" / SCORES).read_text())
    assert list(written["scores"]) == ["results", "shuffled features"]
    karpathy = path.with_name("karpathy.json")
    karpathy.write_text(
        json.dumps(
            {
                "images": [
                    {
                        "filename": f"{n}.jpg",
                        "split": "val",
                        "sentences": [
                            {"raw": f"A {colour} dog {e}"} for e in tiny.ENDINGS[: 2 + n % 2]
                        ],
                    }
                    for n, colour in zip((6, 7, 8), tiny.COLOURS, strict=True)
                ]
            }
        )
    )
    for words in ([], ["--split=dev"]):
        assert command(f"--results={path}", f"--captions={karpathy}", *words)[0] == 0
        again = json.loads((path.parent / "evaluation" / SCORES).read_text())
        assert again["scores"] == written["scores"]


def test_coco_numbers_are_those_of_the_caption_file(command, tmp_path):
    images = [{"id": 7, "file_name": "beach.jpg"}, {"id": 9, "file_name": "bus.jpg"}]
    references = [(7, "A dog runs ."), (9, "A red bus .")]
    captions, path = tmp_path / "captions.json", tmp_path / "results.json"
    annotations = [{"id": n, "image_id": i, "caption": c} for n, (i, c) in enumerate(references)]
    captions.write_text(json.dumps({"images": images, "annotations": annotations}))
    expected = [{"image_id": i, "caption": c} for i, c in references]
    path.write_text(json.dumps(expected))
    given = f"--results={path}", f"--captions={captions}"
    refused(command(*given, f"--out={tmp_path}"), f"{CAPTIONS} would replace an input file")
    status, text, _ = command(*given, f"--out={tmp_path / 'out'}")
    assert status == 0 and "100.0" in text
    assert json.loads((tmp_path / "out" / CAPTIONS).read_text()) == expected


def test_a_path_that_is_not_utf8_is_escaped(command, tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    captions, path = folder / "c.txt", folder / "r.json"
    captions.write_text("a.jpg\tA dog .\nb.jpg\tA cat .\n")
    path.write_text(json.dumps([{"image_id": n, "caption": "a dog"} for n in ("a.jpg", "b.jpg")]))
    assert command(f"--results={path}", f"--captions={captions}")[0] == 0
    settings = json.loads((folder / "evaluation" / SCORES).read_text())
    assert "caf\udce9" in json.dumps(settings, ensure_ascii=False)


def test_the_same_caption_for_all_images_gives_a_warning(command, run, results):
    _, files = run
    status, text, _ = command(f"--results={results(*['a dog'] * 3)}", *on(files))
    (line,) = [line for line in text.splitlines() if line.startswith("warning")]
    assert status == 0 and '3 images have the same caption, "a dog"' in line


def test_empty_and_unknown_captions_give_warnings(command, run, results):
    """Empty, only #UNK#, or in other scripts."""
    _, files = run
    status, text, _ = command(f"--results={results('', '#UNK# #UNK#', '犬 ßü 🐕')}", *on(files))
    assert status == 0
    assert "warning   1 of 3 captions are empty: each scores 0" in text
    assert "warning   1 of 3 captions contain #UNK#, which" in text
    assert re.search(r"results( +0\.0){6} +3 +1\.\d\n", text) and "nan" not in text


def test_sets_that_cannot_be_scored(command, run, results, tmp_path):
    """A single image; images without caption or references; an image twice."""
    _, files = run
    alone = tmp_path / "one.txt"
    alone.write_text("6.jpg\n")
    one = f"--captions={files.captions[0]}", f"--dev-split={alone}"
    refused(command(f"--results={results('a dog')}", *one), "there is only one")
    path = results("a", "b")
    line = f"{path}: no caption for 8.jpg (1 of the 3 evaluated images)"
    refused(command(f"--results={path}", *on(files)), line)
    alone.write_text("6.jpg\n7.jpg\n")
    path = results("a", "b", "c")
    refused(
        command(f"--results={path}", *one),
        f"{path}: not among the 2 evaluated images (6.jpg, ...): image_id '8.jpg'",
    )
    path.write_text(
        '[{"image_id": "6.jpg", "caption": "a"}, {"image_id": "6.jpg", "caption": "b"}]'
    )
    refused(command(f"--results={path}", *on(files)), path, "entry 1", "'6.jpg' occurs twice")
    path.write_text('[{"image_id": "6.jpg", "caption": 3}]')
    refused(command(f"--results={path}", *on(files)), path, "entry 0: `caption` must be a text")
    path.write_text('[{"image_id": "6.jpg", "cap')
    refused(command(f"--results={path}", *on(files)), path, "line 1, column", "broken or cut-off")
    assert not (tmp_path / "evaluation").exists()


def test_invalid_options(command, run, tmp_path):
    folder, files = run
    refused(command(), "name a model with --model or a results file with --results")
    refused(command(model_option(folder), "--results=x"), "a model with --model or a results file")
    refused(command(model_option(folder), folder / MODEL), "two models, ", "use --ensemble")
    refused(command("--results=x", "--ensemble=y"), "--ensemble needs --model")
    refused(command("--results=x", "--device=cuda"), "--device needs --model")
    refused(
        command("--results=x", "--top-k=3", "--temperature=1"),
        "an option of generation",
        "needs --model",
    )
    refused(
        command(model_option(folder), f"--out={files.captions[0]}"), "this is a file; name a folder"
    )
    refused(command(model_option(folder), "--beam-size=0"), "--beam-size must be from 1 to 100")
    refused(command(f"--model={tmp_path / 'none'}"), "none: no such file; expected a minicap model")
    refused(command("--results=none.json"), "none.json: cannot read the results file")
    refused(command(model_option(folder), "--neighbours=0"), "--neighbours must be 1 or more")
    refused(command(model_option(folder), "--photos=none"), "none: no such folder")
    refused(
        command(model_option(folder), "--split=test", f"--captions={files.captions[0]}"),
        "--test-split",
    )
    wide = tmp_path / "wide.npz"
    Features([f"{n}.jpg" for n in range(12)], numpy.ones((12, 3), "f4")).save(wide)
    refused(
        command(model_option(folder), f"--features={wide}"), "8 features of tiny encoder", "are 3"
    )


def test_scenes_have_true_captions(command, tmp_path):
    """Without data options it is the shipped scenes, which the report shows."""
    from minicap.data.dataset import shipped_scenes

    names = (shipped_scenes() / "dev.txt").read_text().split()
    lines = read_lines(shipped_scenes() / "captions.txt.gz", "captions")[:-1]
    first = {line.split("#")[0]: line.split("\t")[1] for line in reversed(lines)}
    path = tmp_path / "results.json"
    path.write_text(results_text({n: first[n] for n in names}, {n: n for n in names}))
    status, text, _ = command(f"--results={path}", "--split=dev", "--shown=4")
    written = json.loads((tmp_path / "evaluation" / SCORES).read_text())["scores"]
    assert status == 0 and "true captions" in text and len(written) == 4
    assert written["results"]["BLEU-1"] == pytest.approx(1)
    assert written["results"]["true"] > 0.5 > 0.1 > written["shuffled features"]["true"]
    report = (tmp_path / "evaluation" / REPORT).read_text()
    assert report.count("<img") == 4 and 'class="right"' in report


def test_a_full_disk_keeps_the_old_files(command, run, results, monkeypatch):
    _, files = run
    path = results("a", "b", "c")
    command(f"--results={path}", *on(files))
    before = {p: p.read_bytes() for p in (path.parent / "evaluation").iterdir()}

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    status, _, error = command(f"--results={results('d', 'e', 'f')}", *on(files))
    assert status == 1 and "scores.json: No space left" in error
    assert {p: p.read_bytes() for p in (path.parent / "evaluation").iterdir()} == before
