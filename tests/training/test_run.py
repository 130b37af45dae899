"""A run in its folder: epochs, the best model, early stopping, Ctrl-C, and resuming."""

import dataclasses
import json
import multiprocessing
import os
import signal
import threading

import numpy
import pytest

from minicap.evaluation.plots import write_report
from minicap.model import checkpoint
from minicap.model.trained_model import Model
from minicap.training.opening import new_folder
from minicap.training.run import METRICS, MODEL, RUN, Interrupted, Run
from minicap.training.trainer import Diverged, Trainer
from minicap.utils.errors import UserError
from minicap.utils.interrupts import interruptible
from tests.tiny import dataset, recipe


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture
def new(data, tmp_path):
    """Makes a run in a folder of its own."""

    def make(wanted=None, name="run", on=data, workers=1):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        return Run(folder, Trainer(wanted or recipe(), on, 0, workers), {"seed": 0})

    return make


def quiet(_line):
    """Instead of tqdm.write."""


def dev_losses(monkeypatch, losses):
    """Replace the dev loss by these numbers, epoch by epoch."""
    remaining = iter(losses)
    monkeypatch.setattr(Trainer, "evaluate", lambda self: (next(remaining), 0.5))


def restored(run):
    run.restore(*checkpoint.load(run.folder / RUN, "run"))
    return run


def test_a_run_leaves_model_state_and_metrics(new, data):
    run = new(recipe(epochs=3))
    lines = []
    run.fit(lines.append)
    assert sorted(path.name for path in run.folder.iterdir()) == sorted([METRICS, MODEL, RUN])
    metrics = [json.loads(line) for line in (run.folder / METRICS).read_text().splitlines()]
    assert metrics == run.progress.history and [line["epoch"] for line in metrics] == [1, 2, 3]
    assert set(metrics[0]) == {
        "epoch", "train_loss", "dev_loss", "dev_accuracy", "words_per_second", "seconds"
    }  # fmt: skip
    epochs = [line for line in lines if line.startswith("epoch")]
    assert len(epochs) == 3 and f"dev loss {metrics[0]['dev_loss']:.4f}" in epochs[0]
    captions = [line for line in lines if "reference: " in line]
    assert len(captions) == 9  # three dev images after each epoch
    dev = data.splits["dev"]
    assert all(f"{dev.names[0]}: " in line for line in captions[::3])
    assert dev.captions[0][0] in captions[0]


def test_train_loss_is_the_mean_over_the_epoch_s_words(new, monkeypatch):
    losses = []
    real = Trainer.train_step

    def spy(self, batch):
        loss = real(self, batch)
        losses.append((loss, len(batch.targets)))
        return loss

    monkeypatch.setattr(Trainer, "train_step", spy)
    run = new(recipe(epochs=2))
    run.fit(quiet)
    for line, epoch in zip(run.progress.history, (losses[:4], losses[4:]), strict=True):
        expected = sum(loss * words for loss, words in epoch) / sum(words for _, words in epoch)
        assert abs(line["train_loss"] - expected) < 1e-12


def test_the_best_model_is_kept_not_the_last(new, monkeypatch):
    dev_losses(monkeypatch, [3.0, 1.0, 2.0, 1.0])
    run, kept = new(recipe(epochs=4, patience=0)), []

    def copy(line):
        if line.startswith("epoch"):
            kept.append(run.trainer.parameters.flat.copy())

    run.fit(copy)
    assert run.progress.best_epoch == 2 and len(kept) == 4
    model = Model.load(run.folder / MODEL)
    assert numpy.array_equal(model.decoder.parameters.flat, kept[1])
    assert checkpoint.load(run.folder / MODEL, "model")[1]["epoch"] == 2


@pytest.mark.parametrize(
    ("patience", "epochs"), [(1, 3), (2, 4), (3, 8), (0, 8)], ids="patience={0}".format
)
def test_early_stopping(new, monkeypatch, patience, epochs):
    """The best epochs are 2 and, if the run gets there, 5."""
    dev_losses(monkeypatch, [3.0, 2.0, 2.5, 2.0, 1.5, 1.6, 1.5, 1.7])
    run = new(recipe(epochs=8, patience=patience))
    assert not run.finished()
    run.fit(quiet)
    assert len(run.progress.history) == epochs and run.stalled() == (patience > 0)
    assert run.finished()


