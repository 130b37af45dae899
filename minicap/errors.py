"""Errors that are a user's to mend: one line that says what, where and what to do."""


class UserError(Exception):
    """Something that the user can put right. Commands print it as one line and exit with 1."""


class UnusableImage(UserError):
    """A picture that cannot be read: its name, a colon, the reason; which also stands alone."""

    def __init__(self, name: object, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.reason = reason
