"""Writes the demo page as a Space: a folder that runs on the Hub or elsewhere without this package."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from dataset_builder import UserError
from dataset_builder.bounded_yaml import read_yaml
from dataset_builder.file_writing import new_folder, write_text
from model_card.card import CARD
from modeling_sentence_ordering import objectives_sentence_ordering as metrics
from training.publishing.checks import check_code
from training.publishing.pushed_files import MODEL_FOLDER, copy_to_push

# The version of Gradio that the page is tested with; the extra `demo` in pyproject.toml asks for the same.
GRADIO_VERSION = "6.29.1"
_APP, _EXAMPLES, _REQUIREMENTS = "app.py", "examples.json", "requirements.txt"
# Files of the page; none of them imports this package.
_PAGE = {
    "demo_page.py": Path(__file__).with_name("page.py"),
    "demo_page.css": Path(__file__).with_name("page.css"),
    "demo_page.js": Path(__file__).with_name("page.js"),
    "demo_guard.py": Path(__file__).with_name("guard.py"),
    "metrics.py": Path(metrics.__file__),
}
_HUB_LIBRARIES = ("transformers", "torch", "numpy")
_APP_CODE = '''"""Shuffles sentences and has a model put them in order. Made by `sentence-ordering demo --export`."""

import json
from pathlib import Path

from demo_guard import Guard
from demo_page import Model, serve

HERE = Path(__file__).parent
MODEL = {model}


def load():
    from transformers import pipeline  # imported here so that the page is served meanwhile

    # Runs the code in the model's repository; if it is not yours, also pass revision="<commit>".
    return pipeline("sentence-ordering", model=MODEL, trust_remote_code=True)


def story_metrics(scores, labels):
    import metrics  # imports torch

    return metrics.story_metrics(scores, labels)


if __name__ == "__main__":
    examples = json.loads((HERE / "examples.json").read_text(encoding="utf-8"))
    serve(Model({name}, load), examples, story_metrics, Guard)
'''
_TEXT = """
Puts shuffled sentences in order with {model}: pick a story or write one, shuffle it, and press *Order*.

To serve the same page on your machine, run `python app.py` after `pip install -r requirements.txt gradio=={gradio}`.

The page's code and its stories are under Apache-2.0. `app.py` runs the code that comes with the model.
"""


def write_space(
    folder: Path, model: str, examples: Sequence[Mapping[str, Any]], *, trust_remote_code: bool = False
) -> None:
    """Writes a Space, with a temporary name until it is complete.

    Args:
        folder: must be new or empty.
        model: a model's folder, whose pushable files are copied into the Space, or its id on the Hub.
        examples: stories for the page, see `page.build_page`.
        trust_remote_code: allow code in the model's folder that is not this package's.

    Raises:
        UserError: the folder is not empty, or the model's folder has files that must not be published.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--export {folder} is not a new or empty folder: choose another")
    with new_folder(folder) as unfinished:
        _fill(unfinished, model, examples, trust_remote_code)


def model_name(model: str) -> str:
    """Name of a model on the page: its id on the Hub, or its folder's name without the path."""
    name = os.path.basename(os.path.abspath(model)) if os.path.isdir(model) else model
    return name.encode("utf-8", "replace").decode()  # a folder's name may be any bytes


def _fill(folder: Path, model: str, examples: Sequence[Mapping[str, Any]], trusted: bool) -> None:
    for name, source in _PAGE.items():
        shutil.copyfile(source, folder / name)
    is_folder = Path(model).is_dir()
    name = model_name(model)
    if is_folder:
        with copy_to_push(Path(model)) as copy:
            check_code(copy, model, trusted=trusted)
            shutil.copytree(copy, folder / MODEL_FOLDER)  # follows the links that the copy is made of
    where = f'str(HERE / "{MODEL_FOLDER}")' if is_folder else json.dumps(model)
    code = _APP_CODE.format(model=where, name=json.dumps(name, ensure_ascii=False))
    write_text(folder / _APP, code)
    write_text(folder / _EXAMPLES, json.dumps(list(examples), indent=2, ensure_ascii=False) + "\n")
    # Without the local version (such as +cpu).
    wanted = [f"{library}=={version(library).partition('+')[0]}" for library in _HUB_LIBRARIES]
    write_text(folder / _REQUIREMENTS, "\n".join(wanted) + "\n")
    write_text(folder / CARD, _card(name, is_folder))


def _card(model: str, is_folder: bool) -> str:
    """The card of the Space; its metadata: https://huggingface.co/docs/hub/spaces-config-reference."""
    metadata = {
        "title": "Sentence ordering",
        "emoji": "🔀",
        "colorFrom": "indigo",
        "colorTo": "green",
        "sdk": "gradio",
        "sdk_version": GRADIO_VERSION,
        "python_version": "3.11",
        "app_file": _APP,
        "short_description": "Puts shuffled sentences back in order",
        **({} if is_folder else {"models": [model]}),
    }
    shown = f"the model in `{MODEL_FOLDER}/`" if is_folder else f"[{model}](https://huggingface.co/{model})"
    front_matter = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)
    return f"---\n{front_matter}---\n" + _TEXT.format(model=shown, gradio=GRADIO_VERSION)


def check_space(folder: Path) -> None:
    """Raises a `UserError` if a folder is not a Gradio Space or its app is missing."""
    try:
        metadata = read_yaml((folder / CARD).read_text(encoding="utf-8").split("---\n")[1])
        app = folder / metadata["app_file"] if metadata["sdk"] == "gradio" else None
    except (OSError, ValueError, IndexError, KeyError, TypeError, yaml.YAMLError):
        app = None
    if app is None:
        raise UserError(
            f"--space {folder} is not a Space: it needs a {CARD} with `sdk: gradio` and an `app_file`; "
            "sentence-ordering demo --export writes one"
        )
    if not app.is_file():
        raise UserError(f"--space {folder} lacks {app.name}, which its {CARD} names")
