"""`python -m minicap.caption`, with an encoder of one matrix."""

import subprocess
import sys
from dataclasses import replace

import numpy
import pytest
from PIL import Image

import minicap
from minicap import caption
from minicap.data.features import Scaling
from minicap.data.vocabulary import Vocabulary
from minicap.generation.config import BEAM, GenerationConfig
from minicap.generation.generate import generate_text, scaled_for
from minicap.utils import command_line as commands
from tests.tiny import WIDTH, model

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
def pictures(tmp_path):
    """Seven pictures of different colours, sizes and formats."""
    rng = numpy.random.default_rng(0)
    paths = []
    for number in range(7):
        path = tmp_path / f"picture {number}.{'jpg' if number % 2 else 'png'}"
        colour = tuple(rng.integers(256, size=3).tolist())
        Image.new("RGB", (20 + number, 30), colour).save(path)
        paths.append(path)
    return paths


@pytest.fixture
def command(capsys):
    """Runs the command in this process: its exit status, output and error lines."""

    def call(*words):
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            commands.run(lambda: caption.main([*map(str, words)]))
        output = capsys.readouterr()
        assert "Traceback" not in output.err
        return caught.value.code, output.out.splitlines(), output.err.splitlines()

    return call


def test_a_line_for_each_picture(command, trained, encoder, pictures):
    """The file, a tab, the caption: what the Python interface says too, one by one or at once."""
    status, lines, errors = command(trained, *pictures, "--encoder", encoder)
    assert status == 0 and not errors
    captioner = minicap.load(trained, encoder)
    captions = captioner.caption(pictures)
    assert lines == [f"{p}\t{c}" for p, c in zip(pictures, captions, strict=True)]
    odd = pictures[0].with_name("a\tb\nc.png")
    odd.write_bytes(pictures[0].read_bytes())
    _, (line,), _ = command(trained, odd, "--encoder", encoder)
    assert line.split("\t") == [str(odd.parent / r"a\tb\nc.png"), captions[0]]
    assert len(set(captions)) > 1
    assert [captioner.caption([path])[0] for path in pictures] == captions
    with Image.open(pictures[2]) as image:
        assert captioner.caption([image, numpy.asarray(image)]) == [captions[2]] * 2


def test_more_pictures_than_are_taken_at_once(command, trained, encoder, pictures, monkeypatch):
    expected = command(trained, *pictures, "--encoder", encoder)
    monkeypatch.setattr(caption, "TOGETHER", 3)
    assert command(trained, *pictures, "--encoder", encoder) == expected


def test_features_are_scaled(tmp_path, trained, encoder, pictures):
    """A model with another scaling sees other numbers."""
    plain = minicap.load(trained, encoder)
    scaling = Scaling(numpy.ones(WIDTH, "float32"), numpy.full(WIDTH, 2, "float32"))
    one = plain.models[0]
    replace(one, scaling=scaling).save(tmp_path / "other.safetensors")
    other = minicap.load(tmp_path / "other.safetensors", encoder)
    features = plain.encoder(pictures)
    found = scaled_for(other.models[0], features)
    assert numpy.allclose(found, (features - 1) * 2, atol=1e-6)
    assert other.caption(pictures) == generate_text([one.for_scaled_features()], found, BEAM)


def test_count_takes_the_best_of_the_beam(command, trained, encoder, pictures):
    """The beam is as wide as need be; scores fall, and have a column of their own."""
    words = (trained, *pictures, "--encoder", encoder, "--count=3", "--scores")
    for beams in 1, 4:
        _, lines, _ = command(*words, f"--beam-size={beams}")
        captioner = minicap.load(trained, encoder)
        found = captioner.candidates(pictures, GenerationConfig(beam_size=max(beams, 3)))
        assert lines == [
            f"{picture}\t{caption.score:.4f}\t{captioner.words(caption)}"
            for picture, captions in zip(pictures, found, strict=True)
            for caption in captions[:3]
        ]
    assert len(set(lines)) == 21


def test_count_with_a_temperature_draws(command, trained, encoder, pictures, monkeypatch):
    """The same for the same seed, and however many pictures are taken at once."""
    words = (*pictures[:2], "--encoder", encoder, "--count=5", "--temperature=1.5")
    _, lines, _ = command(trained, *words)
    assert [line.split("\t")[0] for line in lines] == [
        str(p) for p in pictures[:2] for _ in "12345"
    ]
    assert len({*lines[:5]}) > 1
    assert command(trained, *words)[1] == lines
    monkeypatch.setattr(caption, "TOGETHER", 1)
    assert command(trained, *words)[1] == lines
    assert command(trained, *words, "--seed=100")[1] != lines


def test_options_of_writing_arrive(command, trained, encoder, pictures):
    words = (trained, *pictures, "--encoder", encoder)
    _, lines, _ = command(*words, "--prefix=A red", "--min-length=4", "--no-repeat-ngram-size=1")
    for line in lines:
        written = line.split("\t")[1].split()
        assert written[:2] == ["a", "red"] and len(written) == len(set(written)) == 4
    greedy, careful = (
        command(*words, *how)[1]
        for how in (["--beam-size=1"], ["--temperature=1", "--top-k=1", "--top-p=0.5"])
    )
    assert greedy == careful


