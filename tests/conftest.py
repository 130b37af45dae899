"""Fixtures that several rooms of the tests share."""

import os
import re
import signal
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples in every run, and as much time for each as a busy machine needs.
settings.register_profile("minicap", derandomize=True, deadline=None)
settings.load_profile("minicap")

# A shell lets its background jobs ignore Ctrl-C, and their child processes inherit that. Tests
# that press Ctrl-C need Python's own handler.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real photos and captions, which is never part of the repository."""
    beside = Path(__file__).parents[2] / "shared/data"
    folder = Path(os.environ.get("MINICAP_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no real data: MINICAP_DATA is not a folder and there is no {beside}")
    return folder


def not_run(reasons):
    """One line for all skipped tests: how many need a GPU, which packages, or something else."""
    packages = [re.search(r"could not import '(\w+)'", reason) for reason in reasons]
    names = sorted({found[1] for found in packages if found})
    gpu = sum("a GPU test" in reason for reason in reasons)
    other = sum(found is None for found in packages) - gpu
    counts = {
        "that need a GPU": gpu,
        f"that need {', '.join(names)}": sum(found is not None for found in packages),
        "for other reasons": other,
    }
    parts = [f"{count} {why}" for why, count in counts.items() if count]
    return f"not run here: {', '.join(parts)} (-rs lists them)"


def pytest_terminal_summary(terminalreporter):
    """Two lines on the last page: what could not run here, and how many mutants were caught."""
    if skipped := terminalreporter.getreports("skipped"):
        terminalreporter.write_line(not_run([r.longrepr[2] for r in skipped]))
    caught, missed = (
        [r for r in terminalreporter.getreports(outcome) if "::test_mutant_is_caught[" in r.nodeid]
        for outcome in ("passed", "failed")
    )
    if caught or missed:
        tried = len(caught) + len(missed)
        terminalreporter.write_line(f"mutants caught / tried: {len(caught)} / {tried}")
