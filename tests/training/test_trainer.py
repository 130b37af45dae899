"""The training loop: what a step computes, what is drawn where, and going on bit for bit."""

import dataclasses
import math
import threading
import time

import numpy
import pytest

from minicap.backend import blas
from minicap.data.batches import pack
from minicap.model import checkpoint
from minicap.model.config import Sizes
from minicap.model.decoder import caption_loss
from minicap.model.masks import draw_masks
from minicap.training import trainer as module
from minicap.training import workers
from minicap.training.self_critical import Critic
from minicap.training.trainer import Diverged, Trainer, one_caption_per_image
from tests.tiny import dataset, recipe, sizes

RECIPES = {
    "captions": recipe(dropout=0.3, embedding_dropout=0.3, clip_norm=1.0),
    "photos": recipe(
        dropout=0.3,
        embedding_dropout=0.3,
        sampling="photos",
        steps_per_epoch=7,
        validation="batches",
    ),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("data"), photos=24)


def new(data, of=RECIPES["captions"], seed=0, threads=1):
    return Trainer(of, sizes(data), seed, threads)


def steps(trainer, split, count):
    """So many training steps, over as many epochs as that takes: their losses."""
    losses = []
    while len(losses) < count:
        for batch in trainer.batches(split):
            losses.append(trainer.train_step(batch))
            if len(losses) == count:
                break
        else:
            trainer.epoch, trainer.step = trainer.epoch + 1, 0
    return losses


def assert_same(one, other):
    """Not nearly: every bit of everything that the rest of a run depends on."""
    (arrays, place), (other_arrays, other_place) = one.state(), other.state()
    assert place == other_place and arrays.keys() == other_arrays.keys()
    for name, array in arrays.items():
        assert array.tobytes() == other_arrays[name].tobytes(), name


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("sampling", RECIPES)
@pytest.mark.parametrize("stop", [1, 8, 10])
def test_ten_steps_stop_resume_ten_steps_equals_twenty(data, tmp_path, threads, sampling, stop):
    """With dropout, stopped in mid-epoch, through a file: parameters, Adam's m and v, losses."""
    split = data.splits["train"]
    whole = new(data, RECIPES[sampling], threads=threads)
    expected = steps(whole, split, 20)
    first = new(data, RECIPES[sampling], threads=threads)
    losses = steps(first, split, stop)
    checkpoint.save(tmp_path / "run", "run", *first.state())
    arrays, place = checkpoint.load(tmp_path / "run", "run")
    second = new(data, RECIPES[sampling], threads=threads)
    second.restore(arrays, place)
    losses += steps(second, split, 20 - stop)
    assert losses == expected
    assert_same(second, whole)


def test_the_same_seed_is_the_same_run_and_another_is_not(data):
    split = data.splits["train"]
    runs = [new(data, seed=seed) for seed in (3, 3, 4)]
    losses = [steps(run, split, 5) for run in runs]
    assert losses[0] == losses[1] != losses[2]
    assert_same(runs[0], runs[1])


@pytest.mark.parametrize("threads", [2, 3, 9])
def test_the_number_of_threads_changes_last_bits_only(data, threads):
    """With dropout, so masks are the same for any number; also with more threads than captions."""
    split = data.splits["train"]
    one, many = new(data), new(data, threads=threads)
    assert numpy.allclose(steps(one, split, 12), steps(many, split, 12), rtol=2e-5, atol=0)
    assert numpy.allclose(one.parameters.flat, many.parameters.flat, rtol=0, atol=2e-4)


def test_threads_put_back_how_many_threads_blas_has(data, monkeypatch):
    """Each of them sets one for all, and puts back what it found: which must not be another's."""
    monkeypatch.setattr(workers, "FORK", False)
    run, begun = new(data, threads=2), threading.Barrier(2)
    before = blas().limit(limits=2)
    real = run._differentiate

    def meeting(*job):
        begun.wait(10)  # both have set the number; the first to end is the first to have begun
        loss = real(*job)
        time.sleep(0.2 * job[0])
        return loss

    monkeypatch.setattr(run, "_differentiate", meeting)
    run.train_step(data.splits["train"].batch(numpy.arange(7)))
    found = {library.num_threads for library in blas().lib_controllers}
    before.restore_original_limits()
    assert found <= {2}


