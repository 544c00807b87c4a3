"""Model cards and plots from plain values (numbers, strings, rows of a log)."""

from __future__ import annotations


def _version() -> str:
    """The installed version. This package's code may also be used without being installed: then it has no version."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("sentence-ordering")
    except PackageNotFoundError as error:
        raise AttributeError(f"module {__name__!r} has no attribute '__version__': it is not installed") from error


def __getattr__(name: str) -> str:
    if name == "__version__":
        return _version()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
