"""What all commands share: their errors are one line each."""

import sys
from collections.abc import Callable

from minicap.errors import UserError


def run(command: Callable[[], int | None]) -> None:
    """Call `command` and exit: with what it returns, or with 1 and one line on a UserError."""
    try:
        sys.exit(command())
    except UserError as error:
        print("error:", *str(error).splitlines(), file=sys.stderr)
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
