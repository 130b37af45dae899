"""`minicap caption`, with an encoder of one matrix."""

import csv
import json
import subprocess
import sys
import zipfile
from dataclasses import replace

import numpy
import pytest
from PIL import Image

import minicap
from minicap import caption, captioner
from minicap.data.captions import read_captions
from minicap.data.features import Scaling
from minicap.data.vocabulary import Vocabulary
from minicap.generation.config import BEAM, GenerationConfig
from minicap.generation.generate import generate_text, scaled_for
from minicap.utils import command_line
from minicap.utils.errors import UserError
from tests.tiny import ATTENTION, WIDTH, model

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def save_encoder(path, seed=0, width=WIDTH):
    """An ONNX encoder: uint8 (N, 8, 8, 3) -> the mean colour -> `width` features."""
    from onnx import TensorProto, helper, numpy_helper

    matrix = numpy.random.default_rng(seed).normal(size=(3, width)).astype("float32") / 50
    shift = numpy.full(3, -128, "float32")
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["x"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["x", "axes"], ["colour"], keepdims=0),
            helper.make_node("Add", ["colour", "shift"], ["centred"]),
            helper.make_node("MatMul", ["centred", "matrix"], ["features"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 8, 8, 3])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", width])],
        [
            numpy_helper.from_array(numpy.array([1, 2]), "axes"),
            numpy_helper.from_array(shift, "shift"),
            numpy_helper.from_array(matrix, "matrix"),
        ],
    )
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


@pytest.fixture
def encoder(tmp_path):
    return save_encoder(tmp_path / "encoder.onnx")


@pytest.fixture
def trained(tmp_path, encoder):
    """A model file that names this encoder."""
    from minicap.encoder.session import Encoder

    path = tmp_path / "model.safetensors"
    known = Encoder(encoder)
    model({"id": known.id, "name": known.name}).save(path)
    return path


@pytest.fixture
def photos(tmp_path):
    """Seven photos of different colours, sizes and formats."""
    rng = numpy.random.default_rng(0)
    paths = []
    for number in range(7):
        path = tmp_path / f"photo {number}.{'jpg' if number % 2 else 'png'}"
        colour = tuple(rng.integers(256, size=3).tolist())
        Image.new("RGB", (20 + number, 30), colour).save(path)
        paths.append(path)
    return paths


@pytest.fixture
def command(capsys):
    """Run the command in this process. Returns its exit status, output lines and error lines."""

    def call(*words):
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            command_line.run(lambda: caption.main([*map(str, words)]))
        output = capsys.readouterr()
        assert "Traceback" not in output.err
        return caught.value.code, output.out.splitlines(), output.err.splitlines()

    return call


def test_a_line_for_each_photo(command, trained, encoder, photos):
    """The file, a tab, the caption, which the Python interface gives too, one by one or at once."""
    status, lines, errors = command("--model", trained, *photos, "--encoder", encoder)
    assert not status and not errors
    captioner = minicap.load(trained, encoder)
    captions = captioner.caption(photos)
    assert lines == [f"{p}\t{c}" for p, c in zip(photos, captions, strict=True)]
    odd = photos[0].with_name("a\tb\nc.png")
    odd.write_bytes(photos[0].read_bytes())
    _, (line,), _ = command("--model", trained, odd, "--encoder", encoder)
    assert line.split("\t") == [str(odd.parent / r"a\tb\nc.png"), captions[0]]
    assert len(set(captions)) > 1
    assert [captioner.caption([path])[0] for path in photos] == captions
    with Image.open(photos[2]) as image:
        assert captioner.caption([image, numpy.asarray(image)]) == [captions[2]] * 2


def test_folders_and_patterns(command, trained, encoder, photos, monkeypatch):
    """As cmd.exe and PowerShell pass patterns, which they do not expand."""
    folder = photos[0].parent
    monkeypatch.chdir(folder.parent)
    ending = photos[0].suffix
    (folder / "notes.txt").write_text("no photo")
    options = "--model", trained, "--encoder", encoder
    _, lines, errors = command(folder, *options)
    assert not errors and {line.split("\t")[0] for line in lines} >= {str(p) for p in photos}
    status, lines, _ = command(f"{folder.name}/*{ending}", *options)
    assert not status and f"{folder.name}/{photos[0].name}" in {w.split("\t")[0] for w in lines}
    for name, reason in (
        ("https://example.com/cat.jpg", "a web address; download the photo"),
        ("nothing/*.jpg", "no photo matches this pattern"),
    ):
        status, _, errors = command(name, *options)
        assert status == 1 and errors[0].startswith(f"error: {name}: {reason}")


