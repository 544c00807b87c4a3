"""Pushes a folder to the Hub: completed, checked by loading it elsewhere, and uploaded in one commit."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import CommitInfo, HfApi
from huggingface_hub.errors import EntryNotFoundError, LocalTokenNotFoundError, RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id

from dataset_builder import UserError
from model_card.card import CARD, name_repository, write_brief_card
from model_card.renewal import is_edited, write_card
from training.models import repository
from training.system.errors import CommandFailed
from training.system.hub_errors import TRIES, first_line, with_retries

from .checks import check_code, listing
from .clean_process import check_in_clean_process
from .pushed_files import MODEL_FOLDER, copy_to_push, operations, stale_files

if TYPE_CHECKING:
    from modeling_sentence_ordering import SentenceOrderingModel

# What git takes for no name of a branch; see git-check-ref-format.
_NO_BRANCH = re.compile(r"[\s~^:?*\[\\]|\.\.|//|@\{|^[-/.]|[/.]$|\.lock$|^$")


class PushFailed(CommandFailed):
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
        trust_remote_code: run code in a model's folder that is not this package's, to see whether the model loads.
    """

    repo_id: str
    private: bool = False
    revision: str | None = None
    create_pr: bool = False
    commit_message: str | None = None
    token: str | None = None
    trust_remote_code: bool = False

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
        UserError: if the id is none, a branch has no name that one can have, a pull request is to go to a branch, or
            a repository that is to be private is public.
        PushFailed: if nobody is logged in, or may not write there, or the Hub cannot be reached.
    """
    try:
        validate_repo_id(publication.repo_id)
    except ValueError as error:
        raise UserError(f"{publication.repo_id!r} is no id of a repository: {first_line(error)}") from None
    _check_revision(publication)
    api = HfApi(token=publication.token)
    try:
        person = with_retries(lambda: api.whoami())
        repo_id = publication.repo_id if "/" in publication.repo_id else f"{person['name']}/{publication.repo_id}"
        public = publication.private and _is_public(api, repo_id, repo_type)
    except LocalTokenNotFoundError:
        raise PushFailed("nobody is logged in to the Hub: run hf auth login, or set HF_TOKEN") from None
    except Exception as error:
        raise PushFailed(f"nothing can be pushed to {publication.repo_id}: {first_line(error)}") from error
    if public:
        raise UserError(
            f"{repo_id} is a public repository, and --private makes only a new one private: choose another, "
            "or change its visibility in its settings on the Hub"
        )
    _check_token(person, repo_id, publication)
    return repo_id


def _check_revision(publication: Publication) -> None:
    revision = publication.revision
    if revision is None:
        return
    if _NO_BRANCH.search(revision):
        raise UserError(f"--revision {revision!r} is no name that a branch can have")
    if publication.create_pr and revision != "main":
        raise UserError(f"--create_pr opens a pull request to main: leave out --revision {revision}")


def _check_token(person: Mapping[str, Any], repo_id: str, publication: Publication) -> None:
    """Refuses a token of which it is plain that it may not write there."""
    role = ((person.get("auth") or {}).get("accessToken") or {}).get("role")
    if role == "read":
        raise PushFailed(
            f"nothing can be pushed to {repo_id}: the token may only read; make one that may write at "
            "https://huggingface.co/settings/tokens"
        )
    # Tokens of other kinds may not see all organisations of the person.
    owners = [person["name"], *(organization["name"] for organization in person.get("orgs") or ())]
    owner = repo_id.partition("/")[0]
    if role == "write" and not publication.create_pr and owner.lower() not in map(str.lower, owners):
        raise PushFailed(
            f"nothing can be pushed to {repo_id}: {owner} is neither you nor an organisation of yours "
            f"({', '.join(owners)}); --create_pr opens a pull request to somebody else's repository"
        )


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
        folder: a model's folder, complete; or that of a data set or a Space.
        publication: where to, and how.
        repo_type: `"model"`, `"dataset"` or `"space"`.
        again: in words, how to try again.
        report: called with each line for the person who waits.

    Raises:
        UserError: if the model in the folder cannot be loaded, or would run code of unknown making, or the
            publication makes no sense.
        PushFailed: if the Hub refuses or cannot be reached.
        PushInterrupted: if the person who waits interrupts it.
    """
    repo_id = check_publication(publication, repo_type)
    push = _Push(HfApi(token=publication.token), repo_id, repo_type, publication, again)
    try:
        with copy_to_push(folder) as staging:
            model = staging if repo_type == "model" else staging / MODEL_FOLDER
            _check_model(model, folder, publication.trust_remote_code, report)
            if repo_type == "model":
                _add_card(staging, repo_id)
            report(f"uploading to {repo_id}: {listing(staging)}")
            commit = push.upload(staging)
    except KeyboardInterrupt:
        raise PushInterrupted(f"interrupted: {push.state()}") from None
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


