"""Data parallel training: N ranks compute what one rank with N workers does."""

import sys
from types import SimpleNamespace

import numpy
import pytest

from minicap.training.all_reduce import AllReduce
from minicap.training.trainer import Trainer
from minicap.utils.ranks import MpiRanks, Ranks
from tests import strict_cupy
from tests.mpi import needs_mpi, succeed
from tests.tiny import dataset, recipe

STEP = """
import sys
from pathlib import Path
import numpy
from minicap.nn.parameters import Parameters
from minicap.training import trainer as module
from minicap.utils.ranks import world
from tests.tiny import dataset, recipe

folder, dtype, workers, size, critical = sys.argv[1:]
rank = world().rank
module.Parameters = lambda shapes, _, *rest: Parameters(shapes, dtype, *rest)
changes = {"self_critical_epochs": 2, "epochs": 3} if critical == "yes" else {}
wanted = recipe(dropout=0.3, embedding_dropout=0.3, image_dropout=0.2, clip_norm=0.1,
                batch_size=int(size), **changes)
run = module.Trainer(wanted, dataset(Path(f"{folder}/data{rank}"), wanted, 24), 0, int(workers))
if critical == "yes":
    run.end_epoch()
else:  # the last step may leave a rank without captions, but with this step's gradients
    run.train_step(run.dataset.splits["train"].batch(numpy.arange(8)))
    run.step = 0
batch = next(iter(run.batches()))
loss = run.train_step(batch)
evaluated = run.evaluate()
assert run.same_on_all_ranks()
run.workers.stop()
if rank == 0:
    numpy.savez(f"{folder}/found.npz", gradient=run.gradients.flat, parameters=run.parameters.flat,
                loss=loss, evaluated=evaluated)
run.parameters.flat[3] += rank
assert run.same_on_all_ranks() == (world().size == 1)
"""


def one_step(folder, count, *words):
    """What one training step computes on `count` ranks."""
    folder.mkdir()
    succeed(count, "-c", STEP, folder, *words)
    with numpy.load(folder / "found.npz") as found:
        return dict(found)


@needs_mpi
@pytest.mark.parametrize("size, critical", [(8, "no"), (1, "no"), (8, "yes")])
@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-6), ("float64", 1e-12)])
def test_two_ranks_compute_what_two_workers_do(tmp_path, dtype, tolerance, size, critical):
    one = one_step(tmp_path / "one", 1, dtype, 2, size, critical)
    two = one_step(tmp_path / "two", 2, dtype, 1, size, critical)
    for name, expected in one.items():
        scale = abs(expected).max()
        numpy.testing.assert_allclose(two[name], expected, rtol=0, atol=tolerance * scale)
    # The dev set's batches are the same, and their sums are added in the same order.
    numpy.testing.assert_allclose(two["evaluated"], one["evaluated"], rtol=tolerance)


@needs_mpi
@pytest.mark.slow
@pytest.mark.parametrize("count, workers", [(2, 2), (4, 1)])
def test_four_parts_on_any_ranks(tmp_path, count, workers):
    """Also if the batch has fewer captions than there are parts, so that a rank gets none."""
    for size in 8, 3:
        one = one_step(tmp_path / f"one{size}", 1, "float64", 4, size, "no")
        more = one_step(tmp_path / f"more{size}", count, "float64", workers, size, "no")
        for name, expected in one.items():
            bound = 1e-12 * abs(expected).max()
            numpy.testing.assert_allclose(more[name], expected, rtol=0, atol=bound)


# ---- the ways from a GPU --------------------------------------------------------------------


class TwoRanks(MpiRanks):
    """Rank 0 of two; what the other adds is 10."""

    def __init__(self, kinds=None, here=2):
        self.rank, self.size, self.rank_here, self.size_here = 0, 2, 0, here
        info = SimpleNamespace(Get=lambda key: kinds)
        self.comm = SimpleNamespace(Get_info=lambda: info)
        self.added = []

    def first(self, compute):
        return compute()

    def share(self, items, compute):
        return [compute(item) for item in items]

    def add(self, array):
        self.added.append(type(array))
        array += 10


def fake_gpu(monkeypatch, gpus, available=True):
    """The fake CuPy with this many GPUs and, maybe, NCCL; and the calls of NCCL."""
    calls = []

    def communicator(*about):
        def reduce(source, target, size, kind, operation, stream):
            assert source == target
            calls.append((size, kind, operation, stream))

        return SimpleNamespace(allReduce=reduce, about=about)

    nccl = SimpleNamespace(
        available=available, get_unique_id=lambda: (1, 2), NcclCommunicator=communicator,
        NCCL_FLOAT32=7, NCCL_FLOAT64=8, NCCL_SUM=0,
    )  # fmt: skip
    stream = SimpleNamespace(ptr=99, synchronize=lambda: calls.append("waited"))
    runtime = SimpleNamespace(getDeviceCount=lambda: gpus)
    modules = strict_cupy.modules()
    modules["cupy"].cuda = SimpleNamespace(
        nccl=nccl, runtime=runtime, get_current_stream=lambda: stream
    )
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return modules["cupy"], calls


def test_memory_that_mpi_can_read_is_passed_to_it(monkeypatch):
    xp, calls = fake_gpu(monkeypatch, 2)
    ranks = TwoRanks("mpi,system,cuda:device")
    reduce, array = AllReduce(ranks, xp), xp.asarray(numpy.zeros(3))
    reduce(array)
    assert reduce.way == "MPI from GPU memory" and calls == ["waited"]
    assert ranks.added == [strict_cupy.ndarray] and (array.get() == 10).all()


def test_nccl_needs_a_gpu_for_each_rank(monkeypatch):
    xp, calls = fake_gpu(monkeypatch, 2)
    reduce = AllReduce(TwoRanks(), xp)
    assert reduce.way == "NCCL" and reduce.nccl.about == (2, (1, 2), 0)
    array = SimpleNamespace(data=SimpleNamespace(ptr=5), size=3, dtype=numpy.dtype("f4"))
    reduce(array)
    assert calls == [(3, 7, 0, 99)]


@pytest.mark.parametrize("gpus, available", [(1, True), (2, False)])
def test_otherwise_arrays_travel_through_the_host(monkeypatch, gpus, available):
    xp, calls = fake_gpu(monkeypatch, gpus, available)
    ranks = TwoRanks("mpi,system")
    reduce, array = AllReduce(ranks, xp), xp.asarray(numpy.arange(3.0))
    reduce(array)
    assert reduce.way == "MPI through the host" and not calls
    assert ranks.added == [numpy.ndarray] and (array.get() == [10, 11, 12]).all()


def test_one_rank_adds_nothing(tmp_path):
    array = numpy.arange(3.0)
    AllReduce(Ranks())(array)
    assert array.tolist() == [0, 1, 2]
    assert Trainer(recipe(), dataset(tmp_path), 0).same_on_all_ranks()
