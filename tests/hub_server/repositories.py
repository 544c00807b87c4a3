"""Repositories in memory: as much of git as the Hub's API shows of it."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatch
from functools import cached_property

from .messages import HubError, Kind

# The Hub's own .gitattributes, without formats that no test has.
LARGE_FILE_PATTERNS = ("*.arrow", "*.bin", "*.ckpt", "*.gz", "*.h5", "*.model", "*.msgpack", "*.npy", "*.npz", "*.onnx",
                       "*.parquet", "*.pickle", "*.pkl", "*.pt", "*.pth", "*.safetensors", "*.tar", "*.xz", "*.zip",
                       "*.zst", "*tfevents*")  # fmt: skip
LARGE_FILE_BYTES = 10 * 1024 * 1024  # from here on a file is large, whatever its name


@dataclass(frozen=True)
class Blob:
    """The content of a file. Large ones are kept beside the repository (LFS), which holds a pointer to them."""

    content: bytes = field(repr=False)
    large: bool = False

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def pointer(self) -> bytes:
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {self.size}\n".encode()

    @property
    def size(self) -> int:
        return len(self.content)

    @cached_property
    def git_oid(self) -> str:
        stored = self.pointer if self.large else self.content
        return hashlib.sha1(b"blob %d\0" % len(stored) + stored).hexdigest()

    @property
    def etag(self) -> str:
        """What the client compares with the file that it has, before an upload and in its cache."""
        return self.sha256 if self.large else self.git_oid


@dataclass(frozen=True)
class Commit:
    """A state of the whole repository; ``files`` are all of its files by their paths, not only the changed ones."""

    oid: str
    parent: str | None
    files: Mapping[str, Blob] = field(repr=False)
    title: str
    description: str
    author: str
    date: datetime

    def wants_large(self, path: str, size: int, sample: bytes) -> bool:
        """Whether a new file must come as a large one: by .gitattributes, its size, or for being binary."""
        attributes = self.files[".gitattributes"].content.decode() if ".gitattributes" in self.files else ""
        patterns = [line.split()[0] for line in attributes.splitlines() if "filter=lfs" in line]
        named = any(fnmatch(path if "/" in pattern else path.rpartition("/")[2], pattern) for pattern in patterns)
        return named or size >= LARGE_FILE_BYTES or b"\0" in sample

    def folders(self) -> set[str]:
        found = set()
        for path in self.files:
            while path := path.rpartition("/")[0]:
                found.add(path)
        return found


class Repository:
    """A model, a data set or a Space. ``refs`` maps full names (`refs/heads/main`, `refs/pr/1`) to commits' ids."""

    def __init__(self, kind: Kind, repo_id: str, owner: str, private: bool) -> None:
        self.kind = kind
        self.repo_id = repo_id
        self.private = private
        self.created = datetime.now(UTC)
        self.refs: dict[str, str] = {}
        self.all_commits: dict[str, Commit] = {}
        self.large_files: dict[str, bytes] = {}  # uploaded, by their SHA-256; a commit may follow or not
        self.storage_key = secrets.token_hex(16)  # stands for the signature in the URLs of its large files
        attributes = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LARGE_FILE_PATTERNS)
        self.add_commit("refs/heads/main", {".gitattributes": Blob(attributes.encode())}, "initial commit", "", owner)

    @property
    def namespace(self) -> str:
        return self.repo_id.partition("/")[0]

    @property
    def page(self) -> str:
        """The path of its page, which is also the beginning of its files' paths."""
        return self.repo_id if self.kind == "model" else f"{self.kind}s/{self.repo_id}"

    def ref_of(self, revision: str) -> str | None:
        """The full name of a branch, tag or pull request."""
        return next((ref for ref in (f"refs/heads/{revision}", f"refs/tags/{revision}", revision) if ref in self.refs),
                    None)  # fmt: skip

    def commit_at(self, revision: str) -> Commit:
        """The commit that a branch, tag, pull request or (long enough beginning of) a commit's id means.

        Raises:
            HubError: 404 if there is none.
        """
        if ref := self.ref_of(revision):
            return self.all_commits[self.refs[ref]]
        found = [commit for oid, commit in self.all_commits.items() if oid.startswith(revision)]
        if len(revision) < 7 or len(found) != 1:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return found[0]

    def history(self, revision: str) -> Iterator[Commit]:
        """From the commit at the revision back to the first."""
        commit = self.commit_at(revision)
        yield commit
        while commit.parent:
            commit = self.all_commits[commit.parent]
            yield commit

    def add_commit(
        self, ref: str, files: Mapping[str, Blob], title: str, description: str, author: str, parent: str | None = None
    ) -> Commit:
        """Moves ``ref``, which need not exist yet, to a new commit with exactly these files."""
        tree = [f"{path}\0{blob.git_oid}" for path, blob in sorted(files.items())]
        seed = "\n".join([str(len(self.all_commits)), self.storage_key, parent or "", title, description, *tree])
        oid = hashlib.sha1(seed.encode()).hexdigest()
        commit = Commit(oid, parent, dict(files), title, description, author, datetime.now(UTC))
        self.all_commits[oid] = commit
        self.refs[ref] = oid
        return commit

    def next_pull_request(self) -> int:
        return 1 + sum(ref.startswith("refs/pr/") for ref in self.refs)
