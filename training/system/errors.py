"""The error of a command that failed for a reason outside of its input."""


class CommandFailed(RuntimeError):
    """The network, the disk, another process or the training failed. Commands print the message; the exit code is 1.

    See `dataset_builder.UserError` for bad input. Any other `RuntimeError` is reported as a bug.
    """
