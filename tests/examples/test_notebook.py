"""The notebook runs from its first cell to its last, and is stored as a reader should find it."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "examples" / "sentence_ordering.ipynb"
# Training for as few steps as show that it runs.
PARAMETERS = 'ENCODER = "cnn"\nMAX_STEPS = 2\n'


def read() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.mark.slow
def test_it_runs_and_shows_what_it_promises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=":")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = read()
    (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    cell.source = PARAMETERS
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = [kind for output in outputs for kind in output.get("data", {}) if kind.startswith("image/")]
    assert sorted(shown) == ["image/png"] * 2 + ["image/svg+xml"] * 3
    said = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")
    for words in ("1920 stories to train", "labels: [", "[CLS]", "wrote notebook-model", "(by chance 0.000)"):
        assert words in said
    assert (tmp_path / "notebook-model" / "model.safetensors").is_file()


def test_it_is_stored_without_outputs_and_small() -> None:
    nbformat.validate(read())
    for cell in read().cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None
    assert NOTEBOOK.stat().st_size < 20_000
