"""Pushes a folder to the Hub in one commit, after checking its files and loading the model in a clean process."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import CommitInfo, HfApi
from huggingface_hub.errors import LocalTokenNotFoundError, RemoteEntryNotFoundError, RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id

from dataset_builder import UserError
from model_card.card import CARD, name_repository, write_brief_card
from model_card.renewal import is_edited, write_card
from training.models import model_folder
from training.system.errors import CommandFailed
from training.system.hub_errors import TRIES, first_line, with_retries

from .checks import check_code, listing
from .clean_process import check_in_clean_process
from .pushed_files import MODEL_FOLDER, copy_to_push, operations, stale_files

if TYPE_CHECKING:
    from modeling_sentence_ordering import SentenceOrderingModel

# Names that git refuses for a branch, see git-check-ref-format.
_BAD_BRANCH = re.compile(r"[\s~^:?*\[\\]|\.\.|//|@\{|^[-/.]|[/.]$|\.lock$|^$")


class PushFailed(CommandFailed):
    """A failed push. The message is one line and says in which state the repository is."""


class PushInterrupted(KeyboardInterrupt):
    """A push that was interrupted. The message is as of `PushFailed`."""


@dataclass(frozen=True)
class Publication:
    """Target and options of a push.

    Attributes:
        repo_id: `user/name` or `organisation/name`; `name` alone is a repository of the logged-in user.
        private: make a new repository private; an existing public one is refused. By default the owner's setting.
        revision: branch to commit to; created if it does not exist.
        create_pr: open a pull request instead of committing.
        commit_message: first line of the commit message.
        token: Hub token; by default the stored one.
        trust_remote_code: allow code in a model's folder that is not this package's. The check runs it.
    """

    repo_id: str
    private: bool = False
    revision: str | None = None
    create_pr: bool = False
    commit_message: str | None = None
    token: str | None = None
    trust_remote_code: bool = False

    def __repr__(self) -> str:
        return f"Publication({self.repo_id!r})"  # without the token


@dataclass(frozen=True)
class Pushed:
    """Result of a push.

    Attributes:
        repo_id: the repository, with its owner.
        commit: hash of the commit on the branch or pull request.
        url: page of the repository or pull request.
    """

    repo_id: str
    commit: str
    url: str


def check_publication(publication: Publication, repo_type: str = "model") -> str:
    """Checks id, branch, token and visibility, so that a training run does not end in a push that must fail.

    Returns:
        The repository's id, with its owner.

    Raises:
        UserError: invalid id or branch name, `create_pr` with a branch, or `private` for a public repository.
        PushFailed: no token, a token without write access, or the Hub cannot be reached.
    """
    try:
        validate_repo_id(publication.repo_id)
    except ValueError as error:
        raise UserError(f"invalid repository id {publication.repo_id!r}: {first_line(error)}") from None
    revision = publication.revision
    if revision is not None and _BAD_BRANCH.search(revision):
        raise UserError(f"--revision {revision!r} is not a valid branch name")
    if publication.create_pr and revision not in (None, "main"):
        raise UserError(f"--create_pr opens a pull request to main: leave out --revision {revision}")
    api = HfApi(token=publication.token)
    try:
        user = with_retries(lambda: api.whoami())
        repo_id = publication.repo_id if "/" in publication.repo_id else f"{user['name']}/{publication.repo_id}"
        public = publication.private and is_public(api, repo_id, repo_type)
    except LocalTokenNotFoundError:
        raise PushFailed("not logged in to the Hub: run hf auth login, or set HF_TOKEN") from None
    except Exception as error:
        raise PushFailed(f"cannot push to {publication.repo_id}: {first_line(error)}") from error
    if public:
        raise UserError(
            f"{repo_id} is a public repository, and --private applies to new ones only: choose another name, or change "
            "its visibility in its settings on the Hub"
        )
    _check_token(user, repo_id, publication)
    return repo_id


def _check_token(user: Mapping[str, Any], repo_id: str, publication: Publication) -> None:
    role = ((user.get("auth") or {}).get("accessToken") or {}).get("role")
    if role == "read":
        raise PushFailed(
            f"cannot push to {repo_id}: the token is read-only; create one with write access at "
            "https://huggingface.co/settings/tokens"
        )
    owners = [user["name"], *(organization["name"] for organization in user.get("orgs") or ())]
    owner = repo_id.partition("/")[0]
    # Only for role "write": fine-grained tokens may not list all organisations of the user.
    if role == "write" and not publication.create_pr and owner.lower() not in map(str.lower, owners):
        raise PushFailed(
            f"cannot push to {repo_id}: {owner} is not your user name or one of your organisations "
            f"({', '.join(owners)}); --create_pr opens a pull request instead"
        )


def is_public(api: HfApi, repo_id: str, repo_type: str) -> bool | None:
    """Whether an existing repository is public; None if it does not exist."""
    try:
        return not with_retries(lambda: api.repo_info(repo_id, repo_type=repo_type)).private
    except RepositoryNotFoundError:
        return None


def push_folder(
    folder: Path,
    publication: Publication,
    *,
    repo_type: str = "model",
    again: str = "run the same command again",
    report: Callable[[str], None] = print,
) -> Pushed:
    """Uploads a folder in one commit, which also deletes outdated weights or data of an earlier push.

    What a person wrote into the card on the Hub is kept; its generated section is renewed. Whatever fails, the
    repository is either unchanged or complete.

    Args:
        folder: of a complete model, a data set or a Space.
        publication: target and options.
        repo_type: `"model"`, `"dataset"` or `"space"`.
        again: for the error message, how to try again.
        report: called with each line of progress.

    Raises:
        UserError: the model cannot be loaded, the folder has files that must not be pushed or code that is not this
            package's, or see `check_publication`.
        PushFailed: the Hub refuses the push or cannot be reached.
        PushInterrupted: interrupted by the user.
    """
    repo_id = check_publication(publication, repo_type)
    push = _Push(HfApi(token=publication.token), repo_id, repo_type, publication, again)
    try:
        with copy_to_push(folder) as staging:
            model = staging if repo_type == "model" else staging / MODEL_FOLDER
            if model.is_dir():  # a data set has none, and a Space may load one from the Hub
                check_code(model, folder, trusted=publication.trust_remote_code)
                report("checking that the model loads in a process without this package")
                check_in_clean_process(model, folder)
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
    """Uploads a model in memory as a complete repository; see `push_folder`.

    Args:
        framework: what trained the model, for the card.
        metrics: of the last evaluation, for the card; see `write_brief_card`.
        report: called with each line of progress.

    Raises:
        UserError, PushFailed, PushInterrupted: as `push_folder`.
    """
    repo_id = check_publication(publication)
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "repository"
        model_folder.save_model(model, tokenizer, folder)
        config = model.config
        write_brief_card(
            folder,
            name=repo_id,
            base_model=config.base_model,
            objective=config.objective,
            framework=framework,
            metrics=metrics,
        )
        return push_folder(folder, publication, report=report)


def _add_card(folder: Path, repo_id: str) -> None:
    """Writes a brief card if there is none: the Hub reads the task from it."""
    card = folder / CARD
    if not card.is_file() or not card.read_bytes().strip():
        config = model_folder.read_json(folder / "config.json")
        base_model, objective = config.get("base_model"), config.get("objective", "mse")
        write_brief_card(folder, name=repo_id, base_model=base_model, objective=objective)


@dataclass
class _Push:
    """The requests of one push.

    Attributes:
        before: the commit at the head of the branch before the push.
        began: whether the repository exists and `before` is known.
    """

    api: HfApi
    repo_id: str
    repo_type: str
    publication: Publication
    again: str
    before: str | None = None
    began: bool = False

    def upload(self, folder: Path) -> CommitInfo:
        """Creates repository and branch if needed, and commits the folder.

        Raises:
            UserError: the Hub refuses the card.
            PushFailed: anything else.
        """
        try:
            self._prepare()
            self._keep_edits_on_hub(folder)
            # A pull request is not retried: if only the reply was lost, there would be two.
            return with_retries(lambda: self._commit(folder), tries=1 if self.publication.create_pr else TRIES)
        except Exception as error:
            if type(error) is ValueError:  # the client's error for a refused card; network errors are subclasses
                raise UserError(f"nothing was pushed to {self.repo_id}: {first_line(error)}") from error
            raise PushFailed(f"{self.state()}: {first_line(error)}") from error

    def _prepare(self) -> None:
        private = True if self.publication.private else None
        branch, create_pr = self.publication.revision, self.publication.create_pr
        # A pull request may be for a repository in which the user cannot create anything.
        if not (create_pr and with_retries(lambda: self.api.repo_exists(**self._where))):
            sdk = "gradio" if self.repo_type == "space" else None
            with_retries(lambda: self.api.create_repo(**self._where, private=private, space_sdk=sdk, exist_ok=True))
        if branch is not None and not create_pr and not branch.startswith("refs/"):
            with_retries(lambda: self.api.create_branch(**self._where, branch=branch, exist_ok=True))
        self.before, self.began = self._head(), True

    def _commit(self, folder: Path) -> CommitInfo:
        """One commit. `upload_folder` may make several, and readers would see a mixture of old and new files."""
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
        """What a failed push has changed on the Hub, in words."""
        if self.publication.create_pr and self.began:
            return f"the push failed and {self.repo_id} is unchanged; check it for a pull request before you try again"
        try:
            changed = self.began and self._head() != self.before
        except Exception:
            return f"the push failed, and it is not known whether {self.repo_id} was changed; {self.again}"
        if changed:
            return f"the push to {self.repo_id} is complete, but the connection was lost at its end; {self.again}"
        return f"the push failed and the repository {self.repo_id} is unchanged; {self.again}"

    def _head(self) -> str | None:
        """The commit at the head of the branch or pull request; None if it does not exist."""
        try:
            refs = with_retries(lambda: self.api.list_repo_refs(**self._where, include_pull_requests=True))
        except RepositoryNotFoundError:
            return None
        heads = {
            name: ref.target_commit
            for ref in [*refs.branches, *(refs.pull_requests or [])]
            for name in (ref.name, ref.ref)
        }
        return heads.get(self.publication.revision or "main")

    def _keep_edits_on_hub(self, folder: Path) -> None:
        """Renews the card on the Hub instead of replacing it, unless the card in the folder was edited."""
        card = folder / CARD
        if self.repo_type == "model":
            name_repository(folder, self.repo_id)
        if not card.is_file() or is_edited(new := card.read_bytes().decode("utf-8", "surrogateescape")):
            return
        with tempfile.TemporaryDirectory() as download:
            revision = self.before or self.publication.revision
            try:
                path = with_retries(
                    lambda: self.api.hf_hub_download(
                        self.repo_id, CARD, repo_type=self.repo_type, revision=revision, local_dir=download
                    )
                )
            except RemoteEntryNotFoundError:
                return
            shutil.copyfile(path, card)
        write_card(card, new)
