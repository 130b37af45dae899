"""What all commands share: options, and errors of one line."""

import errno
import io
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from typing import TypeVar, get_type_hints

from minicap.utils.errors import UserError, plain
from minicap.utils.renamed import RENAMED, option

Options = TypeVar("Options")

# What writing to a full or broken standard output fails with. (Files name themselves.) Other calls
# that name no file, a fork for example, fail with other numbers.
OUTPUT_FAILS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF}


def cpu_count() -> int:
    """The number of processors this process may use; PYTHON_CPU_COUNT overrides it, as it does
    for Python itself from 3.13 on."""
    named = os.environ.get("PYTHON_CPU_COUNT", "")
    if named.isdecimal() and int(named):
        return int(named)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def parse(
    kind: type[Options],
    command: str,
    arguments: Sequence[str] | None = None,
    default: Options | None = None,
) -> Options:
    """Parse a command's options.

    Args:
        kind: a dataclass; nested dataclasses add their fields.
        command: its name, for the help text.
        arguments: by default those of the shell.
        default: where the options' defaults come from, if not from the class.

    Raises:
        UserError: an option by a name that has changed.
        SystemExit: an unknown option or a wrong value; or --help.
    """
    import tyro

    arguments = sys.argv[1:] if arguments is None else arguments
    known = option_names(kind)
    for word in arguments:
        name = word.partition("=")[0].removeprefix("--").removeprefix("no-").replace("-", "_")
        if word.startswith("--") and name not in known and RENAMED.get(name) in known:
            raise UserError(f"{option(name)} is now called {option(RENAMED[name])}")
    config = (tyro.conf.OmitArgPrefixes,)  # --beam-size, and not --generation.beam-size
    program = f"minicap {command}"
    if default is None:
        return tyro.cli(kind, prog=program, args=arguments, config=config)
    return tyro.cli(kind, prog=program, args=arguments, config=config, default=default)


def option_names(kind: type) -> set[str]:
    """The names of all fields of a dataclass and of the dataclasses in it."""
    hints, names = get_type_hints(kind), set()
    for each in fields(kind):
        inner = hints[each.name]
        names |= (
            option_names(inner) if isinstance(inner, type) and is_dataclass(inner) else {each.name}
        )
    return names


def run(command: Callable[[], int | None]) -> None:
    """Call `command` and exit: with what it returns, or with 1 and one line on a UserError,
    or where the system refuses a file. What cannot be printed is printed as an escape."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = command()
        sys.stdout.flush()
        sys.exit(status)
    except UserError as error:
        print("error:", *map(plain, str(error).splitlines()), file=sys.stderr)
        sys.exit(1)
    except MemoryError as error:
        print(f"error: not enough memory ({error}): choose smaller sizes", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has gone, as `| head` does
        sys.stderr.close()
        sys.exit(141)
    except OSError as error:
        where = "" if error.filename is None else f"{plain(error.filename)}: "
        if error.filename is None and error.errno in OUTPUT_FAILS:
            where = "the output cannot be written: "
            # At its end Python would try to write it once more.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"error: {where}{error.strerror or error}", file=sys.stderr)
        sys.exit(1)
