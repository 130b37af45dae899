"""Run Python under mpiexec, for the tests of MPI."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MPIEXEC = shutil.which("mpiexec", path=os.pathsep.join([str(Path(sys.executable).parent)]))

needs_mpi = pytest.mark.skipif(
    not MPIEXEC or importlib.util.find_spec("mpi4py") is None,
    reason="needs mpi4py and an mpiexec next to Python: pip install -e '.[mpi]'",
)


def ranks(count: int, *words, **options) -> subprocess.CompletedProcess:
    """Run ``python words...`` on this many ranks, and wait for at most two minutes."""
    command = [str(MPIEXEC), "-n", str(count), sys.executable, *map(str, words)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHON_CPU_COUNT": "2"}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=environment, **options
    )


def succeed(count: int, *words) -> str:
    """Run as `ranks` does, and return what was printed. It must succeed."""
    done = ranks(count, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