def test_each_worker_gets_its_part_of_the_same_masks(data, monkeypatch):
    """Put together, the masks of three workers are those of one, row by row."""
    seen = []
    real = module.caption_loss

    def spy(p, share, words, masks, **options):
        seen.append((share, masks))
        return real(p, share, words, masks, **options)

    monkeypatch.setattr(module, "caption_loss", spy)
    monkeypatch.setattr(workers, "FORK", False)  # threads: what they see can be seen here
    batch = data.splits["train"].batch(numpy.arange(7))

    def rows(shares):
        """Each input row with its masks, so that order does not matter."""
        found = []
        for share, masks in shares:
            start = 0
            for size in share.sizes:
                for n in range(size):
                    row = start + n
                    found.append(
                        share.features[n].tobytes()
                        + bytes([int(share.targets[row])])
                        + masks["features"][n].tobytes()
                        + masks["img_embed_bottleneck_to_h0"][n].tobytes()
                        + masks["lstm"][share.positions[row]].tobytes()
                        + masks["token_logits_bottleneck"][row].tobytes()
                        + masks["token_logits"][row].tobytes()
                    )
                start += size
        return sorted(found)

    new(data, threads=1).train_step(batch)
    alone = rows(seen)
    seen.clear()
    new(data, threads=3).train_step(batch)
    assert len(seen) == 3 and rows(seen) == alone


def test_masks_differ_from_step_to_step(data, monkeypatch):
    drawn = []
    real = module.draw_masks
    monkeypatch.setattr(
        module, "draw_masks", lambda *a: drawn.append(real(*a)["token_logits"]) or {}
    )
    monkeypatch.setattr(module, "caption_loss", lambda p, s, w, m, **_: caption_loss(p, s, w))
    run = new(data)
    batch = data.splits["train"].batch(numpy.arange(4))
    for _ in range(3):
        run.train_step(batch)
    assert len({mask.tobytes() for mask in drawn}) == 3


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_loss_is_the_mean_over_the_words_of_the_whole_batch(data, threads):
    """Captions of very different lengths: a mean of means, over workers or captions, is another
    number."""
    part = data.splits["train"]
    rows = numpy.argsort(part.lengths)[[0, 1, 2, -1]]
    run = new(data, recipe(), threads=threads)
    each = [caption_loss(run.parameters, part.batch(rows[[k]]), 1)[0] for k in range(4)]
    words = part.lengths[rows] - 1
    expected = sum(each) / words.sum()
    assert abs(expected - numpy.mean(numpy.array(each) / words)) > 1e-4
    assert math.isclose(run.train_step(part.batch(rows)), expected, rel_tol=1e-6)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_gradient_is_that_of_this_loss(data, threads):
    """After one step Adam's m is 0.1 times the gradient, and no worker's part is missing."""
    part = data.splits["train"]
    batch = part.batch(numpy.arange(9))
    run = new(data, recipe(), threads=threads)
    gradients = run.parameters.like()
    caption_loss(run.parameters, batch)[1](gradients)
    run.train_step(batch)
    assert numpy.allclose(run.adam.m, 0.1 * gradients.flat, rtol=1e-3, atol=1e-7)


def test_clipping_is_over_all_parameters_of_all_workers(data):
    batch = data.splits["train"].batch(numpy.arange(9))
    run = new(data, recipe(clip_norm=1e-3), threads=2)
    run.train_step(batch)
    assert math.isclose(numpy.linalg.norm(run.adam.m / 0.1), 1e-3, rel_tol=1e-4)


def test_an_epoch_is_all_captions_once_in_another_order_each_time(data):
    split = data.splits["train"]
    run = new(data, recipe(batch_size=5))
    orders = []
    for run.epoch in range(2):
        batches = list(run.batches(split))
        assert len(batches) == run.steps_in(split, run.epoch) == math.ceil(len(split.lengths) / 5)
        assert sum(len(batch.features) for batch in batches) == len(split.lengths)
        assert sum(len(batch.targets) for batch in batches) == (split.lengths - 1).sum()
        orders.append(b"".join(batch.features.tobytes() for batch in batches))
    assert orders[0] != orders[1]


