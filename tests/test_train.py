"""`minicap train` from the command line."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict, replace

import numpy
import pytest
from PIL import Image

from minicap import train
from minicap.data.features import Features, read_features
from minicap.model import checkpoint
from minicap.model.trained_model import Model
from minicap.training import opening
from minicap.training.recipes import RECIPES, Recipe
from minicap.training.run import LOCK, METRICS, MODEL, RUN
from minicap.utils import command_line
from minicap.utils.files import exclusive
from minicap.utils.renamed import RENAMED
from tests.tiny import SHAPE, arguments, write_data


@pytest.fixture
def files(tmp_path):
    return write_data(tmp_path / "data")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def command(files, capsys):
    """Runs the command in this process on the tiny data, or with other arguments instead, and
    returns its exit status, output and error lines. There is never a traceback."""

    def call(*more, instead=None):
        capsys.readouterr()
        words = [*map(str, more)]
        with pytest.raises(SystemExit) as caught:
            command_line.run(lambda: train.main(words if instead else arguments(files, *words)))
        output = capsys.readouterr()
        assert "Traceback" not in output.err
        return caught.value.code or 0, output.out, output.err

    return call


def one_line(result, *parts):
    """Check for exit status 1 and one line on stderr that contains all parts."""
    status, _, error = result
    assert status == 1 and error.startswith("error: ") and error.count("\n") == 1, error
    for part in parts:
        assert str(part) in error
    return error


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_whole_run(command, out, tmp_path):
    """What it prints, and the files that it leaves."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("9.jpg", "10.jpg", "11.jpg"):
        Image.new("RGB", (40, 30), "red").save(photos / name)
    status, text, error = command(f"--out={out}", f"--photos={photos}")
    assert status == 0 and not error
    assert "train 6 images with 15 captions" in text
    assert "dev 3 images with 7 captions, test 3 images with 8 captions" in text
    assert "8 image features" in text
    flickr8k = RECIPES["flickr8k"]
    used = Recipe(
        replace(flickr8k.decoder, **SHAPE),
        replace(flickr8k.training, epochs=2, batch_size=4, min_count=2),
    )
    defaults, shown = asdict(Recipe()), text.split("recipe    ")[1].split("\n")[0]
    for group, settings in asdict(used).items():
        for name, value in settings.items():  # what differs from the defaults, and nothing else
            assert (f" {name} {value}" in shown) == (value != defaults[group][name])
    assert "epoch   2  train loss" in text and "reference: A red dog sits ." in text
    assert f"model     {out / MODEL} from epoch" in text
    assert f"minicap caption PHOTO... --model {out / MODEL}" in text
    assert set(contents(out)) == {MODEL, RUN, METRICS, "loss.svg", "captions.png"}
    for name in ("loss.svg", "captions.png"):
        assert f"image     {out / name}" in text
    with Image.open(out / "captions.png") as image:
        assert min(image.size) > 300
    lines = [json.loads(line) for line in (out / METRICS).read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    model = Model.load(out / MODEL)
    assert model.encoder == {"id": "tiny", "name": "tiny encoder"}
    about = checkpoint.load(out / MODEL, "model")[1]
    assert about["options"]["training"]["dropout"] == 0.3


def test_a_photo_that_is_missing_at_the_end_is_a_note(command, out, tmp_path):
    """A long training does not end in an error because of one image."""
    Image.new("RGB", (40, 30)).save(tmp_path / "9.jpg")
    status, text, _ = command(f"--out={out}", f"--photos={tmp_path}")
    assert status == 0 and "10.jpg: no such file" in text
    assert (out / "captions.png").exists() and "model     " in text


def test_an_ambiguous_photo_is_an_error_before_the_training(command, out, tmp_path):
    for folder in "a", "b":
        (tmp_path / "photos" / folder).mkdir(parents=True)
        Image.new("RGB", (40, 30)).save(tmp_path / "photos" / folder / "9.jpg")
    result = command(f"--out={out}", f"--photos={tmp_path / 'photos'}")
    one_line(result, "9.jpg could be a/9.jpg or b/9.jpg")
    assert not out.exists()
    for folder in "a", "b":  # the name of a photo that is not shown may be ambiguous
        (tmp_path / "photos" / folder / "9.jpg").rename(tmp_path / "photos" / folder / "0.jpg")
    assert command(f"--out={out}", f"--photos={tmp_path / 'photos'}")[0] == 0


def test_captions_that_cannot_be_printed_do_not_end_a_run(files, out):
    """Half a surrogate pair, as in some JSON, and letters that the terminal's encoding lacks."""
    captions = files.captions[0].read_text().replace("sits", "s\u00f6\u0436se \ud83d")
    rows = [line.split("\t") for line in captions.splitlines()]
    lines = [json.dumps({"image": name.partition("#")[0], "caption": text}) for name, text in rows]
    files.captions[0].write_text("\n".join(lines))
    for encoding in "utf-8", "cp1252":
        environment = os.environ | {"PYTHONIOENCODING": encoding}
        child = process(files, f"--out={out / encoding}", env=environment, encoding=encoding)
        text, error = child.communicate()
        assert child.returncode == 0 and not error and "\\ud83d" in text


def test_without_out_runs_are_numbered(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("runs/flickr8k", "runs/flickr8k-2"):
        _, text, _ = command("--epochs=1")
        assert f"folder    {folder}\n" in text and (tmp_path / folder / MODEL).exists()


def test_notes_name_what_was_left_out(command, files, out):
    with open(files.train_split, "a") as file:
        file.write("bare.jpg\n")
    _, text, _ = command(f"--out={out}", "--epochs=1")
    assert "note      train: 1 photos have no captions (bare.jpg" in text


def test_recipes_and_single_settings(command, out):
    _, text, _ = command("--recipe=course", f"--out={out}", "--epochs=1", "--steps-per-epoch=2")
    assert "recipe    course: " in text and "sample_by images" in text
    settings = checkpoint.load(out / RUN, "run")[1]["options"]["training"]
    assert (settings["sample_by"], settings["max_length"]) == ("images", 20)
    assert settings["dropout"] == settings["clip_norm"] == 0


def test_the_best_recipe_from_end_to_end(command, out):
    """Supervised, then self-critical epochs, and a model that is chosen by CIDEr-D."""
    more = (
        "--recipe=best",
        "--epochs=3",
        "--self-critical-epochs=1",
        "--samples-per-image=2",
        "--workers=2",
    )
    status, text, _ = command(f"--out={out}", *more)
    assert status == 0 and "train loss" in text and "train reward" in text
    lines = [json.loads(line) for line in (out / METRICS).read_text().splitlines()]
    best = max(lines, key=lambda line: line["dev_cider"])
    assert f"from epoch {best['epoch']};" in text
    assert Model.load(out / MODEL).decoder.config.image_input == "every_step"


def test_early_stop(command, out):
    """With a learning rate that is too large, the dev loss soon rises."""
    status, _, _ = command(
        f"--out={out}", "--epochs=60", "--patience=2", "--learning-rate=0.3", "--dropout=0"
    )
    lines = [json.loads(line) for line in (out / METRICS).read_text().splitlines()]
    losses = [line["dev_loss"] for line in lines]
    assert status == 0 and len(losses) < 60 and losses.index(min(losses)) == len(losses) - 3


def process(files, *more, env=os.environ, **options):
    command = [sys.executable, "-m", "minicap.train", *arguments(files, *more)]
    # Without this variable, Python collects what it prints to a pipe.
    environment = {name: value for name, value in env.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        **options,
    )  # fmt: skip


STEPS = 1200  # so many that a busy machine, too, has time to stop the run before its end
COURSE = ("--recipe=course", f"--steps-per-epoch={STEPS}", "--validation=words", "--dropout=0.1")


def test_ctrl_c_and_resume_equals_an_uninterrupted_run(files, out, tmp_path, command):
    """SIGINT to a real process, whose last line says how to resume. That works."""
    child = process(files, f"--out={out}", "--epochs=3", *COURSE)
    for line in child.stdout:
        if line.startswith("epoch   1"):
            break
    child.send_signal(signal.SIGINT)
    text, error = child.communicate()
    assert child.returncode == 130 and not error
    hint = text.splitlines()[-1]
    assert hint == f"stopped and saved; resume with: minicap train --resume {out}"
    place = checkpoint.load(out / RUN, "run")[1]["place"]
    assert STEPS <= place["t"] < 3 * STEPS
    status, text, _ = command("--resume", out, instead=True)
    assert status == 0 and "epoch   3" in text and "epoch   1 " not in text
    whole = tmp_path / "whole"
    command(f"--out={whole}", "--epochs=3", *COURSE)
    one, other = (checkpoint.load(folder / RUN, "run")[0] for folder in (out, whole))
    for name in ("parameters", "m", "v"):
        assert numpy.array_equal(one[name], other[name])
    one, other = (Model.load(folder / MODEL).decoder.parameters.flat for folder in (out, whole))
    assert numpy.array_equal(one, other)


def test_a_signal_to_all_processes_saves_as_well(files, out):
    """`timeout`, a batch system or `kill -- -GROUP` signals the workers, too. All of them end."""
    child = process(files, f"--out={out}", "--epochs=3", *COURSE[:-1], "--dropout=0.1",
                    "--workers=2", start_new_session=True)  # fmt: skip
    for line in child.stdout:
        if line.startswith("epoch   1"):
            break
    os.killpg(child.pid, signal.SIGTERM)
    text, error = child.communicate(timeout=60)  # waits until all processes have closed the pipe
    assert child.returncode == 130 and not error
    assert text.splitlines()[-1].startswith("stopped and saved")
    assert STEPS <= checkpoint.load(out / RUN, "run")[1]["place"]["t"] < 3 * STEPS


def test_resume_with_more_epochs_equals_all_at_once(command, out, tmp_path):
    command(f"--out={out}", "--epochs=1")
    status, text, _ = command("--resume", out, "--epochs=3", instead=True)
    assert status == 0 and "epochs 3" in text
    command(f"--out={tmp_path / 'whole'}", "--epochs=3")
    one, other = (checkpoint.load(f / RUN, "run")[0] for f in (out, tmp_path / "whole"))
    assert all(numpy.array_equal(one[name], other[name]) for name in one)


def test_a_longer_self_critical_run_has_more_self_critical_epochs(command, out, tmp_path):
    """They start where they did: logits are divided once, and no later epoch is supervised."""
    words = ("--self-critical-epochs=1", "--monitor=cider", "--samples-per-image=2")
    words += ("--self-critical-temperature=0.25",)
    command(f"--out={out}", *words, "--epochs=2")
    status, text, _ = command("--resume", out, "--epochs=4", instead=True)
    assert status == 0 and "self_critical_epochs 3" in text
    kinds = [json.loads(line).keys() & {"train_loss", "train_reward"} for line in
             (out / METRICS).read_text().splitlines()]  # fmt: skip
    assert kinds == [{"train_loss"}, *3 * [{"train_reward"}]]
    whole = tmp_path / "whole"
    command(f"--out={whole}", *words[1:], "--self-critical-epochs=3", "--epochs=4")
    first, second = (
        [json.loads(line)["dev_loss"] for line in (folder / METRICS).read_text().splitlines()]
        for folder in (out, whole)
    )
    assert first == pytest.approx(second, rel=1e-2)  # other learning rates in epoch 2
    for wrong in ("--monitor=loss", "--patience=2"):  # either would discard these epochs
        result = command(f"--out={out}2", *words, wrong)
        one_line(result, wrong.partition("=")[0] + " must be", "self-critical epochs")
    one_line(command("--resume", out, "--epochs=1", instead=True), "--epochs must be more than 1")


def test_resume_without_its_model_is_an_error_before_training(command, out):
    command(f"--out={out}")
    (out / MODEL).unlink()
    before = contents(out)
    one_line(command("--resume", out, "--epochs=4", instead=True), out / MODEL, "is missing")
    assert contents(out) == before


def test_resume_from_another_folder(command, out, tmp_path, monkeypatch):
    """Data files given by relative paths are still found."""
    monkeypatch.chdir(tmp_path)
    relative = [f"--{n}=data/{f}" for n, f in [
        ("captions", "captions.txt"), ("train-split", "train.txt"), ("dev-split", "dev.txt"),
        ("features", "features.npz"),
    ]]  # fmt: skip
    extra = [f"--{name.replace('_', '-')}={value}" for name, value in SHAPE.items()]
    status, _, _ = command(
        *relative, *extra, f"--out={out}", "--epochs=1", "--min-count=1", instead=True
    )
    assert status == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert command(f"--resume={out}", "--epochs=2", instead=True)[0] == 0


def test_resume_with_the_same_data_in_another_place(command, files, out, tmp_path):
    command(f"--out={out}", "--epochs=1")
    moved = tmp_path / "moved"
    files.captions[0].parent.rename(moved)
    result = command("--resume", out, "--epochs=2", instead=True)
    one_line(result, files.captions[0], "No such file")
    where = [f"--{name}={moved / file}" for name, file in [
        ("captions", "captions.txt"), ("train-split", "train.txt"), ("dev-split", "dev.txt"),
        ("test-split", "test.txt"), ("features", "features.npz"),
    ]]  # fmt: skip
    assert command("--resume", out, "--epochs=2", *where, instead=True)[0] == 0
    assert command("--resume", out, "--epochs=3", instead=True)[0] == 0  # the new paths are saved


def test_resume_refuses_other_settings(command, out):
    command(f"--out={out}")
    before = contents(out)
    for option in ("--dropout=0.5", "--seed=1", "--workers=2", "--hidden-size=9", "--max-length=5"):
        result = command("--resume", out, option, instead=True)
        one_line(result, option.partition("=")[0], "cannot be changed")
    one_line(command("--resume", out, "--seed=1", "--recipe=course", instead=True), "--recipe")
    assert contents(out) == before


def test_resume_refuses_changed_data(command, files, out):
    command(f"--out={out}")
    before = contents(out)
    features = read_features(files.features[0])
    features.array[0, 0] += 1
    features.save(files.features[0])
    one_line(command("--resume", out, instead=True), out, "have changed")
    text = files.captions[0].read_text()
    files.captions[0].write_text(text.replace("dog", "cat"))
    one_line(command("--resume", out, instead=True), "cat", "dog")
    files.captions[0].unlink()
    one_line(command("--resume", out, instead=True), files.captions[0], "No such file")
    assert contents(out) == before


def test_a_folder_in_which_another_process_trains_is_refused(command, out):
    command(f"--out={out}")
    before = contents(out)
    with exclusive(out / LOCK, ""):
        one_line(command("--resume", out, "--epochs=9", instead=True), out, "another process")
    assert contents(out) == before
    assert command("--resume", out, "--epochs=9", instead=True)[0] == 0


def test_resume_of_nothing_or_of_something_broken(command, out):
    one_line(command("--resume", out, instead=True), out / RUN, "no such file")
    command(f"--out={out}")
    whole = (out / RUN).read_bytes()
    (out / RUN).write_bytes(whole[:-1])
    one_line(command("--resume", out, instead=True), out / RUN, "truncated")
    (out / RUN).write_bytes((out / MODEL).read_bytes())
    one_line(command("--resume", out, instead=True), "this is a model, but a run is needed")


def test_out_that_contains_a_run_is_not_touched(command, out, monkeypatch):
    command(f"--out={out}")
    before = contents(out)
    monkeypatch.setattr(opening, "load_dataset", None)  # refused before the data is read
    one_line(command(f"--out={out}"), f"{out} contains a run", f"--resume {out}")
    assert contents(out) == before


def test_an_impossible_out_is_an_error_before_training(command, files, tmp_path):
    one_line(command(f"--out={files.captions[0]}"), "this is a file")
    one_line(command(f"--out={files.captions[0]}/x"), "cannot create the folder")


@pytest.mark.parametrize(
    "option",
    [
        "--epochs=0",
        "--patience=-1",
        "--batch-size=0",
        "--steps-per-epoch=0",
        "--learning-rate=0",
        "--learning-rate=nan",
        "--learning-rate=inf",
        "--beta1=1",
        "--beta2=-0.1",
        "--epsilon=0",
        "--epsilon=1e-40",  # almost 0 in float32
        "--self-critical-epochs=2",  # all of them
        "--samples-per-image=1",
        "--self-critical-temperature=0",
        "--self-critical-learning-rate=0",
        "--bleu-reward=-1",
        "--warmup-epochs=-1",
        "--image-gain=0",
        "--embedding-dropout=1",
        "--dropout=1",
        "--dropout=-0.1",
        "--dropout=nan",
        "--clip-norm=-1",
        "--clip-norm=nan",
        "--clip-norm=inf",
        "--max-length=2",
        "--max-length=1000000000",
        "--min-count=0",
        "--hidden-size=0",
        "--embedding-size=-1",
        "--image-bottleneck=-1",
        "--logit-bottleneck=-1",
        "--workers=0",
        "--workers=1000000",
        "--epochs=1000000001",
        "--hidden-size=1000000000",
        "--image-bottleneck=1000000",
        "--seed=-1",
    ],
)
def test_numbers_out_of_range(command, out, option):
    one_line(command(f"--out={out}", option), option.partition("=")[0] + " must be")
    assert not out.exists()


def test_every_option_of_the_architecture_at_once(command, out):
    """Trained, with dropout and self-critical epochs, resumed, and loaded."""
    shape = ("--embedding-size=7", "--image-input=every_step", "--image-bottleneck=0")
    more = (
        "--dropout=0.2",
        "--embedding-dropout=0.2",
        "--self-critical-epochs=1",
        "--samples-per-image=2",
    )
    more += ("--monitor=cider",)
    status, output, _ = command(f"--out={out}", *shape, *more, "--workers=2")
    assert status == 0 and "image_bottleneck 0" in output
    assert "image_input every_step" in output
    config = Model.load(out / MODEL).decoder.config
    assert (config.embedding_size, config.image_input) == (7, "every_step")
    assert config.image_bottleneck == 0
    assert command(f"--resume={out}", "--epochs=3", instead=True)[0] == 0


@pytest.mark.parametrize(
    "wrong", [["--nonsense"], ["--epochs=many"], ["--recipe=quick"], ["--device=tpu"], ["extra"]]
)
def test_wrong_options_end_in_tyro_s_box(command, out, wrong):
    status, text, error = command(f"--out={out}", *wrong)
    assert status == 2 and wrong[0].partition("=")[0] in (error + text) and not out.exists()


def test_help_explains_every_option(command):
    status, text, _ = command("--help", instead=True)
    assert status == 0
    for option in (
        "--captions",
        "--train-split",
        "--resume",
        "--dropout",
        "--hidden-size",
        "--workers",
    ):
        assert option in text
    assert "dropout rate of the image features" in " ".join(text.split())


def test_no_cupy_is_one_line(command, out, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    one_line(command(f"--out={out}", "--device=cuda"), "--device cuda", "'.[gpu]'")
    assert not out.exists()


def spoil(files, what):
    """Break one of the data files."""
    features = read_features(files.features[0])
    if what == "captions gone":
        files.captions[0].unlink()
    elif what == "captions empty":
        files.captions[0].write_text("")
    elif what == "no tab":
        files.captions[0].write_text(files.captions[0].read_text() + "12.jpg A dog\n" * 11)
    elif what == "features truncated":
        files.features[0].write_bytes(files.features[0].read_bytes()[:-50])
    elif what == "features nan":
        features.array[4, 1] = numpy.nan
        features.save(files.features[0])
    elif what == "wrong features":
        Features(["x.jpg"], features.array[:1]).save(files.features[0])
    elif what == "split empty":
        files.dev_split.write_text("")
    elif what == "leak":
        files.dev_split.write_text("0.jpg\n")


@pytest.mark.parametrize(
    ("what", "file", "reason"),
    [
        ("captions gone", "captions", "No such file"),
        ("captions empty", "captions", "no captions"),
        ("no tab", "captions", ", line 31: expected name#number, a tab and a caption"),
        ("features truncated", "features", "broken"),
        ("features nan", "features", "row 4 (4.jpg): NaN or infinite"),
        ("wrong features", "features", "none of its 6 photos"),
        ("split empty", "dev_split", "no photo names"),
        ("leak", "dev_split", "0.jpg is in the train split"),
    ],
)
def test_bad_data_is_one_line_and_leaves_nothing(command, files, out, what, file, reason):
    spoil(files, what)
    value = getattr(files, file)
    one_line(command(f"--out={out}"), *(value if isinstance(value, tuple) else [value]), reason)
    assert not out.exists()


def test_half_of_the_files_names_the_others(command, files):
    lists = f"--test-split={files.test_split}"
    given = f"--captions={files.captions[0]}", f"--features={files.features[0]}"
    one_line(command(given[0], instead=True), "--features")
    one_line(command(*given, lists, instead=True), "give --train-split and --dev-split too")


def test_captions_and_features_are_enough(command, files, out):
    """Splits are random, reported, and the same when the run resumes."""
    given = f"--captions={files.captions[0]}", f"--features={files.features[0]}", f"--out={out}"
    small = "--epochs=1", "--batch-size=4", "--min-count=1", "--dev-fraction=0.3"
    status, text, error = command(*given, *small, instead=True)
    assert status in (0, None) and not error
    assert "note      random splits with seed 0" in text
    status, again, _ = command(f"--resume={out}", "--epochs=2", instead=True)
    assert status in (0, None) and "random splits" in again and "epoch   2" in again
    one_line(command(f"--resume={out}", "--split-seed=1", instead=True), "--split-seed cannot be")


def test_a_missing_photos_folder_is_an_error_before_training(command, out, tmp_path):
    one_line(command(f"--out={out}", f"--photos={tmp_path / 'nix'}"), "nix: no such folder")
    assert not out.exists()


def test_divergence_as_a_real_process(files, out):
    """One line on stderr, which names the step, and no warnings from NumPy."""
    child = process(files, f"--out={out}", "--learning-rate=1e30")
    _, error = child.communicate()
    assert child.returncode == 1 and error.count("\n") == 1
    assert "the loss became nan in epoch 1, step 2" in error and "--learning-rate" in error
    assert not out.exists()  # nothing was saved, and no empty folder is left


def test_output_that_nobody_reads(files, out):
    """`| head -1` closes the pipe. The command ends without a traceback."""
    child = process(files, f"--out={out}", "--epochs=1000")
    child.stdout.readline()
    child.stdout.close()
    error = child.stderr.read()
    child.stderr.close()
    assert child.wait() != 0 and "Traceback" not in error


def test_a_run_that_is_worse_than_no_training_warns(command, out):
    status, output, _ = command(f"--out={out}", "--learning-rate=30", "--epochs=1")
    assert status == 0
    assert "warning   the best dev loss, " in output and "use a smaller --learning-rate" in output
    output = command(f"--out={out}-2", "--epochs=1")[1]
    assert "warning" not in output


def test_cider_needs_two_dev_images(command, files, out):
    files.dev_split.write_text(files.dev_split.read_text().split()[0] + "\n")
    result = command(f"--out={out}", "--monitor=cider")
    one_line(result, "at least two dev images", "--monitor loss")
    assert command(f"--out={out}", "--monitor=loss", "--epochs=1")[0] == 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda options: options["decoder"].update(layers=2), "trained with --layers"),
        (lambda options: options["decoder"].update(odd=1), "has the option odd"),
        (lambda options: options["training"].update(odd=1), "has the option odd"),
        (lambda options: options["training"].pop("dropout"), "lacks the option dropout"),
        (lambda options: options.update(odd=1), "has the option odd"),
        (lambda options: options["data"].pop("dev_fraction"), "lacks the option dev_frac"),
    ],
)
def test_a_run_of_another_version_is_one_line(command, out, change, reason):
    command(f"--out={out}", "--epochs=1")
    arrays, about = checkpoint.load(out / RUN, "run")
    change(about["options"])
    checkpoint.save(out / RUN, "run", arrays, about)
    one_line(command("--resume", out, instead=True), reason, out / RUN)


