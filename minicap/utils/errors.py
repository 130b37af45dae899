"""Errors that are a user's to mend: one line that says what, where and what to do."""

import re
import sys

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def plain(text: object) -> str:
    """`text` with control characters as escapes: a terminal would obey them, a line would break."""
    return CONTROL.sub(lambda found: repr(found[0])[1:-1], str(text))


class UserError(Exception):
    """Something that the user can put right. Commands print it as one line and exit with 1."""


class UnusableImage(UserError):
    """A picture that cannot be read: its name, a colon, the reason; which also stands alone."""

    def __init__(self, name: object, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name, self.reason = name, reason

    def __reduce__(self):
        """Pickled as it was made: exceptions are otherwise rebuilt from their message alone."""
        return type(self), (self.name, self.reason)


def interrupted_quietly(kind, error, traceback) -> None:
    """An excepthook: one word for Ctrl-C while a command is being imported."""
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)