def test_the_course_draws_different_photos_and_one_caption_of_each(data):
    split = data.splits["train"]
    seen = set()
    for seed in range(200):
        rows = one_caption_per_image(split, 5, numpy.random.default_rng(seed))
        assert len(rows) == len(set(split.photo[rows])) == 5
        seen |= set(rows.tolist())
    assert seen == set(range(len(split.lengths)))  # each caption has its turn


def test_fewer_photos_than_a_batch(data):
    split = data.splits["train"]
    rows = one_caption_per_image(split, 64, numpy.random.default_rng(0))
    assert sorted(split.photo[rows]) == list(range(len(split.names)))


def test_photos_with_more_captions_are_not_drawn_more_often(data):
    split = data.splits["train"]
    rng = numpy.random.default_rng(0)
    drawn = numpy.concatenate(
        [split.photo[one_caption_per_image(split, 2, rng)] for _ in range(3000)]
    )
    counts = numpy.bincount(drawn)
    assert abs(counts / 500 - 1).max() < 0.2  # 6,000 draws of 12 photos


def test_steps_of_an_epoch_differ_in_the_course_s_way_too(data):
    run = new(data, RECIPES["photos"])
    batches = [batch.features.tobytes() for batch in run.batches(data.splits["train"])]
    assert len(batches) == len(set(batches)) == 7
    run.step = 3
    again = [batch.features.tobytes() for batch in run.batches(data.splits["train"])]
    assert again == batches[3:]


@pytest.mark.parametrize("threads", [1, 2])
def test_dev_loss_is_the_sum_over_all_words_by_their_number(data, threads):
    """Held against one caption at a time, with dropout in the recipe but not in the sum."""
    run = new(data, threads=threads)
    steps(run, data.splits["train"], 10)
    part = data.splits["dev"]
    total = correct = words = 0
    for row in range(len(part.lengths)):
        batch = pack(part.features[part.photo[[row]]], part.ids[[row]], part.lengths[[row]])
        hit = numpy.empty(len(batch.targets), bool)
        total += caption_loss(run.parameters, batch, 1, correct=hit)[0]
        correct, words = correct + hit.sum(), words + len(hit)
    loss, accuracy = run.evaluate(part)
    assert math.isclose(loss, total / words, rel_tol=1e-6) and accuracy == correct / words
    assert words == (part.lengths - 1).sum() and 0 < accuracy < 1
    many = dataclasses.replace(  # the same captions so often that they take several batches
        part,
        photo=numpy.tile(part.photo, 60),
        ids=numpy.tile(part.ids, (60, 1)),
        lengths=numpy.tile(part.lengths, 60),
    )
    assert len(many.lengths) > 3 * 256
    assert numpy.allclose(run.evaluate(many), (loss, accuracy), rtol=1e-6, atol=0)


def test_dev_loss_in_the_course_s_way_is_the_mean_over_100_batches(data, monkeypatch):
    run = new(data, RECIPES["photos"])
    found = []
    real = run._loss_and_hits
    monkeypatch.setattr(run, "_loss_and_hits", lambda *b: found.append(real(*b)) or found[-1])
    loss, accuracy = run.evaluate(data.splits["dev"])
    assert len(found) == 100 and len({loss for loss, _, _ in found}) > 10
    assert math.isclose(loss, numpy.mean([loss / words for loss, _, words in found]))
    assert math.isclose(accuracy, numpy.mean([correct / words for _, correct, words in found]))


def test_evaluation_changes_nothing(data):
    one, other = new(data), new(data)
    split = data.splits["train"]
    losses = steps(one, split, 3)
    one.evaluate(data.splits["dev"])
    losses += steps(one, split, 3)
    assert steps(other, split, 6) == losses
    assert_same(one, other)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("bad", [numpy.nan, numpy.inf])