def _check_model(model: Path, name: Path, trusted: bool, report: Callable[[str], None]) -> None:
    """Loads a model that is to be pushed; a data set has none, and a Space may name one that is on the Hub."""
    if model.is_dir():
        check_code(model, name, trusted=trusted)
        report("checking that the model loads in a process without this package")
        check_in_clean_process(model, name)


def _add_card(folder: Path, repo_id: str) -> None:
    """A brief card where there is none: without one the Hub does not know what kind of model it is."""
    card = folder / CARD
    if card.is_file() and card.read_bytes().strip():
        return
    config = repository.read_json(folder / "config.json")
    write_brief_card(
        folder, name=repo_id, base_model=config.get("base_model"), objective=config.get("objective", "mse")
    )


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
        """All requests that change the repository.

        Raises:
            UserError: if the Hub refuses the card.
            PushFailed: whatever else goes wrong.
        """
        try:
            self._prepare()
            self._keep_what_a_person_wrote(folder)
            # A pull request is not tried twice: where only the answer was lost, there would be two.
            return with_retries(lambda: self._commit(folder), tries=1 if self.publication.create_pr else TRIES)
        except Exception as error:
            if type(error) is ValueError:  # what the client makes of a refused card; errors of the network are others
                raise UserError(f"nothing was pushed to {self.repo_id}: {first_line(error)}") from error
            raise PushFailed(f"{self.state()}: {first_line(error)}") from error

    def _prepare(self) -> None:
        """Makes the repository and the branch if there are none."""
        private = True if self.publication.private else None
        branch, asks = self.publication.revision, self.publication.create_pr
        # Whoever asks somebody else to take a change may not make a repository there.
        if not (asks and with_retries(lambda: self.api.repo_exists(**self._where))):
            sdk = "gradio" if self.repo_type == "space" else None
            with_retries(lambda: self.api.create_repo(**self._where, private=private, space_sdk=sdk, exist_ok=True))
        if branch is not None and not asks and not branch.startswith("refs/"):
            with_retries(lambda: self.api.create_branch(**self._where, branch=branch, exist_ok=True))
        self.before, self.began = self._head(), True

    def _commit(self, folder: Path) -> CommitInfo:
        """Everything in one commit. `upload_folder` may make several of it, and a reader find a mixture."""
        branch = self.publication.revision
        present = self.api.list_repo_files(self.repo_id, repo_type=self.repo_type, revision=branch)
        return self.api.create_commit(
            **self._where,
            operations=operations(folder, present, stale_files(self.repo_id, self.repo_type)),
            commit_message=self.publication.commit_message or "Upload with sentence-ordering",
            revision=branch,
            create_pr=self.publication.create_pr,
        )

    @property
    def _where(self) -> dict[str, Any]:
        return {"repo_id": self.repo_id, "repo_type": self.repo_type}

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
        """The commit that the branch or pull request stands at, or None if there is none."""
        try:
            refs = with_retries(lambda: self.api.list_repo_refs(**self._where, include_pull_requests=True))
        except RepositoryNotFoundError:
            return None
        everything = [*refs.branches, *(refs.pull_requests or [])]
        heads = {name: ref.target_commit for ref in everything for name in (ref.name, ref.ref)}
        return heads.get(self.publication.revision or "main")

    def _keep_what_a_person_wrote(self, folder: Path) -> None:
        """Takes over the card that is on the Hub with the generated section of the new one, unless that was edited."""
        card = folder / CARD
        if self.repo_type == "model":
            name_repository(folder, self.repo_id)
        if not card.is_file() or is_edited(new := card.read_bytes().decode("utf-8", "surrogateescape")):
            return
        with tempfile.TemporaryDirectory() as download:
            try:
                path = with_retries(
                    lambda: self.api.hf_hub_download(
                        self.repo_id,
                        CARD,
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
        return not with_retries(lambda: api.repo_info(repo_id, repo_type=repo_type)).private
    except RepositoryNotFoundError:
        return False
