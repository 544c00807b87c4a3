"""Everything that the server answers. What is not in this table gets a 501, upon which no client tries again."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import unquote

from . import management, reading, writing
from .messages import HubError, Request, Response
from .state import State

PARTS = {
    "kind": r"(?P<kind>model|dataset|space)s",
    "repo_id": r"(?P<repo_id>[^/]+/[^/]+?|[^/]+?)",
    "revision": r"(?P<revision>refs/pr/\d+|[^/]+)",
    "path": r"(?P<path>.+)",
    "key": r"(?P<key>[^/]+)",
    "oid": r"(?P<oid>[^/]+)",
}
TABLE: list[tuple[str, str, Callable[..., Response]]] = [
    ("GET", "/api/whoami-v2", management.who_am_i),
    ("POST", "/api/validate-yaml", management.validate_card),
    ("POST", "/api/repos/create", management.create_repository),
    ("DELETE", "/api/repos/delete", management.delete_repository),
    ("PUT", "/api/{kind}/{repo_id}/settings", management.change_settings),
    ("GET", "/api/{kind}/{repo_id}/auth-check", management.may_read),
    ("GET", "/api/{kind}/{repo_id}/refs", management.list_refs),
    ("POST", "/api/{kind}/{repo_id}/branch/{revision}", management.create_branch),
    ("DELETE", "/api/{kind}/{repo_id}/branch/{revision}", management.delete_branch),
    ("POST", "/api/{kind}/{repo_id}/tag/{revision}", management.create_tag),
    ("DELETE", "/api/{kind}/{repo_id}/tag/{revision}", management.delete_tag),
    ("GET", "/api/{kind}/{repo_id}/revision/{revision}", reading.repository_info),
    ("GET", "/api/{kind}/{repo_id}/tree/{revision}", reading.list_tree),
    ("GET", "/api/{kind}/{repo_id}/tree/{revision}/{path}", reading.list_tree),
    ("POST", "/api/{kind}/{repo_id}/paths-info/{revision}", reading.paths_info),
    ("GET", "/api/{kind}/{repo_id}/commits/{revision}", reading.list_commits),
    ("GET", "/api/{kind}/{repo_id}", reading.repository_info),
    ("GET", "/{kind}/{repo_id}/resolve/{revision}/{path}", reading.file),
    ("GET", "/{repo_id}/resolve/{revision}/{path}", reading.file),
    ("GET", "/storage/{key}/{oid}", reading.stored_file),
    ("PUT", "/storage/{key}/{oid}", writing.store_file),
    ("POST", "/api/{kind}/{repo_id}/preupload/{revision}", writing.upload_modes),
    ("POST", "/{kind}/{repo_id}.git/info/lfs/objects/batch", writing.upload_addresses),
    ("POST", "/{repo_id}.git/info/lfs/objects/batch", writing.upload_addresses),
    ("POST", "/{kind}/{repo_id}.git/info/lfs/objects/verify", writing.verify_upload),
    ("POST", "/{repo_id}.git/info/lfs/objects/verify", writing.verify_upload),
    ("POST", "/api/{kind}/{repo_id}/commit/{revision}", writing.commit),
]


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\{(\w+)\}", lambda name: PARTS[name[1]], template.replace(".", r"\.")))


ROUTES = [(method, _pattern(template), answer) for method, template, answer in TABLE]


def carry_out(state: State, request: Request) -> Response:
    """The answer to a request; errors are answers, too.

    Raises:
        RuntimeError: it was for a host outside, and came here because the environment of `Hub` makes us the proxy.
    """
    hosts = [url.partition("://")[2] for url in (state.endpoint, state.storage)]
    if request.host == f"datasets-server.{hosts[0]}":
        # Where `datasets` asks whether a data set has been converted to Parquet.
        return Response.of({"error": "The dataset viewer doesn't support this dataset."}, 404)
    if request.host not in hosts:
        raise RuntimeError(f"tests reach nothing outside 127.0.0.1, but this was for {request.host!r}")
    method = "GET" if request.method == "HEAD" else request.method
    for wanted, pattern, answer in ROUTES:
        if wanted == method and (found := pattern.fullmatch(request.quoted_path)):
            parts = {name: unquote(part) for name, part in found.groupdict().items()}
            try:
                return answer(state, request, **parts)
            except HubError as error:
                return error.response
    return Response.of({"error": f"the tests' server has no {request.method} {request.path}"}, 501)
