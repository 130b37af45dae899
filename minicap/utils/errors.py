"""Errors that a user can fix: one line that says what is wrong, where, and what to do."""

import re
import sys

LONGEST = 1000  # characters of a message
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def plain(text: object) -> str:
    """Escape control characters, which would steer a terminal or break a line."""
    return CONTROL.sub(lambda found: repr(found[0])[1:-1], str(text))


def short(text: str) -> str:
    """Cut the middle out of a long message, such as one that quotes a damaged file."""
    return text if len(text) <= LONGEST else f"{text[:600]} ... {text[-300:]}"


class UserError(Exception):
    """A problem that the user can fix. Commands print it as one line and exit with status 1."""


class UnusableImage(UserError):
    """An image that cannot be read.

    Attributes:
        name: the image's name.
        reason: why it cannot be read. The message is "name: reason".
    """

    def __init__(self, name: object, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name, self.reason = name, reason

    def __reduce__(self):
        """Pickle both arguments: by default, exceptions are rebuilt from their message alone."""
        return type(self), (self.name, self.reason)


def interrupted_quietly(kind, error, traceback) -> None:
    """Print one word, and no traceback, for Ctrl-C during imports: an excepthook."""
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)
