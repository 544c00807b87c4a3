"""The repository that a push is meant for, asked about before anything is made for it."""

from __future__ import annotations

from dataclasses import dataclass

from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id

from .hub_errors import first_line
from .publishing import PushFailed


@dataclass(frozen=True)
class PushTarget:
    """Where a push will go.

    Attributes:
        repo_id: with its owner.
        public: whether everybody can read it: as it is, or as it will be made.
    """

    repo_id: str
    public: bool


def push_target(repo_id: str, *, repo_type: str, private: bool, token: str | None = None) -> PushTarget:
    """Asks the Hub what is there.

    Args:
        repo_id: `user/name`, `organisation/name`, or a bare name for one of the user's own.
        repo_type: `"model"` or `"dataset"`.
        private: whether a new repository is to be private; without it, it counts as public.
        token: of the Hub; by default the one that the person is logged in with.

    Raises:
        ValueError: for what is no id; and where private was asked for, but the repository is there and public, which
            a push does not change.
        PushFailed: if nobody is logged in, or the Hub cannot be asked.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(f"{repo_id!r} is no id of a repository: {first_line(error)}") from None
    api = HfApi(token=token)
    try:
        user = api.whoami()["name"]
        repo_id = repo_id if "/" in repo_id else f"{user}/{repo_id}"
        is_private = bool(api.repo_info(repo_id, repo_type=repo_type).private)
    except RepositoryNotFoundError:
        return PushTarget(repo_id, public=not private)
    except Exception as error:
        raise PushFailed(f"nothing was built or pushed, the Hub could not be asked: {first_line(error)}") from error
    if private and not is_private:
        raise ValueError(
            f"{repo_id} exists and is public, and --private would not change that: make it private in its settings "
            "first, or name another repository"
        )
    return PushTarget(repo_id, public=not is_private)
