"""Connects to a Ray cluster, or starts Ray on this machine."""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import site
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dataset_builder import UserError
from training.system.errors import CommandFailed

_FEWEST_CPUS = 4  # logical ones, that Ray Data 2.60 needs to make progress
_OBJECTS = 128 * 2**20  # bytes of the local object store; only names and counts are in it
_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH")
# Read when `ray` is imported. Despite its name, the last makes Ray listen on 127.0.0.1 only, on every system.
_AT_IMPORT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
_LOCAL_ONLY = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
# Workers load the model from a folder: they need neither the Hub nor a token.
_OF_WORKERS = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}
MODEL_FILES = (
    "config.json", "model*.safetensors*", "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*",
    "merges.txt", "*.model", "onnx/*",
)  # fmt: skip


def check_installed() -> None:
    """Raises UserError if Ray Data is not installed."""
    if missing := [name for name in ("ray", "pyarrow", "pandas") if find_spec(name) is None]:
        raise UserError(f"--engine ray needs {', '.join(missing)}: pip install 'sentence-ordering[ray]'")


@contextmanager
def connected(address: str | None = None) -> Iterator[None]:
    """Connects to a cluster; without an address, starts Ray on this machine and stops it in the end.

    The local Ray listens on 127.0.0.1 only. Dashboard and usage statistics are off, and its processes get no token of
    the Hub. A Ray that this process has initialized already is used as it is.

    Raises:
        CommandFailed: the cluster cannot be reached, or Ray does not start.
    """
    os.environ.update(_AT_IMPORT | (_LOCAL_ONLY if address is None else {}))
    import ray
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the context warns of defaults of its own
        ray.data.DataContext.get_current().enable_progress_bars = False
    if ray.is_initialized():
        yield
        return
    with _started(address):
        yield


@contextmanager
def _started(address: str | None) -> Iterator[None]:
    import ray

    common: dict[str, Any] = {
        "logging_level": logging.ERROR,
        "log_to_driver": False,
        "runtime_env": {"env_vars": _OF_WORKERS},
    }
    local: dict[str, Any] = {
        "num_cpus": max(_FEWEST_CPUS, os.cpu_count() or 1),
        "include_dashboard": False,
        "object_store_memory": _OBJECTS,
    }
    with tempfile.TemporaryDirectory(prefix="sentence-ordering-", ignore_cleanup_errors=True) as folder:
        try:
            if address is not None:
                with _native_messages_dropped():
                    ray.init(address, **common)
            else:
                with _environment_of_local_ray(Path(folder)), _native_messages_dropped():
                    ray.init("local", _temp_dir=folder, **local, **common)
                if ray.util.get_node_ip_address() != "127.0.0.1":
                    raise OSError("it was imported before, and would listen on all network interfaces")
        except Exception as error:  # Ray raises the class itself when a process does not start
            where = "Ray does not start" if address is None else f"--address {address}"
            ray.shutdown()
            raise CommandFailed(f"{where}: {str(error).strip().splitlines()[0]}") from error
        try:
            yield
        finally:
            ray.shutdown()  # before its folder is removed


@contextmanager
def _environment_of_local_ray(home: Path) -> Iterator[None]:
    """The environment that Ray's processes inherit: without tokens, and with a home folder that has none either.

    An empty `ray_bootstrap_config.yaml` in it keeps Ray from asking for the metadata of a cloud provider.
    """
    (home / "ray_bootstrap_config.yaml").touch()
    changed = {"HOME": str(home), "HF_HOME": str(home), "PYTHONUSERBASE": site.getuserbase()}
    before = {name: os.environ.pop(name, None) for name in (*_TOKENS, *changed)}
    os.environ.update(changed)
    # Stays: this process shows it to the others.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextmanager
def _native_messages_dropped() -> Iterator[None]:
    """Drops what Ray's C++ code prints to standard error; failures are exceptions."""
    sys.stderr.flush()
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


def resources(backend: str) -> tuple[int, float]:
    """Workers for which the cluster has room, and GPUs of each: one on every GPU, else one on every CPU."""
    import ray

    available = ray.cluster_resources()
    if backend == "torch" and (gpus := int(available.get("GPU", 0))):
        return gpus, 1
    cpus = int(available.get("CPU", 1))
    # The local Ray counts CPUs that this machine may not have.
    return (min(cpus, os.cpu_count() or 1) if len(ray.nodes()) == 1 else cpus), 0


def model_folder(name_or_path: str, shared: Path | None) -> Path:
    """The folder of a model, which workers read.

    Args:
        name_or_path: a folder, or an id on the Hub, from which it is downloaded.
        shared: where to download it to for workers on other machines; None: to the cache.
    """
    if os.path.isdir(name_or_path):
        return Path(name_or_path).absolute()
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name_or_path, local_dir=shared, allow_patterns=list(MODEL_FILES)))


def model_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each file that is loaded, by its name."""
    files = sorted({path for pattern in MODEL_FILES for path in folder.glob(pattern) if path.is_file()})
    digests = {}
    for path in files:
        with open(path, "rb") as stream:
            digests[path.relative_to(folder).as_posix()] = hashlib.file_digest(stream, "sha256").hexdigest()
    return digests
