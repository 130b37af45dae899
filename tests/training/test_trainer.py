"""The trainer: what a step computes, batches of an epoch, evaluation, and bitwise resuming."""

import dataclasses
import math

import numpy
import pytest

from minicap.data.batches import pack
from minicap.model import checkpoint
from minicap.training.self_critical import Critic
from minicap.training.trainer import Diverged, Trainer, one_caption_per_image
from tests.tiny import dataset, recipe

RECIPES = {
    "captions": recipe(dropout=0.3, embedding_dropout=0.3, clip_norm=1.0),
    "images": recipe(
        dropout=0.3,
        embedding_dropout=0.3,
        sample_by="images",
        steps_per_epoch=7,
        validation="batches",
    ),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("data"), photos=24)


def new(data, wanted=RECIPES["captions"], seed=0, workers=1):
    return Trainer(wanted, data, seed, workers)


def steps(trainer, count):
    """Run this many training steps, over as many epochs as they take; return their losses."""
    losses = []
    while len(losses) < count:
        for batch in trainer.batches():
            losses.append(trainer.train_step(batch))
            if len(losses) == count:
                break
        else:
            trainer.end_epoch()
    return losses


def with_split(data, **splits):
    """The data set with other splits."""
    return dataclasses.replace(data, splits=data.splits | splits)


def assert_same(one, other):
    """Everything that the rest of a run depends on is equal, bit for bit."""
    (arrays, place), (other_arrays, other_place) = one.state(), other.state()
    assert place == other_place and arrays.keys() == other_arrays.keys()
    for name, array in arrays.items():
        assert array.tobytes() == other_arrays[name].tobytes(), name


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("sample_by", RECIPES)
@pytest.mark.parametrize("stop", [1, 8, 10])
def test_resuming_within_twenty_steps_equals_twenty(data, tmp_path, workers, sample_by, stop):
    """With dropout, stopped within an epoch, through a file: parameters, Adam's m and v, losses."""
    whole = new(data, RECIPES[sample_by], workers=workers)
    expected = steps(whole, 20)
    first = new(data, RECIPES[sample_by], workers=workers)
    losses = steps(first, stop)
    checkpoint.save(tmp_path / "run", "run", *first.state())
    arrays, place = checkpoint.load(tmp_path / "run", "run")
    second = new(data, RECIPES[sample_by], workers=workers)
    second.restore(arrays, place)
    losses += steps(second, 20 - stop)
    assert losses == expected
    assert_same(second, whole)


def test_the_same_seed_gives_the_same_run_and_another_does_not(data):
    runs = [new(data, seed=seed) for seed in (3, 3, 4)]
    losses = [steps(run, 5) for run in runs]
    assert losses[0] == losses[1] != losses[2]
    assert_same(runs[0], runs[1])


