"""What all commands share: parsing options, and one-line errors."""

import contextlib
import errno
import io
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from typing import TypeVar, get_type_hints

from minicap.utils.errors import UserError, plain, short
from minicap.utils.ranks import STARTED_HERE, Ranks, started, world
from minicap.utils.renamed import REMOVED, RENAMED, option

Options = TypeVar("Options")

# How writing to a full or broken standard output fails. (Errors of other files have a file name.)
# Other calls without a file name, a fork for example, fail with other numbers.
OUTPUT_FAILS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF}

# Commands whose work the ranks of an MPI job share.
SHARED = {"train", "encode", "caption", "evaluate"}

# What tyro and Python say about a wrong option, and what we say.
REWORDED = (
    (
        r"Error parsing (\S+): invalid literal for int\(\) .*: (.*)",
        r"\1 must be a whole number, not \2",
    ),
    (
        r"Error parsing (\S+): could not convert string to float: (.*)",
        r"\1 must be a number, not \2",
    ),
    (
        r"invalid choice (.*) for argument '(.*)'\. Expected one of \((.*)\)\.",
        r"\2: \1 is not one of \3",
    ),
    (r"Missing value for argument '(.*)'\. Expected .*", r"\1 needs a value"),
    (r"Unrecognized options: (.*)", r"unknown option or argument: \1"),
    (r"Missing from minicap \w+: (\S+) (.*) \(required\)", r"\1 is missing: \2"),
)


def cpu_count() -> int:
    """Count the processors that this process may use.

    The ranks of an MPI job on this machine divide them. The environment variable PYTHON_CPU_COUNT
    overrides it, as it does in Python 3.13.
    """
    named = os.environ.get("PYTHON_CPU_COUNT", "")
    if named.isdecimal() and int(named):
        return int(named)
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    return max(1, count // started(STARTED_HERE)) if started() > 1 else count


def parse(
    kind: type[Options],
    command: str,
    arguments: Sequence[str] | None = None,
    default: Options | None = None,
) -> Options:
    """Parse a command's options.

    Args:
        kind: a dataclass, with an option for each field. The fields of nested dataclasses are
            options too.
        command: the command's name, for the help text.
        arguments: by default those of the process.
        default: the options' defaults, if they are not the class's.

    Raises:
        UserError: an option that has been renamed or removed; or a command that ranks cannot share.
        SystemExit: an unknown option or a wrong value (status 2), or --help (status 0).
    """
    import tyro

    if command not in SHARED and world().size > 1:
        raise UserError(f"minicap {command} runs in one process: start it without mpiexec")
    arguments = sys.argv[1:] if arguments is None else arguments
    known = option_names(kind)
    for word in arguments:
        name = word.partition("=")[0].removeprefix("--").removeprefix("no-").replace("-", "_")
        if word.startswith("--") and name not in known and RENAMED.get(name) in known:
            raise UserError(f"{option(name)} is now called {option(RENAMED[name])}")
        if word.startswith("--") and name not in known and name in REMOVED:
            raise UserError(f"{option(name)} was removed: it did not improve captions")
    config = (tyro.conf.OmitArgPrefixes,)  # --beam-size, and not --generation.beam-size
    program = f"minicap {command}"
    message = io.StringIO()
    try:
        with contextlib.redirect_stderr(message):
            if default is None:
                return tyro.cli(kind, prog=program, args=arguments, config=config)
            return tyro.cli(kind, prog=program, args=arguments, config=config, default=default)
    except SystemExit as stop:
        if stop.code:
            print(f"error: {one_line(message.getvalue())}; see {program} --help", file=sys.stderr)
        raise


def one_line(box: str) -> str:
    """Condense tyro's message, a box with sections, to one line: what is wrong, and suggestions."""
    sections: list[list[str]] = [[]]
    for line in box.splitlines()[1:]:  # the first has the title
        words = line.strip("│|╭╮╰╯+").strip()
        if words.strip("─-"):
            sections[-1].append(words)
        elif words:  # a horizontal line
            sections.append([])
    sections = [lines for lines in sections if lines]
    found = " ".join(sections[0]) if sections else ""
    for pattern, replacement in REWORDED:
        found = re.sub(pattern, replacement, found)
    suggested = [
        line for lines in sections[1:] if lines[:1] == ["Perhaps you meant:"] for line in lines
    ]
    names = [line.split()[0].rstrip(",") for line in suggested if line.startswith("--")]
    return f"{found}; perhaps you meant {' or '.join(names[:3])}" if names else found


def option_names(kind: type) -> set[str]:
    """List the names of all fields of a dataclass and of its nested dataclasses."""
    hints, names = get_type_hints(kind), set()
    for each in fields(kind):
        inner = hints[each.name]
        names |= (
            option_names(inner) if isinstance(inner, type) and is_dataclass(inner) else {each.name}
        )
    return names


def run(command: Callable[[], int | None]) -> None:
    """Run a command and exit.

    The exit status is what `command` returns; 1, after a one-line message, if it raises UserError
    or the operating system refuses; 130 for Ctrl-C; 141 if the reader of a pipe is gone. Each line
    is printed at once, to a file or a pipe as well. Characters that the output's encoding lacks are
    printed as escapes. A failure ends all ranks of an MPI job.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        errors = "backslashreplace" if sys.stdout.errors == "strict" else sys.stdout.errors
        sys.stdout.reconfigure(errors=errors, line_buffering=True)
    ranks = Ranks()
    status: int | None
    try:
        ranks = world()
        ranks.silence()
        status, message = command(), ""
        sys.stdout.flush()
    except Exception as error:
        if isinstance(error, BrokenPipeError):  # the output's reader is gone, for example `head`
            sys.stderr.close()
            status, message = 141, ""
        elif isinstance(error, UserError | MemoryError | OSError):
            status, message = 1, f"error: {explanation(error)}"
        elif ranks.size == 1:
            raise
        else:
            status, message = 1, traceback.format_exc()
    except KeyboardInterrupt:
        status, message = 130, "interrupted"
    ranks.exit(status, message)


def explanation(error: UserError | MemoryError | OSError) -> str:
    """Return what to tell the user."""
    if isinstance(error, UserError):
        return " ".join(map(plain, short(str(error)).splitlines()))
    if isinstance(error, MemoryError):
        return f"not enough memory ({error}): choose smaller sizes"
    where = "" if error.filename is None else f"{plain(error.filename)}: "
    if error.filename is None and error.errno in OUTPUT_FAILS:
        where = "the output cannot be written: "
        # Otherwise Python tries to write the rest at exit, and fails again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return f"{where}{error.strerror or error}"