def test_several_models_write_together(command, trained, encoder, pictures, tmp_path):
    """With itself a model writes what it writes alone, with another something else."""
    words = (trained, *pictures, "--encoder", encoder, "--scores")
    alone = command(*words)
    one = minicap.load(trained, encoder).models[0]
    other = {name: -array for name, array in one.parameters.items()}
    replace(one, parameters=other).save(tmp_path / "other.safetensors")
    together = command(*words, "--ensemble", trained, trained)
    assert together == alone
    assert command(*words, "--ensemble", tmp_path / "other.safetensors")[1] != alone[1]
    vocabulary = Vocabulary(["a", "cat", "dog", "red"])
    replace(one, vocabulary=vocabulary).save(tmp_path / "cat.safetensors")
    one_line(
        command(*words, "--ensemble", tmp_path / "cat.safetensors"),
        "needs models with the same words",
        "only in the first: 1 (blue); only in the second: 1 (cat)",
    )


def test_one_caption_with_a_temperature_is_drawn(command, trained, encoder, pictures):
    drawn = {
        command(trained, pictures[0], "--encoder", encoder, "--temperature=2", f"--seed={k}")[1][0]
        for k in range(6)
    }
    assert len(drawn) > 1


def test_a_broken_picture_among_good_ones(command, trained, encoder, pictures, tmp_path):
    """The others are captioned as ever; a line for each broken one; status 1."""
    expected = command(trained, *pictures, "--encoder", encoder)[1]
    cut = tmp_path / "cut.png"
    cut.write_bytes(pictures[0].read_bytes()[:60])
    text = tmp_path / "text.jpg"
    text.write_text("no picture")
    gone = tmp_path / "gone.jpg"
    words = (trained, cut, *pictures[:3], text, *pictures[3:], gone, "--encoder", encoder)
    status, lines, errors = command(*words)
    assert status == 1 and lines == expected and len(errors) == 3
    for error, path in zip(errors, (cut, text, gone), strict=True):
        assert error.startswith(f"error: {path}: ")


def test_only_broken_pictures(command, trained, encoder, tmp_path):
    status, lines, errors = command(trained, tmp_path / "a", tmp_path / "b", "--encoder", encoder)
    assert status == 1 and not lines and len(errors) == 2


def one_line(result, *parts):
    status, lines, errors = result
    assert status == 1 and not lines and len(errors) == 1 and errors[0].startswith("error: ")
    for part in parts:
        assert str(part) in errors[0]


def test_another_encoder_is_refused(command, trained, pictures, tmp_path):
    """The same shapes, other weights: only the hash knows, and says so."""
    other = save_encoder(tmp_path / "other.onnx", seed=1)
    one_line(
        command(trained, pictures[0], "--encoder", other),
        "has learned from the features of the encoder encoder",
        "not from those of other",
    )


def test_an_encoder_of_another_width(command, tmp_path, pictures):
    path = tmp_path / "unknown.safetensors"
    model().save(path)
    wide = save_encoder(tmp_path / "wide.onnx", width=9)
    one_line(command(path, pictures[0], "--encoder", wide), "from 8 features", "are 9")


def test_a_model_without_a_known_encoder_asks_for_it(command, trained, tmp_path, pictures, encoder):
    one_line(command(trained, pictures[0]), trained, "8 features of encoder", "--encoder")
    path = tmp_path / "unknown.safetensors"
    model().save(path)
    one_line(command(path, pictures[0]), path, "--encoder")
    assert command(path, pictures[0], "--encoder", encoder)[0] == 0


def test_the_seeded_encoder_is_found_by_itself(tmp_path, pictures, monkeypatch, encoder, command):
    """A model that names it needs no --encoder (here with the tiny one in its place)."""
    from minicap.encoder import session

    monkeypatch.setattr(session, "SEEDED_ENCODER_ID", session.Encoder(encoder).id)
    monkeypatch.setattr(session, "seeded_encoder", lambda device: session.Encoder(encoder, device))
    path = tmp_path / "model.safetensors"
    model({"id": session.SEEDED_ENCODER_ID, "name": "seeded"}).save(path)
    status, lines, errors = command(path, pictures[0])
    assert status == 0 and len(lines) == 1 and not errors


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
        (["--top-k=3"], "give a --temperature"),
        (["--min-length=9"], "--min-length: 9 words, but the model's captions have 6 at the most"),
        (["--prefix=a dog a dog a dog a"], "--prefix: 7 words, but"),
        (["--prefix=A zebra and a red yak"], "not among the 8 words of the model: zebra, and"),
        (["--prefix=#UNK# dog"], "words of the model: unk"),
    ],
)
def test_wrong_values(command, trained, encoder, pictures, words, reason):
    one_line(command(trained, pictures[0], "--encoder", encoder, *words), reason)


def test_wrong_files(command, trained, encoder, pictures, tmp_path):
    nix = tmp_path / "nix"
    one_line(command(nix, pictures[0]), nix, "no such file")
    one_line(command(pictures[0], pictures[0]), pictures[0], "no safetensors file")
    one_line(command(trained, pictures[0], "--encoder", nix), nix, "no such encoder file")
    one_line(command(trained, pictures[0], "--encoder", pictures[0]), pictures[0], "ONNX")
    trained.write_bytes(trained.read_bytes()[:-1])
    one_line(command(trained, pictures[0], "--encoder", encoder), trained, "truncated")


def test_no_pictures(command, trained):
    status, _, errors = command(trained)
    assert status in (1, 2) and errors


def test_without_onnxruntime(command, trained, pictures, encoder, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    one_line(command(trained, pictures[0], "--encoder", encoder), "onnxruntime", "'.[cpu]'")


def test_as_a_real_process(trained, encoder, pictures, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff")
    words = [trained, pictures[0], broken, pictures[1], "--encoder", encoder]
    done = subprocess.run(
        [sys.executable, "-m", "minicap.caption", *words], capture_output=True, text=True
    )
    assert done.returncode == 1 and len(done.stdout.splitlines()) == 2
    assert done.stderr.startswith(f"error: {broken}: ") and done.stderr.count("\n") == 1
