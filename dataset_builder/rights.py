"""What may be done with stories that others wrote: quote them, push them to the Hub."""

from __future__ import annotations

import os
from collections.abc import Sequence

from .errors import UserError
from .rocstories import TERMS
from .rocstories_layout import in_rocstories_layout
from .sources import as_list, is_sample

SAMPLE_LICENSE, SAMPLE_LANGUAGE = "apache-2.0", "en"
_NO_LICENSE = (None, "unknown")  # an id on the Hub that permits nothing


def all_sample(sources: Sequence[str] | str) -> bool:
    """Whether the stories are the bundled ones and no others."""
    return all(map(is_sample, as_list(sources)))


def may_be_quoted(sources: Sequence[str] | str, *, license: str | None = None, allow_rocstories: bool = False) -> bool:
    """Whether a card may show stories of these sources.

    The bundled sample may be shown. Everything else needs a licence, and what looks like ROCStories (see
    `in_rocstories_layout`) the word of whoever publishes it besides.

    Args:
        sources: as in `load_stories`.
        license: id of the licence under which the stories are published, None if it is not known.
        allow_rocstories: whether stories in the layout of ROCStories may be shown nonetheless.
    """
    if all_sample(sources):
        return True
    return license not in _NO_LICENSE and (allow_rocstories or not in_rocstories_layout(sources))


def check_push_of_rocstories(sources: Sequence[str] | str, *, allow_rocstories: bool = False) -> None:
    """Refuse what looks like ROCStories, for a private repository, too: the Hub and its members are third parties.

    Raises:
        UserError: naming the files.
    """
    if not allow_rocstories and (found := in_rocstories_layout(sources)):
        raise UserError(
            f"{_list(found)} look{'s' if len(found) == 1 else ''} like ROCStories, and nothing was pushed: {TERMS}, "
            "which a repository does, even a private one; if these are other stories, or you have the authors' "
            "permission, add --allow_rocstories"
        )


def check_public_push(sources: Sequence[str] | str, *, license: str | None = None) -> None:
    """Refuse to publish stories whose licence is not known.

    Raises:
        UserError: naming the sources.
    """
    others = [os.path.basename(os.path.abspath(source)) for source in as_list(sources) if not is_sample(source)]
    if others and license in _NO_LICENSE:
        raise UserError(
            f"a public repository needs the licence of {_list(others)}: name it with --license ID, such as cc-by-4.0, "
            "or keep the repository private with --private"
        )


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