def test_a_loss_that_is_no_number_stops_before_the_update(data, threads, bad, recwarn):
    """The step is named, parameters and Adam are as before, and NumPy does not chatter."""
    run = new(data, threads=threads)
    split = data.splits["train"]
    steps(run, split, 3)
    before = {name: array.copy() for name, array in run.state()[0].items()}
    broken = dataclasses.replace(split, features=numpy.full_like(split.features, bad))
    with pytest.raises(Diverged, match="nan at step 4"):
        steps(run, broken, 1)
    for name, array in run.state()[0].items():
        assert array.tobytes() == before[name].tobytes()
    assert not recwarn.list


def test_numpy_s_own_settings_are_left_alone(data):
    before = numpy.geterr()
    steps(new(data), data.splits["train"], 1)
    assert numpy.geterr() == before


def test_learning_brings_the_loss_down(data):
    """No proof of anything, but a broken loop shows here first."""
    run = new(data, recipe(learning_rate=0.02))
    losses = steps(run, data.splits["train"], 150)
    assert abs(losses[0] - math.log(len(data.vocabulary))) < 0.05
    assert numpy.mean(losses[-10:]) < 0.6 * losses[0]


def test_the_step_size_warms_up_and_decays(data):
    """Rises over two epochs' steps to the recipe's, which falls to nothing over the whole run."""
    split = data.splits["train"]
    run = new(data, recipe(batch_size=5, epochs=4, warmup_epochs=2, decay=True, learning_rate=0.1))
    seen = []
    for run.epoch in range(4):
        run.step = 0
        for batch in run.batches(split):
            seen.append(run.learning_rate())
            run.train_step(batch)
    n = len(seen)
    expected = [0.1 * min(1, 2 * (k + 1) / n) * (1 - k / n) for k in range(n)]
    assert numpy.allclose(seen, expected, rtol=1e-12) and n == 4 * run.steps > 8


def test_adam_takes_the_step_size_of_the_schedule(data):
    """In its first step Adam moves every parameter by the step size, or not at all."""
    batch = data.splits["train"].batch(numpy.arange(9))
    for threads in (1, 2):
        run = new(data, recipe(warmup_epochs=10, learning_rate=0.1), threads=threads)
        before = run.parameters.flat.copy()
        run.train_step(batch)
        moved = numpy.abs(run.parameters.flat - before)
        assert numpy.isclose(moved.max(), 0.01, rtol=1e-2)


# Self-critical epochs


CRITICAL = {"epochs": 3, "self_critical": 2, "samples": 3, "batch_size": 9, "temperature": 0.5}


def critical(data, threads=1, **changes):
    of = recipe(**(CRITICAL | {"dropout": 0.3, "decay": True} | changes))
    critic = Critic(data.splits["train"], data.vocabulary, of.max_length, of.samples, 1.0)
    return Trainer(of, sizes(data), 0, threads, critic=critic)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("stop", [4, 5, 6, 9])
def test_self_critical_epochs_stop_and_resume_bit_for_bit(data, threads, stop):
    """Before, at and after the step in which they begin."""
    split = data.splits["train"]
    whole = critical(data, threads)
    supervised = whole.steps_in(split, 0)
    assert supervised == 4 < stop + 2
    expected = steps(whole, split, 11)
    first, second = critical(data, threads), critical(data, threads)
    losses = steps(first, split, stop)
    arrays, place = first.state()
    second.restore({name: array.copy() for name, array in arrays.items()}, place)
    losses += steps(second, split, 11 - stop)
    assert losses == expected and expected[0] > 0 > expected[-1]
    assert_same(second, whole)


@pytest.mark.parametrize("threads", [2, 3])
def test_workers_draw_the_same_captions(data, threads):
    """Whatever their number, the first rewards are the same, and so is the update, nearly."""
    one, many = critical(data), critical(data, threads)
    for run in one, many:
        run.epoch = 1
    found = [steps(run, data.splits["train"], 1)[0] for run in (one, many)]
    assert math.isclose(*found, rel_tol=1e-6)
    assert numpy.allclose(one.parameters.flat, many.parameters.flat, rtol=0, atol=1e-5)


