"""What all commands share: how they end."""

import os
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

from minicap.utils import command_line as commands
from minicap.utils.errors import UnusableImage, UserError, plain

ROOT = Path(__file__).parents[1]


def ends(command, capsys):
    """Exit status and stderr of a command."""
    with pytest.raises(SystemExit) as caught:
        commands.run(command)
    return caught.value.code, capsys.readouterr().err


def raising(error):
    def command():
        raise error

    return command


@pytest.mark.parametrize("status", [None, 0, 1, 130])
def test_the_exit_status_is_the_command_s(status, capsys):
    assert ends(lambda: status, capsys) == (status, "")


@pytest.mark.parametrize("error", [UserError("x.jpg: broken"), UnusableImage("x.jpg", "broken")])
def test_a_user_s_error_is_one_line(error, capsys):
    assert ends(raising(error), capsys) == (1, "error: x.jpg: broken\n")


def test_control_characters_are_escapes(capsys):
    """A terminal would obey them, and a name with a line end would be two lines."""
    assert plain("a\tb\nc\x1b[31m\x7fé 犬") == r"a\tb\nc\x1b[31m\x7fé 犬"
    assert ends(raising(UserError("a\x1b[31m")), capsys) == (1, "error: a\\x1b[31m\n")


def test_even_when_a_library_s_text_has_several(capsys):
    assert ends(raising(UserError("a\nb\r\nc")), capsys) == (1, "error: a b c\n")


def test_too_large_a_model_is_one_line(capsys):
    status, text = ends(lambda: numpy.empty(1 << 50) is None, capsys)
    assert status == 1 and text.startswith("error: not enough memory (") and text.count("\n") == 1


def test_ctrl_c_shows_no_traceback(capsys):
    assert ends(raising(KeyboardInterrupt()), capsys) == (130, "interrupted\n")


def test_output_that_cannot_be_written_is_one_line():
    """No traceback, neither of the command nor of Python's own last try."""
    code = "from minicap import commands; commands.run(lambda: print('x' * 9))"
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert (
        done.returncode == 1
        and done.stderr == "error: the output cannot be written: No space left on device\n"
    )


def test_a_fork_that_fails_is_not_blamed_on_the_output():
    """Nor is what was printed lost."""
    code = (
        "import errno, os\nfrom minicap import commands\n"
        "def fork():\n    print('so far')\n"
        "    raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))\n"
        "commands.run(fork)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "so far\n")
    assert done.stderr == "error: Cannot allocate memory\n"


def test_a_file_that_cannot_be_read_is_named(capsys, tmp_path):
    with pytest.raises(SystemExit) as caught:
        commands.run((tmp_path / "none").read_text)
    assert caught.value.code == 1
    assert capsys.readouterr().err == f"error: {tmp_path / 'none'}: No such file or directory\n"


def test_ctrl_c_while_a_command_is_imported_is_one_word(tmp_path):
    """NumPy, which every command imports, is slow to load here, and interrupted."""
    (tmp_path / "numpy.py").write_text("raise KeyboardInterrupt")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-m", "minicap.train"], capture_output=True, text=True, env=environment
    )
    assert done.stderr == "interrupted\n" and done.returncode != 0


def test_a_bug_does_show_one():
    with pytest.raises(ZeroDivisionError):
        commands.run(lambda: 1 // 0)