def interrupt_after(monkeypatch, steps):
    """Send a real SIGINT to this process during a training step."""
    real, done = Trainer.train_step, []

    def step(self, batch):
        done.append(1)
        if len(done) == steps:
            os.kill(os.getpid(), signal.SIGINT)
        return real(self, batch)

    monkeypatch.setattr(Trainer, "train_step", step)


@pytest.mark.parametrize("steps", [1, 3, 5, 8])
def test_ctrl_c_saves_and_the_resumed_run_ends_the_same(new, monkeypatch, steps):
    """Stopped in the first, in the middle or at the end of an epoch of four steps; bit for bit."""
    wanted = recipe(epochs=3, dropout=0.2)
    whole = new(wanted, "whole")
    whole.fit(quiet)
    first = new(wanted, "cut")
    with monkeypatch.context() as patch:
        interrupt_after(patch, steps)
        with pytest.raises(Interrupted):
            first.fit(quiet)
    assert first.trainer.adam.t == steps
    second = restored(new(wanted, "cut"))
    assert second.trainer.adam.t == steps
    second.fit(quiet)
    assert second.trainer.parameters.flat.tobytes() == whole.trainer.parameters.flat.tobytes()
    assert second.trainer.adam.m.tobytes() == whole.trainer.adam.m.tobytes()
    for key in ("epoch", "train_loss", "dev_loss", "dev_accuracy"):
        assert [x[key] for x in second.progress.history] == [x[key] for x in whole.progress.history]
    one, other = (Model.load(run.folder / MODEL) for run in (whole, second))
    parameters = one.decoder.parameters.flat
    assert parameters.tobytes() == other.decoder.parameters.flat.tobytes()


def test_a_second_ctrl_c_stops_at_once():
    with pytest.raises(KeyboardInterrupt), interruptible() as received:
        os.kill(os.getpid(), signal.SIGINT)
        assert received
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_sigterm_counts_as_ctrl_c_and_handlers_are_restored():
    before = signal.getsignal(signal.SIGTERM)
    with interruptible() as received:
        os.kill(os.getpid(), signal.SIGTERM)
        assert received == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_run_in_another_thread_works_without_signals(new):
    run = new(recipe(epochs=1))
    thread = threading.Thread(target=run.fit, args=[quiet])
    thread.start()
    thread.join()
    assert (run.folder / MODEL).exists()


def test_a_loss_that_becomes_nan_names_step_and_model(new, data):
    """In the second epoch; the model of the first is unchanged, byte for byte."""
    run = new(recipe(epochs=1))
    run.fit(quiet)
    before = (run.folder / MODEL).read_bytes(), (run.folder / RUN).read_bytes()
    train = data.splits["train"]
    bad = dataclasses.replace(train, features=numpy.full_like(train.features, numpy.nan))
    broken = dataclasses.replace(data, splits=data.splits | {"train": bad})
    again = new(recipe(epochs=2), on=broken)
    again.trainer.restore(*run.trainer.state())
    again.progress = run.progress
    with pytest.raises(Diverged) as caught:
        again.fit(quiet)
    text = str(caught.value)
    assert "nan in epoch 2, step" in text and f"{run.folder / MODEL} (epoch 1) is kept" in text
    assert "\n" not in text
    assert ((run.folder / MODEL).read_bytes(), (run.folder / RUN).read_bytes()) == before


def test_nan_in_the_first_epoch_or_in_dev_loss(new, monkeypatch):
    with monkeypatch.context() as patch:
        dev_losses(patch, [float("nan")])
        with pytest.raises(Diverged, match="dev loss became nan in epoch 1.*no model was saved"):
            new(name="first").fit(quiet)
    dev_losses(monkeypatch, [1.0, float("inf")])
    with pytest.raises(Diverged, match=r"dev loss became inf in epoch 2.*\(epoch 1\) is kept"):
        new(name="second").fit(quiet)


def test_a_full_disk_in_the_second_epoch_keeps_the_first(new, monkeypatch):
    run = new(recipe(epochs=1))
    run.fit(quiet)
    before = {path: path.read_bytes() for path in run.folder.iterdir()}
    again = restored(new(recipe(epochs=2)))

    def full(arrays, file, metadata):
        file.write_bytes(b"half")
        raise checkpoint.SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(UserError, match="No space left on device"):
        again.fit(quiet)
    assert {path: path.read_bytes() for path in run.folder.iterdir()} == before


