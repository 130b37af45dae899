"""Schedules: the learning rate of every step, and the number of steps in an epoch."""

import numpy
import pytest

from minicap.training.config import TrainingConfig
from minicap.training.schedule import Schedule


def rates(schedule):
    """The learning rate of each step of each epoch."""
    return [
        [schedule.learning_rate(epoch, step) for step in range(schedule.steps(epoch))]
        for epoch in range(schedule.config.epochs)
    ]


def test_steps_per_epoch():
    """All captions once; the steps that were asked for; or all images once."""
    config = TrainingConfig(batch_size=5, epochs=3, self_critical_epochs=1, samples_per_image=2)
    schedule = Schedule(config, captions=31, images=13)
    assert [schedule.steps(epoch) for epoch in range(3)] == [7, 7, 7]  # 31 / 5, 31 / 5, 13 / 2
    assert [schedule.is_self_critical(epoch) for epoch in range(3)] == [False, False, True]
    assert Schedule(TrainingConfig(batch_size=5), 30, 13).steps(0) == 6
    by_images = TrainingConfig(sample_by="images", steps_per_epoch=9)
    assert Schedule(by_images, captions=31, images=13).steps(0) == 9
    assert not Schedule(by_images, captions=31, images=13).is_self_critical(by_images.epochs)


def test_learning_rate_is_constant_without_warmup_and_decay():
    seen = sum(rates(Schedule(TrainingConfig(learning_rate=0.1, epochs=3), 640, 100)), [])
    assert len(seen) == 30 and set(seen) == {0.1}


def test_learning_rate_warms_up_and_decays():
    """It rises over the steps of two epochs, and decays to 0 over the whole run."""
    config = TrainingConfig(batch_size=5, epochs=4, warmup_epochs=2, decay=True, learning_rate=0.1)
    schedule = Schedule(config, captions=30, images=12)
    seen = sum(rates(schedule), [])
    n = len(seen)
    expected = [0.1 * min(1, 2 * (k + 1) / n) * (1 - k / n) for k in range(n)]
    assert numpy.allclose(seen, expected, rtol=1e-12) and n == 4 * schedule.steps(0) > 8


def test_learning_rate_of_every_step_of_both_kinds_of_epoch():
    """Two supervised epochs, then two self-critical ones, which start a schedule of their own."""
    config = TrainingConfig(
        epochs=4,
        self_critical_epochs=2,
        samples_per_image=3,
        batch_size=9,
        warmup_epochs=0.5,
        decay=True,
        learning_rate=0.1,
        self_critical_learning_rate=0.01,
    )
    schedule = Schedule(config, captions=30, images=12)
    assert [schedule.steps(epoch) for epoch in range(4)] == [4, 4, 4, 4]
    for epoch, found in enumerate(rates(schedule)):
        rate, done = (0.1, epoch) if epoch < 2 else (0.01, epoch - 2)
        for step, learning_rate in enumerate(found):
            warmup = min(1, (done + (step + 1) / len(found)) / 0.5)
            decay = 1 - (done + step / len(found)) / 2
            expected = pytest.approx(rate * warmup * decay, rel=1e-12)
            assert learning_rate == expected, (epoch, step)


def test_each_kind_of_epoch_has_its_own_number_of_steps():
    """30 captions in batches of 9, then 12 images one at a time."""
    config = TrainingConfig(batch_size=9, epochs=3, self_critical_epochs=2, samples_per_image=9)
    schedule = Schedule(config, captions=30, images=12)
    assert [schedule.steps(epoch) for epoch in range(3)] == [4, 12, 12]
