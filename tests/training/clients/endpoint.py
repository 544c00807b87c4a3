"""What an Inference Endpoint of the Hub does with a repository: takes `handler.py` out of it, and answers HTTP with it.

Run as a script with the id of a repository. Prints the port it listens on at 127.0.0.1, and answers JSON until its
standard input ends. As in https://huggingface.co/docs/inference-endpoints/guides/custom_handler: the class is made
with the repository's folder, and called with what the request's JSON holds.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

for name in ("modeling_sentence_ordering", "dataset_builder", "training", "model_card"):
    sys.modules[name] = None

from huggingface_hub import snapshot_download  # noqa: E402

folder = snapshot_download(sys.argv[1])
spec = importlib.util.spec_from_file_location("handler", f"{folder}/handler.py")
assert spec is not None and spec.loader is not None
module = importlib.util.module_from_spec(spec)
sys.modules["handler"] = module
spec.loader.exec_module(module)
handler = module.EndpointHandler(path=folder)


class Answers(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        body = json.dumps(handler(request)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


server = HTTPServer(("127.0.0.1", 0), Answers)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(server.server_port, flush=True)
sys.stdin.read()
server.shutdown()
