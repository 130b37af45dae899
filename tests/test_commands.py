"""What all commands share: how they end."""

import numpy
import pytest

from minicap import commands
from minicap.errors import UnusableImage, UserError


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


def test_even_when_a_library_s_text_has_several(capsys):
    assert ends(raising(UserError("a\nb\r\nc")), capsys) == (1, "error: a b c\n")


def test_too_large_a_model_is_one_line(capsys):
    status, text = ends(lambda: numpy.empty(1 << 50) is None, capsys)
    assert status == 1 and text.startswith("error: not enough memory (") and text.count("\n") == 1


def test_ctrl_c_shows_no_traceback(capsys):
    assert ends(raising(KeyboardInterrupt()), capsys) == (130, "interrupted\n")


def test_a_bug_does_show_one():
    with pytest.raises(ZeroDivisionError):
        commands.run(lambda: 1 // 0)
