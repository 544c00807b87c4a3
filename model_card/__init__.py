"""Plain results turned into words and pictures: what stands beside a model when it is shared.

Everything here is given plain values (numbers, strings, rows of a log) and knows nothing of how they came about.
"""

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
