"""The one thing that setup.cfg cannot say: a wheel carries data/ as minicap/shipped/."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithData(build_py):
    """Copy data/ next to the modules. An editable install reads it where it is."""

    def run(self):
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "minicap", "shipped")
            shutil.rmtree(target, ignore_errors=True)  # what an earlier build has left
            shutil.copytree("data", target)


setup(cmdclass={"build_py": BuildWithData})
