"""`minicap`: lists its commands, and runs them."""

import subprocess
import sys

import pytest

from minicap import __main__ as program
from minicap import __version__


def run(monkeypatch, capsys, *words):
    """Exit status, output lines and error lines of `minicap WORDS`."""
    monkeypatch.setattr(sys, "argv", ["minicap", *words])
    with pytest.raises(SystemExit) as caught:
        program.main()
    output = capsys.readouterr()
    return caught.value.code or 0, output.out.splitlines(), output.err.splitlines()


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_commands_are_listed_one_a_line(monkeypatch, capsys, words):
    status, (usage, blank, *lines), errors = run(monkeypatch, capsys, *words)
    assert status == 0 and not errors
    assert usage.startswith("usage: minicap COMMAND") and blank == ""
    assert [line.split()[0] for line in lines] == list(program.COMMANDS)
    for line, about in zip(lines, program.COMMANDS.values(), strict=True):
        assert line.endswith(f" {about}") and len(line) <= 80


@pytest.mark.parametrize("command", program.COMMANDS)
def test_commands_run(monkeypatch, capsys, command):
    status, lines, errors = run(monkeypatch, capsys, command, "--help")
    assert status == 0 and not errors and lines[0].startswith(f"usage: minicap {command} ")


def test_a_command_s_exit_status_and_errors_are_passed_on(monkeypatch, capsys):
    status, lines, errors = run(monkeypatch, capsys, "gradcheck", "--rounds=0")
    assert status == 1 and not lines
    assert len(errors) == 1 and errors[0].startswith("error: --rounds")
    monkeypatch.setattr("minicap.caption.main", lambda arguments: 7 * (arguments == ["a", "-b"]))
    assert run(monkeypatch, capsys, "caption", "a", "-b") == (7, [], [])


@pytest.mark.parametrize("name", ["tarin", "--nonsense", "captioner", "a\nb"])
def test_an_unknown_command_is_one_line(monkeypatch, capsys, name):
    status, lines, errors = run(monkeypatch, capsys, name)
    assert status == 1 and not lines and len(errors) == 1
    assert errors[0].startswith(f"error: unknown command {name!r}: choose from train, caption, ")


def test_version(monkeypatch, capsys):
    assert run(monkeypatch, capsys, "--version") == (0, [f"minicap {__version__}"], [])


def test_python_m_minicap_is_the_same_program():
    outputs = [
        subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True)
        for words in (["minicap", "caption", "--help"], ["minicap.caption", "--help"])
    ]
    assert outputs[0].stdout == outputs[1].stdout and outputs[0].returncode == 0
    done = subprocess.run([sys.executable, "-m", "minicap", "x"], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and not done.stdout