def test_changed_data_is_refused(new, data, tmp_path):
    """The error names the words that differ, or says that the numbers have changed."""
    run = new()
    run.fit(quiet)
    fewer = dataset(tmp_path / "fewer", recipe(min_count=4))
    with pytest.raises(UserError, match=r"only in the first: \d+ \("):
        restored(new(on=fewer))
    train = data.splits["train"]
    moved = dataclasses.replace(train, features=train.features + numpy.float32(1e-3))
    with pytest.raises(UserError, match="have changed since this run was saved"):
        restored(new(on=dataclasses.replace(data, splits=data.splits | {"train": moved})))


def test_a_finished_run_does_not_train(new):
    run = new()
    run.fit(quiet)
    before = run.trainer.parameters.flat.copy()
    again = restored(new())
    again.fit(quiet)
    assert numpy.array_equal(again.trainer.parameters.flat, before)
    assert again.progress.history == run.progress.history


def test_new_folders(tmp_path, monkeypatch):
    """runs/NAME, then NAME-2, ...; or the wanted folder, unless it contains a run."""
    monkeypatch.chdir(tmp_path)
    made = [new_folder(None, "scenes") for _ in range(3)]
    assert [str(path) for path in made] == ["runs/scenes", "runs/scenes-2", "runs/scenes-3"]
    assert all(path.is_dir() for path in made)
    wanted = tmp_path / "a/b"
    assert new_folder(wanted, "scenes") == wanted == new_folder(wanted, "scenes")
    for name in (RUN, MODEL):
        (wanted / name).write_text("")
        with pytest.raises(UserError, match=f"{wanted} contains a run: .*--resume {wanted}"):
            new_folder(wanted, "scenes")
        (wanted / name).unlink()
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file/inside"):
        with pytest.raises(UserError, match="file"):
            new_folder(path, "scenes")


def test_a_self_critical_run_keeps_the_epoch_of_the_highest_cider(tmp_path):
    """Metrics have rewards in place of losses, and dev CIDEr-D, which chooses the best epoch."""
    wanted = recipe(
        epochs=4, self_critical_epochs=2, samples_per_image=2, monitor="cider", learning_rate=0.02
    )
    data, lines = dataset(tmp_path / "data", wanted), []
    run = Run(tmp_path, Trainer(wanted, data, 0), {})
    run.fit(lines.append)
    history = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert ["train_reward" in line for line in history] == [False, False, True, True]
    assert all(("train_loss" in line) != ("train_reward" in line) for line in history)
    assert all("images_per_second" in line for line in history[2:])
    found = [line["dev_cider"] for line in history]
    assert run.progress.best_epoch == found.index(max(found)) + 1
    last = lines[-4]
    assert "train reward" in last and "images/s" in last and "dev CIDEr-D" in last
    assert (tmp_path / "model.safetensors").exists()
    assert write_report(tmp_path, run.progress.history, []) == [tmp_path / "loss.svg"]


def test_no_worker_outlives_the_training(new):
    run = new(recipe(epochs=1), workers=2)
    before = set(multiprocessing.active_children())
    run.fit(quiet)
    assert set(multiprocessing.active_children()) <= before and not run.trainer.workers.helpers


def test_an_ignored_ctrl_c_stays_ignored(new):
    """A script starts `train &` like this, and its Ctrl-C is not for this process."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruptible() as received:
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            os.kill(os.getpid(), signal.SIGINT)
            assert not received
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_evaluated_parameters_are_the_saved_ones(new, monkeypatch):
    """Bit for bit those of the best epoch, not of an earlier or a later one."""
    evaluated = []
    losses = iter([3.0, 1.0, 2.0])

    def evaluate(trainer):
        evaluated.append(trainer.parameters.flat.copy())
        return next(losses), 0.5

    monkeypatch.setattr(Trainer, "evaluate", evaluate)
    run = new(recipe(epochs=3, patience=0, learning_rate=0.05))
    run.fit(quiet)
    saved = Model.load(run.folder / MODEL).decoder.parameters.flat
    assert saved.tobytes() == evaluated[1].tobytes()
    assert len({parameters.tobytes() for parameters in evaluated}) == 3