def test_several_batches(command, trained, encoder, photos, monkeypatch):
    expected = command("--model", trained, *photos, "--encoder", encoder)
    monkeypatch.setattr(captioner, "GROUP", 4)
    assert command("--model", trained, *photos, "--encoder", encoder) == expected


@pytest.fixture
def many(tmp_path, photos):
    """A folder of 90 photos, two of which are broken."""
    folder = tmp_path / "many"
    for n in range(90):
        path = folder / f"{n % 3}" / f"{n:03}{photos[0].suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photos[n % len(photos)].read_bytes() if n not in (5, 80) else b"broken")
    return folder


def test_captions_in_a_file(command, trained, encoder, many, tmp_path):
    """They are the printed ones. A zip file and a list give the same captions."""
    options = "--model", trained, "--encoder", encoder
    status, lines, errors = command(many, *options, "--count=2")
    assert status == 1 and len(lines) == 2 * 88 and len(errors) == 2
    expected = [line.split("\t") for line in lines]
    outputs = {}
    for ending in "csv", "json", "jsonl":
        outputs[ending] = tmp_path / f"captions.{ending}"
        status, lines, _ = command(many, *options, "--count=2", f"--out={outputs[ending]}")
        assert not status and "88 photos captioned" in lines[-1] and "2 skipped" in lines[-1]
        skipped = tmp_path / f"captions.{ending}.skipped.jsonl"
        names = [json.loads(line)["photo"] for line in skipped.read_text().splitlines()]
        assert names == [str(many / "2/005.png"), str(many / "2/080.png")]
        assert read_captions(outputs[ending]).texts.keys() <= {name for name, _ in expected}
        assert not list(tmp_path.glob(".*")) and not list(tmp_path.glob("*.part"))
    with open(outputs["csv"], newline="") as file:
        assert list(csv.reader(file)) == [["photo", "caption"], *expected]
    as_list, as_lines = (outputs[e].read_text() for e in ("json", "jsonl"))
    assert [list(row.values()) for row in json.loads(as_list)] == expected
    assert json.loads(as_list) == [json.loads(line) for line in as_lines.splitlines()]

    with zipfile.ZipFile(tmp_path / "many.zip", "w") as packed:
        for path in sorted(many.rglob("*.png")):
            packed.write(path, path.relative_to(many))
    (tmp_path / "list.txt").write_text("\n".join(map(str, sorted(many.rglob("*.png")))))
    for source in "many.zip", "list.txt":
        _, lines, _ = command(tmp_path / source, *options, "--count=2")
        found = [line.split("\t") for line in lines]
        assert [text for _, text in found] == [text for _, text in expected]
        assert source == "list.txt" or found[0][0] == str(tmp_path / "many.zip/0/000.png")


def test_an_interrupted_file_resumes(command, trained, encoder, many, tmp_path, monkeypatch):
    """The result is that of an uninterrupted run, for samples too, wherever it stops."""
    words = many, "--model", trained, "--encoder", encoder, "--temperature=1.5"
    whole, out = tmp_path / "whole.csv", tmp_path / "captions.csv"
    command(*words, f"--out={whole}")
    append = captioner.CaptionFile.append

    def interrupted(file, rows, unusable):
        if file.part.read_bytes().count(b"\n") == 3:
            with file.part.open("a") as torn:
                torn.write('{"rows": [{"pho')  # as a full disk or a power cut leaves it
            raise KeyboardInterrupt
        append(file, rows, unusable)

    monkeypatch.setattr(captioner.CaptionFile, "append", interrupted)
    status, lines, _ = command(*words, f"--out={out}")
    assert status == 130 and lines[0].startswith("stopped; what is done is kept")
    assert not out.exists()
    monkeypatch.setattr(captioner.CaptionFile, "append", append)
    one_line(command(*words, f"--out={out}", "--seed=1"), "was begun with another --count, --se")
    one_line(command(*words, f"--out={out}", "--beam-size=2"), "another generation option")
    one_line(command(photos_of(many), *words[1:], f"--out={out}"), "another set of photos")
    assert not command(*words, f"--out={out}")[0]
    assert out.read_bytes() == whole.read_bytes()
    one_line(command(*words, f"--out={out}"), out, "exists: delete it")
    one_line(command(*words, f"--out={tmp_path / 'a.txt'}"), "must end in .csv, .json, .jsonl")


