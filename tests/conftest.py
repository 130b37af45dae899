"""Fixtures that several rooms of the tests share."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples in every run, and as much time for each as a busy machine needs.
settings.register_profile("minicap", derandomize=True, deadline=None)
settings.load_profile("minicap")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real photos and captions, which is never part of the repository."""
    beside = Path(__file__).parents[2] / "shared/data"
    folder = Path(os.environ.get("MINICAP_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no real data: MINICAP_DATA is not a folder and there is no {beside}")
    return folder


def pytest_terminal_summary(terminalreporter):
    """One line for the run's last page: how many of the wrong gradients were found out."""
    caught, missed = (
        [r for r in terminalreporter.getreports(outcome) if "::test_mutant_is_caught[" in r.nodeid]
        for outcome in ("passed", "failed")
    )
    if caught or missed:
        tried = len(caught) + len(missed)
        terminalreporter.write_line(f"mutants caught / tried: {len(caught)} / {tried}")
