"""What all commands share: parsing options, and how they end."""

import os
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

from minicap import caption, encode, evaluate, train
from minicap.generation.options import CaptionOptions
from minicap.training.options import RunOptions
from minicap.utils import command_line
from minicap.utils.errors import UnusableImage, UserError, plain
from minicap.utils.renamed import REMOVED, RENAMED, option

ROOT = Path(__file__).parents[2]
COMMANDS = {
    train: RunOptions,
    caption: CaptionOptions,
    evaluate: evaluate.Options,
    encode: encode.Options,
}
OLD_NAMES = [
    (command, old, new)
    for command, options in COMMANDS.items()
    for old, new in RENAMED.items()
    if new in command_line.option_names(options)
]


def test_every_renamed_option_is_an_option_of_a_command():
    assert {old for _, old, _ in OLD_NAMES} == RENAMED.keys()


@pytest.mark.parametrize(
    ("command", "old", "new"),
    [
        pytest.param(*case, id=f"{case[0].__name__.removeprefix('minicap.')} {option(case[1])}")
        for case in OLD_NAMES
        if case[1] not in command_line.option_names(COMMANDS[case[0]])
    ],
)
def test_an_old_option_name_ends_with_the_new_one(command, old, new, capsys):
    """In one line, however the option is written."""
    dashed = option(old)
    for words in (
        [dashed, "1"],
        [f"{dashed}=1"],
        [f"--{old}", "1"],
        [f"--no-{dashed.removeprefix('--')}"],
    ):
        status, errors = ends(lambda words=words: command.main(words), capsys)
        assert (status, errors) == (1, f"error: {dashed} is now called {option(new)}\n")


@pytest.mark.parametrize("name", REMOVED)
def test_a_removed_option_ends_in_one_line(name, capsys):
    status, errors = ends(lambda: train.main([option(name), "1"]), capsys)
    assert status == 1 and errors.startswith(f"error: {option(name)} was removed")
    assert errors.count("\n") == 1


def test_an_old_name_that_is_still_an_option_is_parsed():
    """--temperature of generation is not --temperature of training, which was renamed."""
    assert caption.parse(["a.jpg", "--model=m", "--temperature=0.5"]).generation.temperature == 0.5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("caption a.png --nothing 1", "unknown option or argument: --nothing, 1"),
        ("caption a.png --beam-size nan", "--beam-size must be a whole number, not 'nan'"),
        ("caption a.png --temperature hot", "--temperature must be a number, not 'hot'"),
        ("caption a.png --beam-size", "--beam-size needs a value"),
        (
            "train --recipe x",
            "--recipe: 'x' is not one of 'scenes', 'flickr8k', 'course', 'best', 'attend'",
        ),
        (
            "train --learning-rat 1",
            "unknown option or argument: --learning-rat, 1; perhaps you meant --learning-rate or "
            "--self-critical-learning-rate",
        ),
    ],
)
def test_a_wrong_option_ends_in_one_line(words, message, capsys):
    name, *arguments = words.split()
    with pytest.raises(SystemExit) as caught:
        {"caption": caption, "train": train}[name].main(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err == f"error: {message}; see minicap {name} --help\n"


def test_help_names_the_command_and_every_option(capsys):
    for command, options in COMMANDS.items():
        with pytest.raises(SystemExit) as caught:
            command.main(["--help"])
        assert caught.value.code == 0
        text = capsys.readouterr().out
        assert f"usage: minicap {command.__name__.removeprefix('minicap.')} " in text
        positional = {"photos"} if command in (caption, encode) else {"old_model"}
        for name in command_line.option_names(options) - positional:
            assert option(name) in text


def test_cpu_count_follows_the_environment(monkeypatch):
    monkeypatch.setenv("PYTHON_CPU_COUNT", "3")
    assert command_line.cpu_count() == 3
    for value in "default", "0", "":
        monkeypatch.setenv("PYTHON_CPU_COUNT", value)
        assert command_line.cpu_count() >= 1


def ends(command, capsys):
    """Exit status and stderr of a command."""
    with pytest.raises(SystemExit) as caught:
        command_line.run(command)
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
    """They would steer a terminal, and a line end in a name would make two lines."""
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
    """No traceback, neither from the command nor from Python at exit."""
    code = "from minicap.utils import command_line as c; c.run(lambda: print('x' * 9))"
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert (
        done.returncode == 1
        and done.stderr == "error: the output cannot be written: No space left on device\n"
    )


def test_a_fork_that_fails_is_not_an_output_error():
    """And what was printed before is not lost."""
    code = (
        "import errno, os\nfrom minicap.utils import command_line\n"
        "def fork():\n    print('so far')\n"
        "    raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))\n"
        "command_line.run(fork)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "so far\n")
    assert done.stderr == "error: Cannot allocate memory\n"


def test_a_file_that_cannot_be_read_is_named(capsys, tmp_path):
    with pytest.raises(SystemExit) as caught:
        command_line.run((tmp_path / "none").read_text)
    assert caught.value.code == 1
    assert capsys.readouterr().err == f"error: {tmp_path / 'none'}: No such file or directory\n"


def test_ctrl_c_while_a_command_is_imported_is_one_word(tmp_path):
    """NumPy, which every command imports, is interrupted here."""
    (tmp_path / "numpy.py").write_text("raise KeyboardInterrupt")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-m", "minicap.train"], capture_output=True, text=True, env=environment
    )
    assert done.stderr == "interrupted\n" and done.returncode != 0


def test_a_bug_shows_a_traceback():
    with pytest.raises(ZeroDivisionError):
        command_line.run(lambda: 1 // 0)
