"""What the demo's server refuses: uploads, large requests, other names of this machine, and other sites."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.training.conftest import Trained
from tests.training.served_pages import ROOT, demo_of, served
from training.commands.demo import examples
from training.demo.space import write_space

pytestmark = pytest.mark.skipif(
    find_spec("gradio") is None, reason="needs the page's library: pip install -e '.[demo]'"
)
FILE = (
    b'--x\r\nContent-Disposition: form-data; name="files"; filename="planted.txt"\r\n\r\nplanted content\r\n--x--\r\n'
)
FORM = {"Content-Type": "multipart/form-data; boundary=x"}
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def served_at(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Where the page is, and where Gradio would put files."""
    uploads = tmp_path_factory.mktemp("uploads")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(uploads))
        with demo_of(trained.folder) as server:
            yield urlsplit(server.address()).netloc, uploads


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status"),
    [
        ("GET", "/", {}, b"", 200),
        ("GET", "/config", {}, b"", 200),
        ("GET", "/", {"Host": "localhost:{port}"}, b"", 200),
        ("GET", "/config", {"Origin": "http://{host}"}, b"", 200),
        ("GET", "/", {"Host": "evil.example:{port}"}, b"", 403),
        ("GET", "/", {"Host": "127.0.0.1.evil.example"}, b"", 403),
        ("GET", "/", {"Host": "[::1"}, b"", 403),
        ("GET", "/config", {"Origin": "http://[::1"}, b"", 403),
        ("GET", "/", {"Host": ""}, b"", 403),
        ("GET", "/config", {"Origin": "https://evil.example"}, b"", 403),
        ("GET", "/config", {"Origin": "http://127.0.0.1:1"}, b"", 403),
        ("GET", "/config", {"Origin": "null"}, b"", 403),
        ("POST", "/gradio_api/upload", FORM, FILE, 403),
        ("POST", "/upload", FORM, FILE, 403),
        ("POST", "/gradio_api/upload?upload_id=x", FORM | {"Origin": "https://evil.example"}, FILE, 403),
        ("POST", "/gradio_api/queue/join", FORM | {"Origin": "https://evil.example"}, b"{}", 403),
        ("POST", "/gradio_api/queue/join", JSON, b"x" * (2**20 + 1), 413),
        ("POST", "/gradio_api/component_server", JSON, b"{}", 403),
        ("GET", "/gradio_api/deep_link?session_hash=x", {}, b"", 403),
        ("GET", "/gradio_api/proxy=https://somebody-x.hf.space/file", {}, b"", 403),
        ("DELETE", "/", {}, b"", 405),
    ],
)
def test_requests(
    method: str, path: str, headers: dict[str, str], body: bytes, status: int, served_at: tuple[str, Path]
) -> None:
    host, uploads = served_at
    sent = {name: value.format(host=host, port=host.split(":")[1]) for name, value in headers.items()}
    connection = http.client.HTTPConnection(host, timeout=60)
    try:
        connection.request(method, path, body, sent)
        assert connection.getresponse().status == status
    except (BrokenPipeError, ConnectionResetError):
        assert status == 413  # answered before all of it was sent
    finally:
        connection.close()
    assert not [file for file in uploads.rglob("*") if file.is_file()]


@pytest.mark.slow
def test_the_queue_has_an_end(trained: Trained, tmp_path: Path) -> None:
    """While the model is loading nothing is ordered, and only so many visitors wait for it."""
    write_space(tmp_path / "space", str(trained.folder), examples())
    with served(tmp_path / "space", str(ROOT / "tests/training/clients/slow_demo.py")) as server:
        connection = http.client.HTTPConnection(urlsplit(server.address()).netloc, timeout=60)
        connection.request("GET", "/config")
        config = json.loads(connection.getresponse().read())
        order = [each["id"] for each in config["dependencies"] if len(each["inputs"]) == 3][1]
        statuses = []
        for number in range(100):
            event = {"data": ["It rained.\nHe slept.", True, None], "fn_index": order, "session_hash": f"s{number}"}
            connection.request("POST", "/gradio_api/queue/join", json.dumps(event), JSON)
            reply = connection.getresponse()
            reply.read()
            statuses.append(reply.status)
    assert statuses[:60] == [200] * 60 and 200 not in statuses[-20:]
