"""All-reduce: replace an array on each rank by the sum of all ranks' arrays."""

from types import ModuleType

import numpy

from minicap.backend import Array, to_device, to_host
from minicap.utils.ranks import MpiRanks, Ranks


class AllReduce:
    """Adds gradients over all ranks.

    From a GPU there are three ways, and the first that works is taken: the MPI library reads the
    GPU's memory, NCCL does, or the array travels through the host.

    Attributes:
        way: the way taken, for printing.

    Example:
        >>> all_reduce = AllReduce(world(), xp)
        >>> all_reduce(gradients.flat)
    """

    def __init__(self, ranks: Ranks, xp: ModuleType = numpy):
        """Choose the way.

        Args:
            ranks: whose arrays are added.
            xp: numpy or cupy. With cupy, `device_module` has given each rank a GPU.
        """
        self.ranks, self.xp, self.way = ranks, xp, "MPI"
        if xp is numpy or not isinstance(ranks, MpiRanks):
            return
        # How an MPI library says that it accepts pointers to a GPU's memory (MPI 4.1, 11.4.3).
        kinds = ranks.comm.Get_info().Get("mpi_memory_alloc_kinds") or ""
        # NCCL needs a GPU for each rank.
        nccl, count = xp.cuda.nccl, xp.cuda.runtime.getDeviceCount()
        shared = any(ranks.share(range(ranks.size), lambda _: ranks.size_here > count))
        if "cuda:device" in kinds:
            self.way = "MPI from GPU memory"
        elif nccl.available and not shared:
            self.way = "NCCL"
            name = ranks.first(nccl.get_unique_id)
            self.nccl = nccl.NcclCommunicator(ranks.size, name, ranks.rank)
        else:
            self.way = "MPI through the host"

    def __call__(self, array: Array) -> None:
        """Add the arrays of all ranks, in place.

        Args:
            array: (P,) float32 or float64, equally long on all ranks.
        """
        if self.way == "NCCL":
            nccl, at = self.xp.cuda.nccl, array.data.ptr
            kind = {4: nccl.NCCL_FLOAT32, 8: nccl.NCCL_FLOAT64}[array.dtype.itemsize]
            stream = self.xp.cuda.get_current_stream().ptr
            self.nccl.allReduce(at, at, array.size, kind, nccl.NCCL_SUM, stream)
        elif self.way == "MPI through the host":
            on_host = to_host(array)
            self.ranks.add(on_host)
            array[...] = to_device(on_host, self.xp)
        else:
            if self.xp is not numpy:
                self.xp.cuda.get_current_stream().synchronize()  # MPI knows nothing of streams
            self.ranks.add(array)
