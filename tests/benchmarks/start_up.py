"""Measure start-up times: `import minicap` compared with `import numpy`, and a command's --help.

    python tests/benchmarks/start_up.py [--rounds 15]

Each measurement is a new process. The commands run interleaved; prints medians.
"""

import argparse
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python, nothing": ["-c", "pass"],
    "import numpy": ["-c", "import numpy"],
    "import numpy, minicap": ["-c", "import numpy, minicap"],
    "import numpy, minicap.training.trainer": ["-c", "import numpy, minicap.training.trainer"],
    "python -m minicap.train --help": ["-m", "minicap.train", "--help"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(options.rounds):
        for name, arguments in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
            seconds[name].append(time.perf_counter() - start)
    for name, found in seconds.items():
        print(f"{name:34}{1e3 * statistics.median(found):7.0f} ms")


if __name__ == "__main__":
    main()