def photos_of(folder):
    return next(folder.rglob("*.png"))


def test_features_are_scaled(tmp_path, trained, encoder, photos):
    """A model with another scaling gets other numbers."""
    plain = minicap.load(trained, encoder)
    scaling = Scaling(numpy.ones(WIDTH, "float32"), numpy.full(WIDTH, 2, "float32"))
    one = plain.models[0]
    replace(one, scaling=scaling).save(tmp_path / "other.safetensors")
    other = minicap.load(tmp_path / "other.safetensors", encoder)
    features = plain.encoder(photos)
    found = scaled_for(other.models[0], features)
    assert numpy.allclose(found, (features - 1) * 2, atol=1e-6)
    assert other.caption(photos) == generate_text([one.for_scaled_features()], found, BEAM)


def test_count_takes_the_best_of_the_beam(command, trained, encoder, photos):
    """The beam is wide enough. Scores, highest first, have a column of their own."""
    words = ("--model", trained, *photos, "--encoder", encoder, "--count=3", "--scores")
    for beam_size in 1, 4:
        _, lines, _ = command(*words, f"--beam-size={beam_size}")
        captioner = minicap.load(trained, encoder)
        found = captioner.generate(photos, GenerationConfig(beam_size=max(beam_size, 3)))
        assert lines == [
            f"{photo}\t{caption.score:.4f}\t{captioner.text(caption)}"
            for photo, captions in zip(photos, found, strict=True)
            for caption in captions[:3]
        ]
    assert len(set(lines)) == 21


def test_count_with_a_temperature_samples(command, trained, encoder, photos, monkeypatch):
    """The same for the same seed, whatever the batch size."""
    words = (*photos[:2], "--encoder", encoder, "--count=5", "--temperature=1.5")
    _, lines, _ = command("--model", trained, *words)
    assert [line.split("\t")[0] for line in lines] == [str(p) for p in photos[:2] for _ in "12345"]
    assert len({*lines[:5]}) > 1
    assert command("--model", trained, *words)[1] == lines
    monkeypatch.setattr(captioner, "GROUP", 1)
    assert command("--model", trained, *words)[1] == lines
    assert command("--model", trained, *words, "--seed=100")[1] != lines


def test_generation_options(command, trained, encoder, photos):
    words = ("--model", trained, *photos, "--encoder", encoder)
    _, lines, _ = command(*words, "--prefix=A red", "--min-length=4", "--no-repeat-ngram-size=1")
    for line in lines:
        generated = line.split("\t")[1].split()
        assert generated[:2] == ["a", "red"] and len(generated) == len(set(generated)) == 4
    greedy, sampled = (
        command(*words, *options)[1]
        for options in (["--beam-size=1"], ["--temperature=1", "--top-k=1", "--top-p=0.5"])
    )
    assert greedy == sampled


def test_an_ensemble(command, trained, encoder, photos, tmp_path):
    """With itself, a model's captions are its own; with another model, they differ."""
    words = ("--model", trained, *photos, "--encoder", encoder, "--scores")
    alone = command(*words)
    one = minicap.load(trained, encoder).models[0]
    parameters = {name: -array for name, array in one.decoder.parameters.items()}
    other = replace(one.decoder, parameters=parameters)
    replace(one, decoder=other).save(tmp_path / "other.safetensors")
    together = command(*words, "--ensemble", trained, trained)
    assert together == alone
    assert command(*words, "--ensemble", tmp_path / "other.safetensors")[1] != alone[1]
    vocabulary = Vocabulary(["a", "cat", "dog", "red"])
    replace(one, vocabulary=vocabulary).save(tmp_path / "cat.safetensors")
    one_line(
        command(*words, "--ensemble", tmp_path / "cat.safetensors"),
        "need the same vocabulary",
        "only in the first: 1 (blue); only in the second: 1 (cat)",
    )


