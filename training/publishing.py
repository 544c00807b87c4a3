"""Pushes a folder to the Hub: completed, checked by loading it elsewhere, and uploaded in one commit."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import CommitInfo, HfApi
from huggingface_hub.errors import EntryNotFoundError, LocalTokenNotFoundError, RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id

from model_card.brief_card import write_brief_card
from model_card.card import name_repository
from model_card.renewal import is_edited, write_card

from . import repository
from .clean_process import check_in_clean_process
from .hub_errors import TRIES, first_line, persistently

if TYPE_CHECKING:
    from modeling_sentence_ordering import SentenceOrderingModel

# What a training run keeps for itself: checkpoints, and logs that carry the machine's name in theirs.
KEPT_BACK = [
    f"{repository.CHECKPOINTS}/*",
    f"{repository.TENSORBOARD}/*",
    ".*",
    "*.unfinished*",
    "*.tmp",
    "*.bin",
    "*.pt",
    "*.ckpt",
    "__pycache__/*",
]
_CARD = "README.md"


class PushFailed(RuntimeError):
    """A push that did not go through; the message is one line and says which state the repository is in."""


class PushInterrupted(KeyboardInterrupt):
    """A push that was broken off by the person who waited for it; the message is one as of `PushFailed`."""


@dataclass(frozen=True)
class Publication:
    """Where something goes on the Hub, and how.

    Attributes:
        repo_id: `user/name` or `organisation/name`; a bare name is the user's own.
        private: make a new repository private; a public one is refused. Without it the owner's default holds.
        revision: branch to commit to, made if there is none.
        create_pr: open a pull request instead of committing.
        commit_message: first line of the commit.
        token: of the Hub; by default the one that the person is logged in with.
    """

    repo_id: str
    private: bool = False
    revision: str | None = None
    create_pr: bool = False
    commit_message: str | None = None
    token: str | None = None

    def __repr__(self) -> str:
        return f"Publication({self.repo_id!r})"  # never the token


@dataclass(frozen=True)
class Pushed:
    """What a push made.

    Attributes:
        repo_id: the repository, its owner included.
        commit: the commit's hash on the branch, or of the pull request.
        url: where a person sees it.
    """

    repo_id: str
    commit: str
    url: str


def check_publication(publication: Publication, repo_type: str = "model") -> str:
    """Finds out what can be found out before there is anything to push, so that hours of training are not for nothing.

    Returns:
        The repository's id, its owner included.

    Raises:
        ValueError: if the id is none, or a repository that is to be private is public.
        PushFailed: if nobody is logged in, or the Hub cannot be reached.
    """
    try:
        validate_repo_id(publication.repo_id)
    except ValueError as error:
        raise ValueError(f"{publication.repo_id} is no id of a repository: {first_line(error)}") from None
    api = HfApi(token=publication.token)
    try:
        name = persistently(lambda: api.whoami())["name"]
        repo_id = publication.repo_id if "/" in publication.repo_id else f"{name}/{publication.repo_id}"
        if publication.private and _is_public(api, repo_id, repo_type):
            raise ValueError(
                f"{repo_id} is a public repository, and --private makes only a new one private: choose another, "
                "or change its visibility in its settings on the Hub"
            )
    except LocalTokenNotFoundError:
        raise PushFailed("nobody is logged in to the Hub: run hf auth login, or set HF_TOKEN") from None
    except ValueError:
        raise
    except Exception as error:
        raise PushFailed(f"nothing can be pushed to {publication.repo_id}: {first_line(error)}") from error
    return repo_id


def push_folder(
    folder: Path,
    publication: Publication,
    *,
    repo_type: str = "model",
    again: str = "the same command can be repeated",
    report: Callable[[str], None] = print,
) -> Pushed:
    """Uploads a folder in one commit; weights or data of an earlier push that no longer belong are deleted in it.

    What a person has written into the card on the Hub stays; its generated section is renewed. A repository is
    either as it was or wholly the new one, whatever happens on the way.

    Args:
        folder: a model's folder, complete; or a data set's.
        publication: where to, and how.
        repo_type: `"model"` or `"dataset"`.
        again: in words, how to try again.
        report: called with each line for the person who waits.

    Raises:
        ValueError: if the model in the folder cannot be loaded, or the publication makes no sense.
        PushFailed: if the Hub refuses or cannot be reached.
        PushInterrupted: if the person who waits interrupts it.
    """
    repo_id = check_publication(publication, repo_type)
    push = _Push(HfApi(token=publication.token), repo_id, repo_type, publication, again)
    with _copy_to_push(folder) as staging:
        if repo_type == "model":
            report("checking that the folder loads in a process without this package")
            check_in_clean_process(staging, folder)
        report(f"uploading to {repo_id}")
        try:
            commit = push.upload(staging)
        except KeyboardInterrupt:
            raise PushInterrupted(f"interrupted: {push.state()}") from None
        except Exception as error:
            raise PushFailed(f"{push.state()}: {first_line(error)}") from error
    return Pushed(repo_id, commit.oid, commit.pr_url or commit.repo_url.url)


def push_model(
    model: SentenceOrderingModel,
    tokenizer: Any,
    publication: Publication,
    *,
    framework: str | None = None,
    metrics: Mapping[str, float] | None = None,
    report: Callable[[str], None] = print,
) -> Pushed:
    """Uploads a model that is in memory, as a complete repository; see `push_folder`.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        publication: where to, and how.
        framework: what trained it, for the card.
        metrics: of its last evaluation, for the card, by the names that `evaluate` gives them.
        report: called with each line for the person who waits.

    Raises:
        ValueError, PushFailed, PushInterrupted: as `push_folder`.
    """
    repo_id = check_publication(publication)
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "repository"
        repository.save_model(model, tokenizer, folder)
        write_brief_card(
            folder,
            name=repo_id,
            base_model=model.config.base_model,
            objective=model.config.objective,
            framework=framework,
            metrics=metrics,
        )
        return push_folder(folder, publication, report=report)


@contextmanager
def _copy_to_push(folder: Path) -> Iterator[Path]:
    """A copy of what is to be pushed, in which the card may be changed; large files are links where links are."""
    with tempfile.TemporaryDirectory() as parent:
        copy = Path(parent) / "repository"
        shutil.copytree(folder, copy, ignore=_ignored, copy_function=_link_or_copy)
        yield copy


def _ignored(folder: str, names: list[str]) -> set[str]:
    tops = {repository.CHECKPOINTS, repository.TENSORBOARD}
    return {name for name in names if name in tops or name.startswith(".")}


def _link_or_copy(source: str, target: str) -> None:
    """A symbolic link, but for small text: what is changed in the copy must not change in the folder."""
    if os.path.basename(source) == _CARD:
        shutil.copyfile(source, target)
    else:
        os.symlink(os.path.realpath(source), target)


@dataclass
class _Push:
    """One push, step by step, and what it has left behind where it stopped."""

    api: HfApi
    repo_id: str
    repo_type: str
    publication: Publication
    again: str
    before: str | None = None
    began: bool = False

    def upload(self, folder: Path) -> CommitInfo:
        """All requests that change the repository."""
        api = self.api
        where: dict[str, Any] = {"repo_id": self.repo_id, "repo_type": self.repo_type}
        branch, asks = self.publication.revision, self.publication.create_pr
        private = True if self.publication.private else None
        persistently(lambda: api.create_repo(**where, private=private, exist_ok=True))
        if branch is not None and not branch.startswith("refs/"):
            persistently(lambda: api.create_branch(**where, branch=branch, exist_ok=True))
        self.before, self.began = self._head(), True
        self._keep_what_a_person_wrote(folder)
        # A pull request is not tried twice: where only the answer was lost, there would be two.
        return persistently(
            lambda: api.upload_folder(
                **where,
                folder_path=folder,
                commit_message=self.publication.commit_message or "Upload with sentence-ordering",
                revision=branch,
                create_pr=asks,
                ignore_patterns=KEPT_BACK,
                delete_patterns=self._stale(),
            ),
            tries=1 if asks else TRIES,
        )

    def _stale(self) -> list[str]:
        """What an earlier push may have left and a loader would take: other weights, other Parquet, a script."""
        if self.repo_type == "dataset":
            return ["*.parquet", f"{self.repo_id.rpartition('/')[2]}.py"]
        from modeling_sentence_ordering.sharing_sentence_ordering import STALE_WEIGHTS

        return STALE_WEIGHTS

    def state(self) -> str:
        """In words, what a push that stopped has left on the Hub."""
        if self.publication.create_pr and self.began:
            return (
                f"the push failed and {self.repo_id} is as it was; look there for a pull request before you try again"
            )
        try:
            changed = self.began and self._head() != self.before
        except Exception:
            return f"the push failed, and whether it changed {self.repo_id} is not known; {self.again}"
        if changed:
            return f"the push went through, only its end was lost, and {self.repo_id} is complete; {self.again}"
        return f"the push failed and the repository {self.repo_id} is as it was; {self.again}"

    def _head(self) -> str | None:
        """The commit that the branch stands at, or None if there is none."""
        try:
            refs = persistently(lambda: self.api.list_repo_refs(self.repo_id, repo_type=self.repo_type))
        except RepositoryNotFoundError:
            return None
        heads: dict[str, Any] = {branch.name: branch.target_commit for branch in refs.branches}
        return heads.get(self.publication.revision or "main")

    def _keep_what_a_person_wrote(self, folder: Path) -> None:
        """Takes over the card that is on the Hub with the generated section of the new one, unless that was edited."""
        card = folder / _CARD
        if self.repo_type == "model":
            name_repository(folder, self.repo_id)
        if not card.is_file() or is_edited(new := card.read_bytes().decode("utf-8", "surrogateescape")):
            return
        with tempfile.TemporaryDirectory() as download:
            try:
                path = persistently(
                    lambda: self.api.hf_hub_download(
                        self.repo_id,
                        _CARD,
                        repo_type=self.repo_type,
                        revision=self.before or self.publication.revision,
                        local_dir=download,
                    )
                )
            except EntryNotFoundError:
                return
            shutil.copyfile(path, card)
        write_card(card, new)


def _is_public(api: HfApi, repo_id: str, repo_type: str) -> bool:
    try:
        return not persistently(lambda: api.repo_info(repo_id, repo_type=repo_type)).private
    except RepositoryNotFoundError:
        return False