@pytest.mark.parametrize("workers", [2, 3, 9])
def test_the_number_of_workers_changes_last_bits_only(data, workers):
    """With dropout, whose masks do not depend on it; also with more workers than captions."""
    one, many = new(data), new(data, workers=workers)
    assert numpy.allclose(steps(one, 12), steps(many, 12), rtol=2e-5, atol=0)
    assert numpy.allclose(one.parameters.flat, many.parameters.flat, rtol=0, atol=2e-4)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_loss_is_the_mean_over_the_words_of_the_whole_batch(data, workers):
    """With captions of very different lengths, a mean of means, over workers or captions, is
    another number."""
    train = data.splits["train"]
    rows = numpy.argsort(train.lengths)[[0, 1, 2, -1]]
    run = new(data, recipe(), workers=workers)
    losses = [run.decoder.loss(train.batch(rows[[k]]), 1)[0] for k in range(4)]
    words = train.lengths[rows] - 1
    expected = sum(losses) / words.sum()
    assert abs(expected - numpy.mean(numpy.array(losses) / words)) > 1e-4
    assert math.isclose(run.train_step(train.batch(rows)), expected, rel_tol=1e-6)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_gradient_is_that_of_this_loss(data, workers):
    """After one step Adam's m is 0.1 times the gradient, and no worker's part is missing."""
    batch = data.splits["train"].batch(numpy.arange(9))
    run = new(data, recipe(), workers=workers)
    gradients = run.parameters.like()
    run.decoder.loss(batch)[1](gradients)
    run.train_step(batch)
    assert numpy.allclose(run.adam.m, 0.1 * gradients.flat, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("workers", [1, 2])
def test_clipping_is_over_all_parameters_of_all_workers(data, workers):
    batch = data.splits["train"].batch(numpy.arange(9))
    run = new(data, recipe(clip_norm=1e-3), workers=workers)
    run.train_step(batch)
    assert math.isclose(numpy.linalg.norm(run.adam.m / 0.1), 1e-3, rel_tol=1e-4)


def test_an_epoch_has_every_caption_once_in_a_new_order(data):
    train = data.splits["train"]
    run = new(data, recipe(batch_size=5))
    orders = []
    for run.epoch in range(2):
        batches = list(run.batches())
        assert len(batches) == run.schedule.steps(run.epoch) == math.ceil(len(train.lengths) / 5)
        assert sum(len(batch.features) for batch in batches) == len(train.lengths)
        assert sum(len(batch.targets) for batch in batches) == (train.lengths - 1).sum()
        orders.append(b"".join(batch.features.tobytes() for batch in batches))
    assert orders[0] != orders[1]


def test_one_caption_per_image_chooses_different_images(data):
    train = data.splits["train"]
    seen = set()
    for seed in range(200):
        rows = one_caption_per_image(train, 5, numpy.random.default_rng(seed))
        assert len(rows) == len(set(train.image[rows])) == 5
        seen |= set(rows.tolist())
    assert seen == set(range(len(train.lengths)))  # every caption is chosen at some time


def test_fewer_images_than_a_batch(data):
    train = data.splits["train"]
    rows = one_caption_per_image(train, 64, numpy.random.default_rng(0))
    assert sorted(train.image[rows]) == list(range(len(train.names)))


def test_images_with_more_captions_are_not_chosen_more_often(data):
    train = data.splits["train"]
    rng = numpy.random.default_rng(0)
    chosen = numpy.concatenate(
        [train.image[one_caption_per_image(train, 2, rng)] for _ in range(3000)]
    )
    counts = numpy.bincount(chosen)
    assert abs(counts / 500 - 1).max() < 0.2  # 6,000 choices among 12 images


def test_steps_of_an_epoch_differ_when_sampling_by_images(data):
    run = new(data, RECIPES["images"])
    batches = [batch.features.tobytes() for batch in run.batches()]
    assert len(batches) == len(set(batches)) == 7
    run.step = 3
    again = [batch.features.tobytes() for batch in run.batches()]
    assert again == batches[3:]


@pytest.mark.parametrize("workers", [1, 2])
def test_dev_loss_is_the_mean_over_all_words(data, workers):
    """Compared with one caption at a time, with dropout in the recipe but not in the dev loss."""
    run = new(data, workers=workers)
    steps(run, 10)
    dev = data.splits["dev"]
    total = correct = words = 0
    for row in range(len(dev.lengths)):
        batch = pack(dev.features[dev.image[[row]]], dev.ids[[row]], dev.lengths[[row]])
        right = numpy.empty(len(batch.targets), bool)
        total += run.decoder.loss(batch, 1, correct=right)[0]
        correct, words = correct + right.sum(), words + len(right)
    loss, accuracy = run.evaluate()
    assert math.isclose(loss, total / words, rel_tol=1e-6) and accuracy == correct / words
    assert words == (dev.lengths - 1).sum() and 0 < accuracy < 1
    many = dataclasses.replace(  # the same captions so often that they take several batches
        dev,
        image=numpy.tile(dev.image, 60),
        ids=numpy.tile(dev.ids, (60, 1)),
        lengths=numpy.tile(dev.lengths, 60),
    )
    assert len(many.lengths) > 3 * 256
    run.dataset = with_split(data, dev=many)
    assert numpy.allclose(run.evaluate(), (loss, accuracy), rtol=1e-6, atol=0)


def test_dev_loss_of_random_batches_is_the_mean_over_100(data, monkeypatch):
    run = new(data, RECIPES["images"])
    found = []
    real = run.loss_and_correct
    monkeypatch.setattr(run, "loss_and_correct", lambda *b: found.append(real(*b)) or found[-1])
    loss, accuracy = run.evaluate()
    assert len(found) == 100 and len({loss for loss, _, _ in found}) > 10
    assert math.isclose(loss, numpy.mean([loss / words for loss, _, words in found]))
    assert math.isclose(accuracy, numpy.mean([correct / words for _, correct, words in found]))


def test_evaluation_changes_nothing(data):
    one, other = new(data), new(data)
    losses = steps(one, 3)
    one.evaluate()
    losses += steps(one, 3)
    assert steps(other, 6) == losses
    assert_same(one, other)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("bad", [numpy.nan, numpy.inf])
def test_a_loss_that_is_not_finite_stops_before_the_update(data, workers, bad, recwarn):
    """The message names the step, parameters and Adam are unchanged, and NumPy does not warn."""
    run = new(data, workers=workers)
    steps(run, 3)
    before = {name: array.copy() for name, array in run.state()[0].items()}
    train = data.splits["train"]
    broken = dataclasses.replace(train, features=numpy.full_like(train.features, bad))
    run.dataset = with_split(data, train=broken)
    with pytest.raises(Diverged, match="nan in epoch 1, step 4"):
        steps(run, 1)
    for name, array in run.state()[0].items():
        assert array.tobytes() == before[name].tobytes()
    assert not recwarn.list


def test_numpy_s_error_settings_stay_as_they_are(data):
    before = numpy.geterr()
    steps(new(data), 1)
    assert numpy.geterr() == before


def test_training_reduces_the_loss(data):
    """This proves little, but a broken loop fails here first."""
    run = new(data, recipe(learning_rate=0.02))
    losses = steps(run, 150)
    assert abs(losses[0] - math.log(len(data.vocabulary))) < 0.05
    assert numpy.mean(losses[-10:]) < 0.6 * losses[0]


def test_adam_uses_the_learning_rate_of_the_schedule(data):
    """In its first step Adam moves every parameter by the learning rate, or not at all."""
    batch = data.splits["train"].batch(numpy.arange(9))
    for workers in (1, 2):
        wanted = recipe(warmup_epochs=10, learning_rate=0.1, batch_size=30)  # one step an epoch
        run = new(data, wanted, workers=workers)
        before = run.parameters.flat.copy()
        run.train_step(batch)
        moved = numpy.abs(run.parameters.flat - before)
        assert numpy.isclose(moved.max(), 0.01, rtol=1e-2)


def test_training_steps_follow_the_schedule(data, monkeypatch):
    """Every step of a run updates with the learning rate of its own epoch and step."""
    run = new(data, recipe(batch_size=5, epochs=4, warmup_epochs=2, decay=True, learning_rate=0.1))
    seen, real = [], run.adam.update

    def update(gradient, t, learning_rate, *more):
        seen.append((t, learning_rate))
        real(gradient, t, learning_rate, *more)

    monkeypatch.setattr(run.adam, "update", update)
    count = run.schedule.steps(0)
    steps(run, 4 * count)
    places = [(epoch, step) for epoch in range(4) for step in range(count)]
    rates = [run.schedule.learning_rate(*place) for place in places]
    assert seen == list(enumerate(rates, 1)) and len(seen) > 8


# Self-critical epochs


CRITICAL = {
    "epochs": 3,
    "self_critical_epochs": 2,
    "samples_per_image": 3,
    "batch_size": 9,
    "self_critical_temperature": 0.5,
    "bleu_reward": 1.0,
}


def critical(data, workers=1, **changes):
    wanted = recipe(**(CRITICAL | {"dropout": 0.3, "decay": True} | changes))
    return Trainer(wanted, data, 0, workers)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("stop", [4, 5, 6, 9])
def test_self_critical_epochs_resume_bit_for_bit(data, workers, stop):
    """Before, at and after the first self-critical step."""
    whole = critical(data, workers)
    assert whole.schedule.steps(0) == 4 < stop + 2
    expected = steps(whole, 11)
    first, second = critical(data, workers), critical(data, workers)
    losses = steps(first, stop)
    arrays, place = first.state()
    second.restore({name: array.copy() for name, array in arrays.items()}, place)
    losses += steps(second, 11 - stop)
    assert losses == expected and expected[0] > 0 > expected[-1]
    assert_same(second, whole)


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_sample_the_same_captions(data, workers):
    """For any number of workers the first rewards are the same, and the update nearly so."""
    one, many = critical(data), critical(data, workers)
    for run in one, many:
        run.epoch = 1
    found = [steps(run, 1)[0] for run in (one, many)]
    assert math.isclose(*found, rel_tol=1e-6)
    assert numpy.allclose(one.parameters.flat, many.parameters.flat, rtol=0, atol=1e-5)


def test_logits_are_divided_once_and_adam_starts_again(data):
    run = critical(data, self_critical_learning_rate=1e-12)
    steps(run, run.schedule.steps(run.epoch))
    before = run.parameters["token_logits"].copy()
    assert run.adam.t == 4
    for _ in range(2):
        steps(run, 2)
        assert numpy.allclose(run.parameters["token_logits"], before / 0.5, rtol=1e-4)
    assert run.epoch >= 1 and run.adam.t == 4  # counted from the first self-critical step


def test_captions_with_a_higher_reward_become_likelier(data, monkeypatch):
    """With the number of words as the reward, captions become longer."""
    monkeypatch.setattr(Critic, "reward", lambda self, image, ids: float(len(ids)))
    run = critical(
        data,
        self_critical_learning_rate=0.01,
        epochs=41,
        self_critical_epochs=40,
        self_critical_temperature=1.0,
    )
    run.epoch = 1
    rewards = [-loss for loss in steps(run, 60)]
    assert numpy.mean(rewards[-10:]) > 1.3 * numpy.mean(rewards[:10])


def test_adam_uses_the_self_critical_learning_rate(data):
    run = critical(
        data, self_critical_learning_rate=0.01, decay=False, self_critical_temperature=1.0
    )
    run.epoch = 1
    before = run.parameters.flat.copy()
    steps(run, 1)
    moved = numpy.abs(run.parameters.flat - before)
    assert numpy.isclose(moved.max(), 0.01, rtol=1e-2)


def test_adams_moments_are_reset_when_self_critical_epochs_begin(data):
    """The first step is then as large as Adam's very first."""
    run = critical(
        data, self_critical_learning_rate=0.01, decay=False, self_critical_temperature=1.0
    )
    run.epoch, run.adam.t = 1, 4
    run.adam.m[...], run.adam.v[...] = 5, 5
    before = run.parameters.flat.copy()
    steps(run, 1)
    moved = numpy.abs(run.parameters.flat - before)
    assert numpy.isclose(moved.max(), 0.01, rtol=1e-2)
