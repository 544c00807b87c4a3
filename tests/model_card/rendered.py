"""A card as a reader sees it: HTML as the Hub makes it of Markdown, and a picture of that in a browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from markdown_it import MarkdownIt

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

# About what the Hub's pages look like: width of the text, tables with lines, pictures no wider than the text.
_STYLE = """
body { font: 16px/1.6 "DejaVu Sans", sans-serif; max-width: 820px; margin: 24px auto; color: #1f2937 }
table { border-collapse: collapse } td, th { border: 1px solid #e5e7eb; padding: 4px 12px }
pre { background: #f3f4f6; padding: 12px; overflow-x: auto } code { font-size: 14px } img { max-width: 100% }
h1, h2 { border-bottom: 1px solid #e5e7eb }
"""


def html_of(card: str) -> str:
    """The text of a card, without its metadata, as HTML: CommonMark with GitHub's tables."""
    text = re.sub(r"\A---\n.*?\n---\n", "", card, flags=re.DOTALL)
    return str(MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(text))


def screenshot(chromium: str, card: Path, picture: Path, height: int = 4200) -> None:
    """Draws a card, with the pictures beside it, as a browser shows it on a desktop."""
    page = card.with_suffix(".html")
    page.write_text(f"<!doctype html><meta charset=utf-8><style>{_STYLE}</style>{html_of(card.read_text('utf-8'))}")
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage",
               f"--user-data-dir={picture.parent / 'browser'}", f"--window-size=1280,{height}",
               f"--screenshot={picture}", page.as_uri()]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=120)