def test_a_run_that_had_removed_options_off_resumes(command, out):
    command(f"--out={out}", "--epochs=1")
    arrays, about = checkpoint.load(out / RUN, "run")
    about["options"]["decoder"] |= {"layers": 1, "tie": False}
    about["options"]["training"] |= {"average": 1, "label_smoothing": 0}
    checkpoint.save(out / RUN, "run", arrays, about)
    assert command("--resume", out, "--epochs=2", instead=True)[0] == 0


def as_format_1(about):
    """The description that a run of format 1 had, with its old names."""
    options = dict(about["options"])
    settings = options.pop("decoder") | options.pop("training")
    settings["temperature"] = settings.pop("self_critical_temperature")
    old = {new: name for name, new in RENAMED.items() if name != "photo"}
    values = {"initial_state": "first", "every_step": "always", "images": "photos"}
    options["settings"] = {
        "photo" if name == "image_input" else old.get(name, name): (
            values.get(value, value) if name in ("image_input", "sample_by") else value
        )
        for name, value in settings.items()
    }
    options["threads"] = options.pop("workers")
    return about | {"options": options}


def test_a_run_of_format_1_resumes(command, out, tmp_path, monkeypatch):
    """To the same result, bit for bit, as one of this format."""
    words = ("--recipe=best", "--self-critical-epochs=1", "--samples-per-image=2", "--epochs=2")
    command(f"--out={out}", *words)
    shutil.copytree(out, tmp_path / "old")
    arrays, about = checkpoint.load(out / RUN, "run")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT", 1)
        old = as_format_1({name: about[name] for name in about.keys() - {"format", "kind"}})
        checkpoint.save(tmp_path / "old" / RUN, "run", arrays, old)
    for folder in out, tmp_path / "old":
        assert command("--resume", folder, "--epochs=3", instead=True)[0] == 0
    one, other = (checkpoint.load(folder / RUN, "run") for folder in (out, tmp_path / "old"))
    assert all(numpy.array_equal(one[0][name], other[0][name]) for name in one[0])
    assert one[1]["options"]["training"] == other[1]["options"]["training"]
    assert one[1]["options"]["decoder"] == other[1]["options"]["decoder"]


