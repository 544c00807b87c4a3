"""What a Hugging Face Inference Endpoint runs: JSON in, JSON out. It is found by the name of this file."""

from __future__ import annotations

from typing import Any

import torch
from transformers import pipeline


class EndpointHandler:
    """Answers requests to an endpoint.

    Args:
        path: folder of the repository on the endpoint's machine.
    """

    def __init__(self, path: str = "") -> None:
        device = 0 if torch.cuda.is_available() else -1
        self.order = pipeline("sentence-ordering", model=path, trust_remote_code=True, device=device)

    def __call__(self, data: dict[str, Any]) -> Any:
        """Orders what a request brings.

        Args:
            data: `inputs`, one story (a list of sentences) or a list of stories; `parameters`, if any, such as
                `{"batch_size": 8}`.

        Returns:
            The pipeline's answer or list of answers; `{"error": ...}` for a request that makes no sense.
        """
        if not isinstance(data, dict) or "inputs" not in data:
            return {"error": "the request has no 'inputs': one story (a list of sentences) or a list of stories"}
        parameters = data.get("parameters") or {}
        if not isinstance(parameters, dict):
            return {"error": f"'parameters' is a mapping of names to values, not {type(parameters).__name__}"}
        try:
            return self.order(data["inputs"], **parameters)
        except (TypeError, ValueError) as error:
            return {"error": str(error)}