def test_one_caption_with_a_temperature_is_sampled(command, trained, encoder, photos):
    words = (photos[0], "--model", trained, "--encoder", encoder, "--temperature=2")
    samples = {command(*words, f"--seed={seed}")[1][0] for seed in range(6)}
    assert len(samples) > 1


def test_a_broken_photo_among_good_ones(command, trained, encoder, photos, tmp_path):
    """The others are captioned; there is a line for each broken one; the status is 1."""
    expected = command("--model", trained, *photos, "--encoder", encoder)[1]
    cut = tmp_path / "cut.png"
    cut.write_bytes(photos[0].read_bytes()[:60])
    text = tmp_path / "text.jpg"
    text.write_text("no image")
    gone = tmp_path / "gone.jpg"
    words = (cut, *photos[:3], text, *photos[3:], gone, "--encoder", encoder)
    status, lines, errors = command("--model", trained, *words)
    assert status == 1 and lines == expected and len(errors) == 3
    for error, path in zip(errors, (cut, text, gone), strict=True):
        assert error.startswith(f"error: {path}: ")


def test_only_broken_photos(command, trained, encoder, tmp_path):
    words = (tmp_path / "a", tmp_path / "b", "--model", trained, "--encoder", encoder)
    status, lines, errors = command(*words)
    assert status == 1 and not lines and len(errors) == 2


def one_line(result, *parts):
    status, lines, errors = result
    assert status == 1 and not lines and len(errors) == 1 and errors[0].startswith("error: ")
    for part in parts:
        assert str(part) in errors[0]


def test_another_encoder_is_refused(command, trained, photos, tmp_path):
    """Its shapes are the same, its weights are not: only the hash differs."""
    other = save_encoder(tmp_path / "other.onnx", seed=1)
    one_line(
        command("--model", trained, photos[0], "--encoder", other),
        "was trained on the features of the encoder encoder",
        "not on those of other",
    )


def test_an_encoder_of_another_width(command, tmp_path, photos):
    path = tmp_path / "unknown.safetensors"
    model().save(path)
    wide = save_encoder(tmp_path / "wide.onnx", width=9)
    one_line(command("--model", path, photos[0], "--encoder", wide), "on 8 features", "are 9")


def test_a_model_without_a_known_encoder_asks_for_it(command, trained, tmp_path, photos, encoder):
    one_line(command("--model", trained, photos[0]), trained, "8 features of encoder", "--encoder")
    path = tmp_path / "unknown.safetensors"
    model().save(path)
    one_line(command("--model", path, photos[0]), path, "--encoder")
    assert command("--model", path, photos[0], "--encoder", encoder)[0] is None


def test_the_seeded_encoder_is_the_default(tmp_path, photos, monkeypatch, encoder, command):
    """A model trained on it needs no --encoder (here replaced by the tiny one)."""
    from minicap.encoder import session

    monkeypatch.setattr(session, "SEEDED_ENCODER_ID", session.Encoder(encoder).id)
    monkeypatch.setattr(session, "seeded_encoder", lambda *where: session.Encoder(encoder, *where))
    path = tmp_path / "model.safetensors"
    model({"id": session.SEEDED_ENCODER_ID, "name": "seeded"}).save(path)
    status, lines, errors = command("--model", path, photos[0])
    assert not status and len(lines) == 1 and not errors


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--count=0"], "--count must be from 1 to 100"),
        (["--seed=-1"], "--seed must be 0 or more"),
        (["--temperature=-1"], "temperature must be"),
        (["--temperature=nan"], "temperature must be"),
        (["--temperature=inf"], "temperature must be"),
        (["--device=cuda"], "cuda"),
        (["--beam-size=0"], "--beam-size must be"),
        (["--top-k=3"], "add --temperature"),
        (["--min-length=9"], "--min-length: 9 words, but the model's captions have at most 6"),
        (["--prefix=a dog a dog a dog a"], "--prefix: 7 words, but"),
        (
            ["--prefix=A zebra and a red yak"],
            "the model's vocabulary of 8 words: zebra, and",
        ),
        (["--prefix=#UNK# dog"], "vocabulary of 8 words: unk"),
    ],
)
def test_wrong_values(command, trained, encoder, photos, words, reason):
    one_line(command("--model", trained, photos[0], "--encoder", encoder, *words), reason)


