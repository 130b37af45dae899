"""Run everything that needs a GPU: the device tests, then the comparison of a training step with
PyTorch, in float32 and in TF32.

    python tests/benchmarks/gpu.py [--rounds 3] [--json FOLDER]

Needs an NVIDIA GPU, `pip install -e ".[gpu,test]"` and PyTorch for CUDA. Stops at the first failure
with its exit status.
"""

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", default="3")
    parser.add_argument("--json", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    tests = ["-m", "pytest", "-q", str(HERE.parent / "test_device.py")]
    step = [str(HERE / "training_step.py"), "--device", "cuda", "--work", "coco", "batch1024"]
    step += ["--ways", "minicap", "torch-course", "torch-best", "torch-padded", "torch-compiled"]
    step += ["--rounds", options.rounds]
    steps = {"float32": step, "tf32": [*step, "--tf32"]}
    if options.json:
        options.json.mkdir(parents=True, exist_ok=True)
        for name, command in steps.items():
            command += ["--json", str(options.json / f"{name}.json")]
    for command in tests, *steps.values():
        status = subprocess.run([sys.executable, *command]).returncode
        if status:
            sys.exit(status)


if __name__ == "__main__":
    main()