def test_logits_are_sharpened_once_and_adam_begins_anew(data):
    run = critical(data, self_critical_learning_rate=1e-12)
    split = data.splits["train"]
    steps(run, split, run.steps_in(split, run.epoch))
    before = run.parameters["token_logits"].copy()
    assert run.adam.t == 4
    for _ in range(2):
        steps(run, split, 2)
        assert numpy.allclose(run.parameters["token_logits"], before / 0.5, rtol=1e-4)
    assert run.epoch >= 1 and run.adam.t == 4  # of its own


def test_praised_captions_grow_likelier(data):
    """With the number of words as the reward, captions grow longer."""
    run = critical(
        data, self_critical_learning_rate=0.01, epochs=41, self_critical=40, temperature=1.0
    )
    run.critic.reward = lambda photo, ids: float(len(ids))
    run.epoch = 1
    rewards = [-loss for loss in steps(run, data.splits["train"], 60)]
    assert numpy.mean(rewards[-10:]) > 1.3 * numpy.mean(rewards[:10])


@pytest.mark.parametrize("threads", [1, 2])
def test_each_dropout_rate_is_for_its_own_layers(data, monkeypatch, threads):
    """One of them alone: the masks that reach the decoder are of its layers and no others."""
    batch = data.splits["train"].batch(numpy.arange(9))
    real, seen = module.caption_loss, []

    def spy(p, share, divisor, masks, **more):
        seen.append(masks)
        return real(p, share, divisor, masks, **more)

    monkeypatch.setattr(module, "caption_loss", spy)
    for rates, layers in (
        ({"embedding_dropout": 0.5}, {"lstm"}),
        ({"dropout": 0.5}, {"features", "img_embed_bottleneck_to_h0", "token_logits_bottleneck",
                            "token_logits"}),
    ):  # fmt: skip
        seen.clear()
        new(data, recipe(**rates), threads=threads).train_step(batch)
        assert seen and all(masks.keys() == layers for masks in seen)
        assert all((mask == 0).any() for masks in seen for mask in masks.values())


def test_each_dropout_rate_is_as_high_as_it_says():
    rng, of = numpy.random.default_rng(0), Sizes(9, 40, 40, 40, 40, 40)
    counts = {"captions": 100, "words": 100, "rows": 100}
    masks = draw_masks(rng, 0.2, 0.7, of, counts)
    for name, mask in masks.items():
        assert abs((mask == 0).mean() - (0.7 if name == "lstm" else 0.2)) < 0.05, name


def test_the_step_size_of_every_step_of_both_kinds_of_epoch(data):
    """Two epochs, then two self-critical ones, whose schedule starts again with their own rate."""
    split = data.splits["train"]
    run = critical(
        data,
        epochs=4,
        self_critical=2,
        warmup_epochs=0.5,
        learning_rate=0.1,
        self_critical_learning_rate=0.01,
    )
    seen = []
    for run.epoch in range(4):
        run.step = 0
        run.steps = run.steps_in(split, run.epoch)
        while run.step < run.steps:
            seen.append((run.epoch, run.step, run.steps, run.learning_rate()))
            run.step += 1
    for epoch, step, count, found in seen:
        rate, done = (0.1, epoch) if epoch < 2 else (0.01, epoch - 2)
        risen = min(1, (done + (step + 1) / count) / 0.5)
        fallen = 1 - (done + step / count) / 2
        assert found == pytest.approx(rate * risen * fallen, rel=1e-12), (epoch, step)


def test_adam_takes_the_self_critical_step_size(data):
    """In its first step, which begins with the logits sharpened, as the last test of its kind."""
    run = critical(data, self_critical_learning_rate=0.01, decay=False, temperature=1.0)
    run.epoch = 1
    before = run.parameters.flat.copy()
    steps(run, data.splits["train"], 1)
    moved = numpy.abs(run.parameters.flat - before)
    assert numpy.isclose(moved.max(), 0.01, rtol=1e-2)
