"""Replicas: the loss, gradients and dropout masks of one worker's part of a batch."""

import math
import threading
import time

import numpy
import pytest

from minicap.backend import blas
from minicap.model.config import DecoderConfig
from minicap.model.decoder import Decoder
from minicap.model.masks import draw_masks
from minicap.training import workers
from minicap.training.replica import Replica
from minicap.training.trainer import Trainer
from tests.tiny import dataset, recipe

DROPOUT = recipe(dropout=0.3, embedding_dropout=0.3, clip_norm=1.0)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("data"), photos=24)


@pytest.fixture
def seen(monkeypatch):
    """The batch and the masks of every call of Decoder.loss, which threads can report."""
    seen, real = [], Decoder.loss

    def spy(decoder, batch, divisor, masks, **options):
        seen.append((batch, masks))
        return real(decoder, batch, divisor, masks, **options)

    monkeypatch.setattr(Decoder, "loss", spy)
    monkeypatch.setattr(workers, "FORK", False)
    return seen


def test_threads_restore_the_number_of_blas_threads(data, monkeypatch):
    """A step limits BLAS for all threads, and restores the number it found after the last of them
    has ended."""
    monkeypatch.setattr(workers, "FORK", False)
    run, started = Trainer(DROPOUT, data, 0, workers=2), threading.Barrier(2)
    before = blas().limit(limits=2)
    real = Replica.loss

    def meet(replica, *arguments):
        started.wait(10)  # both compute at the same time; the first ends first
        loss, backward = real(replica, *arguments)
        time.sleep(0.2 * replica.worker)
        return loss, backward

    monkeypatch.setattr(Replica, "loss", meet)
    run.train_step(data.splits["train"].batch(numpy.arange(7)))
    found = {library.num_threads for library in blas().lib_controllers}
    before.restore_original_limits()
    assert found <= {2}


def test_each_worker_gets_its_part_of_the_same_masks(data, seen):
    """Together, the masks of three workers are those of one, row by row."""
    batch = data.splits["train"].batch(numpy.arange(7))

    def rows(parts):
        """Each input row with its masks, so that the order does not matter."""
        found = []
        for part, masks in parts:
            start = 0
            for size in part.batch_sizes:
                for n in range(size):
                    row = start + n
                    found.append(
                        part.features[n].tobytes()
                        + bytes([int(part.targets[row])])
                        + masks["features"][n].tobytes()
                        + masks["img_embed_bottleneck_to_h0"][n].tobytes()
                        + masks["lstm"][part.positions[row]].tobytes()
                        + masks["token_logits_bottleneck"][row].tobytes()
                        + masks["token_logits"][row].tobytes()
                    )
                start += size
        return sorted(found)

    Trainer(DROPOUT, data, 0, workers=1).train_step(batch)
    alone = rows(seen)
    seen.clear()
    Trainer(DROPOUT, data, 0, workers=3).train_step(batch)
    assert len(seen) == 3 and rows(seen) == alone


def test_masks_differ_from_step_to_step(data, seen):
    run = Trainer(DROPOUT, data, 0)
    batch = data.splits["train"].batch(numpy.arange(4))
    for _ in range(3):
        run.train_step(batch)
    assert len({masks["token_logits"].tobytes() for _, masks in seen}) == 3


@pytest.mark.parametrize("count", [1, 2])
def test_each_dropout_rate_is_for_its_own_layers(data, seen, count):
    """With one rate alone, the decoder gets masks for that rate's layers and no others."""
    batch = data.splits["train"].batch(numpy.arange(9))
    for rates, layers in (
        ({"embedding_dropout": 0.5}, {"lstm"}),
        ({"dropout": 0.5}, {"features", "img_embed_bottleneck_to_h0", "token_logits_bottleneck",
                            "token_logits"}),
        ({"image_dropout": 0.5}, {"features"}),
        ({"dropout": 0.5, "image_dropout": 0.0}, {"img_embed_bottleneck_to_h0",
                                                  "token_logits_bottleneck", "token_logits"}),
    ):  # fmt: skip
        seen.clear()
        Trainer(recipe(**rates), data, 0, workers=count).train_step(batch)
        assert seen and all(masks.keys() == layers for _, masks in seen)
        assert all((mask == 0).any() for _, masks in seen for mask in masks.values())


def test_each_dropout_rate_is_as_high_as_it_says():
    rng, config = numpy.random.default_rng(0), DecoderConfig(40, 40, 40, 40)
    counts = {"captions": 100, "words": 100, "rows": 100}
    masks = draw_masks(config, rng, (0.2, 0.2, 0.7), 40, counts)
    assert len(masks) == 5
    for name, mask in masks.items():
        assert abs((mask == 0).mean() - (0.7 if name == "lstm" else 0.2)) < 0.05, name


@pytest.mark.parametrize("count", [1, 2, 3])
def test_losses_of_the_parts_add_up_to_the_mean_over_the_batch(data, count):
    """And so do their gradients, which each worker writes into its own buffer."""
    batch = data.splits["train"].batch(numpy.arange(9))
    replicas = Trainer(recipe(), data, 0, workers=count).workers.replicas
    expected_loss, backward = replicas[0].decoder.loss(batch)
    expected = replicas[0].decoder.parameters.like()
    backward(expected)
    losses = [
        replica.supervised(part, index, batch.counts, (0, 0))
        for replica, (part, index) in zip(replicas, batch.split(count), strict=True)
    ]
    assert math.isclose(sum(losses), expected_loss, rel_tol=1e-6)
    squares = sum((replica.sum_gradients(count) for replica in replicas), [])
    assert numpy.allclose(replicas[0].gradients[0].flat, expected.flat, rtol=1e-4, atol=1e-7)
    assert math.isclose(sum(squares), (expected.flat**2).sum(), rel_tol=1e-4)


def test_self_critical_jobs_need_a_critic(data):
    replica = Trainer(recipe(), data, 0).workers.replicas[0]
    with pytest.raises(ValueError, match="need a Critic"):
        replica.self_critical(None, {"captions": numpy.arange(1)}, {"captions": 1}, (0, 0))


def test_every_step_uses_the_same_memory(data):
    """The workspace has grown by the second step, and then stays as it is."""
    replica = Trainer(recipe(), data, 0).workers.replicas[0]
    batch, memory = data.splits["train"].batch(numpy.arange(9)), []
    for _ in range(3):
        replica.loss(batch, 1)
        memory.append(replica.workspace.memory)
    assert memory[0].size == 0 and memory[1] is memory[2] and memory[2].size > 0
