"""The model of `minicap train`, which pages and notebooks use: trained once per test session."""

import os
import time
from pathlib import Path


def trained(tmp_path_factory):
    """Return the folder `runs`, shared by all processes of this test session."""
    if given := os.environ.get("MINICAP_DOCS_RUNS"):
        return Path(given)
    import blocks

    place = tmp_path_factory.getbasetemp()
    place = (place.parent if os.environ.get("PYTEST_XDIST_WORKER") else place) / "docs"
    done = place / "done"
    try:
        place.mkdir()  # the first process trains, the others wait
    except FileExistsError:
        for _ in range(1800):
            if done.exists():
                break
            time.sleep(1)
    else:
        try:
            blocks.train(place)
        finally:
            done.touch()
    return place / "runs"