def test_wrong_files(command, trained, encoder, photos, tmp_path):
    nix = tmp_path / "nix"
    one_line(command("--model", nix, photos[0]), nix, "no such file")
    one_line(command("--model", photos[0], photos[0]), photos[0], "not a safetensors file")
    one_line(command("--model", trained, photos[0], "--encoder", nix), nix, "no such encoder file")
    one_line(command("--model", trained, photos[0], "--encoder", photos[0]), photos[0], "ONNX")
    trained.write_bytes(trained.read_bytes()[:-1])
    one_line(command("--model", trained, photos[0], "--encoder", encoder), trained, "truncated")


def test_no_photos(command, trained):
    one_line(command("--model", trained), "name at least one photo")
    assert command(trained)[2][-1] == "error: name at least one photo"
    one_line(command(), "name at least one photo")


def test_the_old_order_still_works(command, trained, encoder, photos):
    """The model first; one line tells the new form."""
    expected = command(*photos, "--model", trained, "--encoder", encoder)
    status, lines, errors = command(trained, *photos, "--encoder", encoder)
    assert (status, lines, []) == expected
    assert errors == [f"note: the new form is: minicap caption PHOTO... --model {trained}"]


def test_without_onnxruntime(command, trained, photos, encoder, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    words = (photos[0], "--model", trained, "--encoder", encoder)
    one_line(command(*words), "onnxruntime", "'.[cpu]'")


def test_as_a_real_process(trained, encoder, photos, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff")
    words = [photos[0], broken, photos[1], "--model", trained, "--encoder", encoder]
    done = subprocess.run(
        [sys.executable, "-m", "minicap.caption", *words], capture_output=True, text=True
    )
    assert done.returncode == 1 and len(done.stdout.splitlines()) == 2
    assert done.stderr.startswith(f"error: {broken}: ") and done.stderr.count("\n") == 1


@pytest.fixture
def attending(tmp_path, encoder):
    """A model file with attention that names this encoder."""
    from minicap.encoder.session import Encoder

    path = tmp_path / "attending.safetensors"
    model(Encoder(encoder).about(), **ATTENTION).save(path)
    return path


def test_the_map_of_each_word_is_drawn(tmp_path, encoder, attending, capsys):
    photo = tmp_path / "photo.png"
    Image.fromarray(numpy.random.default_rng(0).integers(0, 256, (30, 40, 3), "uint8")).save(photo)
    command = [str(photo), f"--model={attending}", f"--encoder={encoder}", "--prefix=a red dog"]
    caption.main(command)
    alone = capsys.readouterr().out
    caption.main([*command, f"--attention={tmp_path / 'out.png'}"])
    assert capsys.readouterr().out == alone
    words = alone.strip().split("\t")[1].split()
    rows = -(-(1 + len(words)) // 5)
    with Image.open(tmp_path / "out.png") as drawn:
        assert drawn.height in ((rows * (168 + 18 + 14) + 14), ((rows + 1) * (168 + 18 + 14) + 14))


def test_attention_is_drawn_for_one_photo_and_a_model_that_has_it(
    tmp_path, encoder, trained, attending, capsys
):
    photos = [tmp_path / name for name in ("1.png", "2.png")]
    for photo in photos:
        Image.new("RGB", (20, 20)).save(photo)
    picture = f"--attention={tmp_path / 'out.png'}"
    with pytest.raises(UserError, match="draws one photo; these are 2"):
        caption.main([*map(str, photos), f"--model={attending}", f"--encoder={encoder}", picture])
    with pytest.raises(UserError, match="this model has no attention"):
        caption.main([str(photos[0]), f"--model={trained}", f"--encoder={encoder}", picture])
    assert capsys.readouterr().out == ""
    assert not (tmp_path / "out.png").exists()
