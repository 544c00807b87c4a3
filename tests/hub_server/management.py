"""Accounts, repositories, branches and tags: everything that holds files, but no file itself."""

from __future__ import annotations

import re
from typing import Any

from .cards import SPACE_SDKS, check_card
from .messages import HubError, Kind, Request, Response
from .repositories import Blob, Repository
from .state import State

NAME = re.compile(r"(?!.*(?:--|\.\.))[\w][\w.-]{0,95}(?<![.-])(?<!\.git)", re.ASCII)


def who_am_i(state: State, request: Request) -> Response:
    account = state.signed_in(request)
    organizations = [{"type": "org", "name": name, "roleInOrg": "write"} for name in account.organizations]
    role = "read" if account.read_only else "write"
    return Response.of({
        "type": "user", "id": account.name, "name": account.name, "fullname": account.name, "isPro": False,
        "orgs": organizations, "auth": {"type": "access_token", "accessToken": {"displayName": "test", "role": role}},
    })  # fmt: skip


def create_repository(state: State, request: Request) -> Response:
    account = state.signed_in(request)
    wanted = request.json()
    namespace, name = wanted.get("organization") or account.name, str(wanted["name"])
    kind: Kind = wanted.get("type") or "model"
    if kind not in ("model", "dataset", "space"):
        raise HubError(501, f"the tests' server has models, data sets and Spaces, no {kind}s")
    if kind == "space" and wanted.get("sdk") not in SPACE_SDKS:
        raise HubError(400, f'"sdk" must be one of [{", ".join(SPACE_SDKS)}]')
    if not NAME.fullmatch(name):
        raise HubError(400, f"Invalid repo name: {namespace}/{name}")
    if not account.may_write_in(namespace):
        raise HubError(403, f"You don't have the rights to create a {kind} under the namespace {namespace!r}")
    # Clients before 1.0 send "private", later ones "visibility".
    private = bool(wanted.get("private")) or wanted.get("visibility") == "private"
    key = (kind, f"{namespace}/{name}")
    if key in state.repositories:
        url = f"{state.endpoint}/{state.repositories[key].page}"
        raise HubError(409, f"You already created this {kind} repo: {namespace}/{name}", url=url)
    repository = Repository(kind, f"{namespace}/{name}", account.name, private)
    if kind == "space":
        # The Hub writes a README of its own, with the newest version of the SDK.
        readme = f"---\ntitle: {name}\nsdk: {wanted['sdk']}\nsdk_version: 99.0.0\napp_file: app.py\n---\n"
        first = repository.commit_at("main")
        files = {**first.files, "README.md": Blob(readme.encode())}
        repository.add_commit("refs/heads/main", files, "initial commit", "", account.name, first.oid)
    state.repositories[key] = repository
    return Response.of({"url": f"{state.endpoint}/{repository.page}", "name": repository.repo_id, "private": private})


def delete_repository(state: State, request: Request) -> Response:
    account = state.signed_in(request)
    wanted = request.json()
    kind, repo_id = wanted.get("type") or "model", f"{wanted.get('organization') or account.name}/{wanted['name']}"
    state.writable(request, kind, repo_id)
    del state.repositories[kind, repo_id]
    return Response.of("OK")


def change_settings(state: State, request: Request, kind: Kind, repo_id: str) -> Response:
    repository = state.writable(request, kind, repo_id)
    wanted = request.json()
    repository.private = wanted.get("private", wanted.get("visibility") == "private")
    return Response.of({"private": repository.private})


def may_read(state: State, request: Request, kind: Kind, repo_id: str) -> Response:
    state.readable(request, kind, repo_id)
    return Response.of("OK")


def validate_card(state: State, request: Request) -> Response:
    """The client asks before it uploads anything."""
    state.account(request)
    wanted = request.json()
    reject_invalid_card(wanted["content"], wanted["repoType"])
    warnings = check_card(wanted["content"], wanted["repoType"])[1]
    return Response.of({"errors": [], "warnings": [{"message": message} for message in warnings]})


def reject_invalid_card(readme: str, kind: Kind) -> None:
    """Raises HubError, 400, with all that is wrong."""
    errors, warnings = check_card(readme, kind)
    if errors:
        described = {"errors": errors, "warnings": warnings}
        more: dict[str, Any] = {
            name: [{"message": message} for message in messages] for name, messages in described.items()
        }
        raise HubError(400, "\n".join(errors), **more)


def list_refs(state: State, request: Request, kind: Kind, repo_id: str) -> Response:
    repository = state.readable(request, kind, repo_id)

    def below(prefix: str, shown: str = "") -> list[dict[str, str]]:
        return [{"name": shown + ref.removeprefix(prefix), "ref": ref, "targetCommit": oid}
                for ref, oid in repository.refs.items() if ref.startswith(prefix)]  # fmt: skip

    found = {"branches": below("refs/heads/"), "tags": below("refs/tags/"), "converts": []}
    return Response.of(found | ({"pullRequests": below("refs/pr/")} if request.flag("include_prs") else {}))


def create_branch(state: State, request: Request, kind: Kind, repo_id: str, revision: str) -> Response:
    repository = state.writable(request, kind, repo_id)
    if revision.startswith("refs/") or not re.fullmatch(r"[\w./-]+", revision):
        raise HubError(400, f"Invalid reference for a branch: {revision}")
    start = repository.commit_at((request.json() if request.body else {}).get("startingPoint", "main"))
    return _create_ref(repository, f"refs/heads/{revision}", start.oid)


def create_tag(state: State, request: Request, kind: Kind, repo_id: str, revision: str) -> Response:
    repository = state.writable(request, kind, repo_id)
    return _create_ref(repository, f"refs/tags/{request.json()['tag']}", repository.commit_at(revision).oid)


def _create_ref(repository: Repository, ref: str, oid: str) -> Response:
    if ref in repository.refs:
        raise HubError(409, f"Reference {ref} already exists")
    repository.refs[ref] = oid
    return Response.of("OK", 201)


def delete_branch(state: State, request: Request, kind: Kind, repo_id: str, revision: str) -> Response:
    if revision == "main":
        raise HubError(403, "The branch main cannot be deleted")
    return _delete_ref(state.writable(request, kind, repo_id), f"refs/heads/{revision}")


def delete_tag(state: State, request: Request, kind: Kind, repo_id: str, revision: str) -> Response:
    return _delete_ref(state.writable(request, kind, repo_id), f"refs/tags/{revision}")


def _delete_ref(repository: Repository, ref: str) -> Response:
    if ref not in repository.refs:
        raise HubError(404, f"Invalid rev id: {ref}", "RevisionNotFound")
    del repository.refs[ref]
    return Response.of("OK")
