"""JSON documents: records in a list, stories of SIND and VIST, and notebooks.

A notebook of Jupyter has its cells in order. One of the AI4Code competition does not: the order of its cells is in a
table `train_orders.csv` (columns `id`, `cell_order`), which is the source to name.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from typing import IO, Any

from .errors import UserError
from .line_formats import Record, Records
from .story import BadRecord, is_blank, plain_name
from .unpacking import split_compression

LARGEST_DOCUMENT = 2**28
"""Maximum size of a JSON document, in bytes: it is in memory as a whole."""
NOTEBOOK_ORDERS = ["id", "cellorder"]
"""The columns of AI4Code's table of orders, without `_`."""
_CONVERT = 'write one JSON object per line, {"sentences": ["…", "…"]}, to a file that ends in .jsonl'


def json_records(stream: IO[Any], file: str) -> Records:
    """The stories of a JSON document: `(number of the story from 1, fields)`."""
    try:
        document = _read(stream)
        yield from enumerate(_stories_of(document), start=1)
    except ValueError as error:
        yield BadRecord(file, None, str(error))


def _read(stream: IO[Any]) -> Any:
    text = stream.read(LARGEST_DOCUMENT + 1)
    if len(text) > LARGEST_DOCUMENT:
        raise UserError(f"a JSON document of over {LARGEST_DOCUMENT:,} bytes, which is not read: {_CONVERT}")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"not a JSON document: {error}") from None


def _stories_of(document: Any) -> Iterator[dict[str, Any]]:
    if isinstance(document, list) and all(isinstance(record, dict) for record in document):
        return iter(document)
    if isinstance(document, dict) and isinstance(document.get("annotations"), list):
        return _vist_stories(document["annotations"])
    if isinstance(document, dict) and isinstance(document.get("cells"), list):
        return iter([{"sentences": _cells_of(document["cells"])}])
    if _is_unordered_notebook(document):
        raise UserError("the order of a notebook of AI4Code is not in its file: name train_orders.csv as the source")
    raise UserError(f"not a list of records, annotations of SIND or VIST, or a Jupyter notebook: {_CONVERT}")


def _vist_stories(annotations: list[Any]) -> Iterator[dict[str, Any]]:
    """SIND and VIST: one annotation is one sentence, with its story and its position in it."""
    stories: dict[str, dict[int, str]] = {}
    for number, item in enumerate(annotations, start=1):
        one = item[0] if isinstance(item, list) and len(item) == 1 else item
        try:
            story = stories.setdefault(str(one["story_id"]), {})
            position = int(one["worker_arranged_photo_order"])
            text = one["original_text"] if "original_text" in one else one["text"]
        except (TypeError, KeyError, ValueError):
            raise UserError(
                f"annotation {number} has no 'story_id', 'worker_arranged_photo_order' and 'original_text' or 'text', "
                f"so it is not of a story of SIND or VIST: {_CONVERT}"
            ) from None
        if position in story:
            raise UserError(f"annotation {number}: story {one['story_id']} has two sentences at position {position}")
        story[position] = text
    for storyid, sentences in stories.items():
        yield {"storyid": storyid, "sentences": [sentences[position] for position in sorted(sentences)]}


def _cells_of(cells: list[Any]) -> list[str]:
    """The sources of a notebook's cells, except empty ones."""
    sources = [cell.get("source") if isinstance(cell, dict) else None for cell in cells]
    if any(not isinstance(source, (str, list)) for source in sources):
        raise UserError("a cell has no 'source', so this is not a Jupyter notebook")
    return [text for source in sources if not is_blank(text := "".join(map(str, source or [])))]


def _is_unordered_notebook(document: Any) -> bool:
    return isinstance(document, dict) and all(isinstance(document.get(key), dict) for key in ("cell_type", "source"))


def notebook_records(rows: Iterator[tuple[int, list[str]] | BadRecord], file: str) -> Records:
    """The notebooks of AI4Code, one for each row of `train_orders.csv`, from the folder `train` beside it."""
    if split_compression(file)[1]:  # its content would not tell that a notebook has changed, see `file_key`
        yield BadRecord(file, None, "the orders of notebooks are not read from a compressed file: unpack it")
        return
    for item in rows:
        try:
            if isinstance(item, BadRecord):
                raise item
            yield _ordered_notebook(item, file)
        except BadRecord as error:
            yield error


def has_notebook_orders(path: str) -> bool:
    """Whether a CSV file is AI4Code's table of orders."""
    with open(path, "rb") as stream:
        header = stream.readline(100).decode("utf-8", "replace")
    return [plain_name(name) for name in header.removeprefix("\ufeff").split(",")] == NOTEBOOK_ORDERS


def notebooks_folder(orders: str) -> str:
    """The folder of the notebooks whose orders are in a file."""
    return os.path.join(os.path.dirname(os.path.abspath(orders)), "train")


def _ordered_notebook(row: tuple[int, list[str]], file: str) -> Record:
    number, fields = row
    name, order = fields if len(fields) == 2 else ("", "")
    path = os.path.join(notebooks_folder(file), f"{name}.json")
    if not re.fullmatch(r"[\w-]+", name) or not os.path.isfile(path):
        raise BadRecord(file, number, f"{name[:40]!r} is not the id of a notebook: there is no {path}")
    try:
        with open(path, encoding="utf-8") as stream:
            sources = _read(stream)["source"]
        cells = [str(sources[cell]) for cell in order.split()]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadRecord(file, number, f"{path} cannot be read in this order of cells: {error}") from None
    return number, {"storyid": name, "sentences": [cell for cell in cells if not is_blank(cell)]}