def test_fine_tuning_on_other_captions(command, files, out, tmp_path):
    """A new run starts where the model ended, learns new words, and resumes bit for bit."""
    assert command(f"--out={out}", "--epochs=6", "--standardise")[0] == 0
    first = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    again = tmp_path / "again"
    init = f"--init-from={out / MODEL}"
    _, text, _ = command(f"--out={again}", init, "--learning-rate=1e-9", "--epochs=1")
    assert "fine-tuning: " in text and ", 0 new" in text
    (line,) = map(json.loads, (again / "metrics.jsonl").read_text().splitlines())
    assert line["dev_loss"] == pytest.approx(first["dev_loss"], abs=1e-4)

    text = files.captions[0].read_text()
    files.captions[0].write_text(text.replace("dog", "zebra"))
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    _, text, _ = command(f"--out={whole}", init)
    assert ", 1 new (zebra)" in text
    assert "zebra" in Model.load(whole / MODEL).vocabulary.ids
    assert "dog" in Model.load(whole / MODEL).vocabulary.ids
    command(f"--out={halves}", init, "--epochs=1")
    assert command("--resume", halves, "--epochs=2", instead=True)[0] == 0
    one, other = (Model.load(folder / MODEL).decoder.parameters.flat for folder in (whole, halves))
    assert one.tobytes() == other.tobytes()
    for option in "--hidden-size=9", "--tokenizer=unicode", "--standardise":
        name = option.partition("=")[0]
        one_line(command(f"--out={tmp_path / 'x'}", init, option), f"{name} cannot be changed")
    one_line(command(f"--out={tmp_path / 'x'}", f"--init-from={out / 'gone'}"), "gone")
