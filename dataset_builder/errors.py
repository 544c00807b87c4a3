"""The error that means bad input."""


class UserError(ValueError):
    """The input cannot be used: a file, a value or a name. The message says what is wrong, where, and what to do.

    Commands print the message and end with exit code 2. Any other `ValueError` is reported as a bug.
    """
