"""The demo page: a model orders a shuffled story and shows its confidence and score.

`sentence-ordering demo` serves it. A Space has copies of it (`demo_page.py`, `demo_page.css`, `demo_page.js`) without
our packages: this file must not import them.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import threading
import time
import zlib
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # Gradio reads it when it is imported

import gradio as gr  # noqa: E402
from starlette.middleware import Middleware  # noqa: E402

MAX_SENTENCES = 100
MAX_CHARACTERS = 50_000
MAX_WAITING = 64
"""Size of the queue; further requests are refused."""
MAX_VISITORS = 1000
_STATE_SECONDS = 3600  # how long a visitor's story is kept; it is read from the text box again if needed
DOUBTFUL = 0.75  # neighbours with a lower confidence are marked

Metrics = Callable[[Sequence[Sequence[float]], Sequence[Sequence[int]]], Mapping[str, Any]]
Example = Mapping[str, Any]
# Up to a full stop and the quotation marks behind it, unless the next word is in lower case: "Come in!" said Nina.
_SENTENCE = re.compile(r"\S.*?(?:[.!?…؟][\"'”’»)\]]*(?=\s+(?![a-zà-ÿ])\S|\s*$)|[。！？]|$)")
_CSS, _JAVASCRIPT = (Path(__file__).with_suffix(suffix) for suffix in (".css", ".js"))
# Screen readers announce changes.
_ANNOUNCED = "element.setAttribute('aria-live', 'polite');"
_INTRODUCTION = """
<h1>Which sentence comes first?</h1>
<p>A story was cut into sentences, and they were shuffled. A language model reads all of them
and works out from their meaning alone in which order they belong.</p>
"""


@dataclass
class Model:
    """A pipeline that is loaded after the page is served.

    Attributes:
        name: shown on the page.
        load: returns the `sentence-ordering` pipeline.
    """

    name: str
    load: Callable[[], Callable[..., Mapping[str, Any]]]
    _began: float = field(default_factory=time.monotonic)
    _loaded: threading.Event = field(default_factory=threading.Event)

    def prepare(self) -> None:
        self._order = self.load()
        self._loaded.set()

    @property
    def is_loaded(self) -> bool:
        return self._loaded.is_set()

    def order(self, sentences: list[str]) -> Mapping[str, Any]:
        """The pipeline's answer, with the sentences that moved; waits until it is loaded."""
        self._loaded.wait()
        return self._order(sentences, moves=True)

    def status(self) -> str:
        """Loading state, as HTML."""
        if self.is_loaded:
            return f'<p class="so-model so-ready">The model <b>{escape(self.name)}</b> is ready.</p>'
        seconds = int(time.monotonic() - self._began)
        return (
            f'<p class="so-model so-loading">The model <b>{escape(self.name)}</b> is loading: {seconds} s. '
            "You can write and shuffle already.</p>"
        )


@dataclass(frozen=True)
class Story:
    """The sentences of a text in the order in which the page shows them.

    Attributes:
        text: content of the text box.
        sentences: of the text, in its order.
        shown: their indices, in the order shown.
        is_answer: whether this is the order of the model.
        confidence: of the model, for each sentence shown but the last; None if it is not calibrated.
        truncated: indices of sentences whose beginning alone was read.
        moved: the smallest set of sentences that the model moved from their lines in the text.
    """

    text: str
    sentences: tuple[str, ...]
    shown: tuple[int, ...]
    is_answer: bool = False
    confidence: tuple[float, ...] | None = None
    truncated: frozenset[int] = frozenset()
    moved: frozenset[int] = frozenset()

    @classmethod
    def read(cls, text: str | None) -> Story:
        """Reads one sentence per line; a single line is split into its sentences.

        Raises:
            ValueError: with a message for the visitor.
        """
        # The model refuses lone surrogates.
        clean = (text or "").encode("utf-8", "replace").decode("utf-8")
        if len(clean) > MAX_CHARACTERS:
            raise _too_many(len(clean), "characters", MAX_CHARACTERS)
        sentences = [line.strip() for line in clean.splitlines() if line.strip()]
        if len(sentences) == 1:
            sentences = [part.strip() for part in _SENTENCE.findall(sentences[0])]
        if not sentences:
            raise ValueError("Write some sentences, one per line, or pick a story.")
        if len(sentences) == 1:
            raise ValueError("Write at least two sentences, one per line.")
        if len(sentences) > MAX_SENTENCES:
            raise _too_many(len(sentences), "sentences", MAX_SENTENCES)
        return cls(text or "", tuple(sentences), tuple(range(len(sentences))))

    def shuffled(self) -> Story:
        """Shuffled, if possible to another order than the one shown and that of the text."""
        for _ in range(20):
            shown = tuple(random.sample(range(len(self.sentences)), len(self.sentences)))
            if shown not in (self.shown, tuple(range(len(shown)))):
                break
        return Story(self.text, self.sentences, shown)

    def ordered_by(self, model: Model) -> Story:
        """Ordered by the model. It is given the order of the text, on which its answer does not depend."""
        answer = model.order(list(self.sentences))
        return replace(
            self,
            shown=tuple(answer["order"]),
            is_answer=True,
            confidence=tuple(answer["confidence"]) if "confidence" in answer else None,
            truncated=frozenset(answer.get("truncated", ())),
            moved=frozenset(answer["moved"]),
        )

    def true_positions(self) -> list[int]:
        """For each sentence shown its position in the text; identical sentences get theirs in the order shown."""
        places: defaultdict[str, deque[int]] = defaultdict(deque)
        for place, sentence in enumerate(self.sentences):
            places[sentence].append(place)
        return [places[self.sentences[index]].popleft() for index in self.shown]

    def doubtful(self) -> set[int]:
        """Ranks after which the order is in doubt."""
        return {place for place, sure in enumerate(self.confidence or ()) if sure < DOUBTFUL}


def _too_many(count: int, what: str, limit: int) -> ValueError:
    return ValueError(
        f"{count:,} {what} are too many: this page accepts at most {limit:,}. "
        "The command “sentence-ordering order” has no limit."
    )


def story_html(story: Story, is_judged: bool) -> str:
    """The list of sentences with their notes, in words and not in colours alone."""
    places, doubtful, items = story.true_positions(), story.doubtful(), []
    for place, index in enumerate(story.shown):
        kind, notes = [], []
        if is_judged:
            right = places[place] == place
            kind.append("so-right" if right else "so-wrong")
            notes.append("✓ in its place" if right else f"✗ belongs in place {places[place] + 1}")
        elif index in story.moved:
            notes.append(f"↕ moved from line {index + 1}")
        if index in story.truncated:
            notes.append("too long: only its beginning was read")
        said = "".join(f'<span class="so-note">{note}</span>' for note in notes)
        if place in doubtful:
            kind.append("so-doubtful")
            sure = (story.confidence or ())[place]
            said += f'<span class="so-doubt">⇅ in doubt: {sure:.0%} sure</span>'
        items.append(
            f'<li class="so-item {" ".join(kind)}" data-sentence="{index}"><span class="so-place">{place + 1}</span>'
            f'<span class="so-text" dir="auto">{escape(story.sentences[index])}</span>{said}</li>'
        )
    number = zlib.crc32("\n".join(story.sentences).encode())
    # The role is needed because some screen readers do not treat a list without bullets as a list.
    return f'<ol class="so-list" role="list" data-story="{number}">{"".join(items)}</ol>'


def summary_html(story: Story, is_judged: bool, story_metrics: Metrics) -> str:
    """State of the story, and the model's score."""
    count = len(story.sentences)
    if not story.is_answer:
        return f"<p>{count} sentences, shuffled. Press <b>Order</b>.</p>"
    doubts = len(story.doubtful())
    if story.confidence is None:
        sure = "This model does not say how sure it is."
    elif doubts:
        sure = f"It is in doubt at {doubts} place{'s' if doubts > 1 else ''}, marked ⇅."
    else:
        sure = "The model is sure of it."
    if not is_judged:
        lines = f"{len(story.moved)} moved from their lines" if story.moved else "none moved from its line"
        return f"<p>{count} sentences, in the model’s order: {lines}. {sure}</p>"
    # The ranks on the page serve as scores.
    metrics = story_metrics([[float(place) for place in range(count)]], [story.true_positions()])
    accuracy, tau = (float(metrics[name][0]) for name in ("accuracy", "kendalls_tau"))
    signed = f"{tau:.2f}".replace("-", "−")
    return (
        f"<p><b>{round(accuracy * count)} of {count}</b> sentences in place, Kendall’s tau <b>{signed}</b>. {sure}</p>"
        '<p class="so-small">Kendall’s tau compares all pairs of sentences: '
        "1 is the true order, 0 is chance, −1 is backwards.</p>"
    )


@dataclass(frozen=True)
class Actions:
    """Handlers of the buttons. They return or yield the visitor's story, the list and the summary.

    The attributes are the arguments of `build_page`.
    """

    model: Model
    examples: Sequence[Example]
    story_metrics: Metrics

    def view(self, story: Story, is_judged: bool) -> tuple[Story, str, str]:
        is_judged = is_judged and story.is_answer
        return story, story_html(story, is_judged), summary_html(story, is_judged, self.story_metrics)

    def shuffle(self, text: str | None, is_judged: bool, story: Story | None) -> tuple[Story | None, str, str]:
        try:
            return self.view(_as_shown(text, story).shuffled(), is_judged)
        except ValueError as error:
            return _sorry(str(error))

    def order(self, text: str | None, is_judged: bool, story: Story | None) -> Iterator[tuple[Any, Any, str]]:
        try:
            story = _as_shown(text, story)
        except ValueError as error:
            yield _sorry(str(error))
            return
        doing = "Ordering" if self.model.is_loaded else "Waiting for the model, then ordering"
        yield gr.skip(), gr.skip(), f"<p>{doing} {len(story.sentences)} sentences …</p>"
        try:
            yield self.view(story.ordered_by(self.model), is_judged)
        except Exception as error:  # shown to the visitor
            why = (str(error).splitlines() or [type(error).__name__])[0]
            yield _sorry(f"The model could not order this: {why}")

    def judge(self, is_judged: bool, story: Story | None) -> tuple[Any, Any, Any]:
        return (gr.skip(), gr.skip(), gr.skip()) if story is None else self.view(story, is_judged)

    def pick(self, number: int) -> tuple[str, bool, Story | None, str, str]:
        """The text of an example, the check mark that it is in the true order, and the output of `shuffle`."""
        text = _text_of(self.examples[number])
        return text, True, *self.shuffle(text, True, None)

    async def status(self) -> AsyncIterator[str]:
        """The loading state, each second until the model is loaded."""
        while not self.model.is_loaded:
            yield self.model.status()
            await asyncio.sleep(1)
        yield self.model.status()


def _as_shown(text: str | None, story: Story | None) -> Story:
    """The story on the page, or a new one if the text has changed."""
    read = Story.read(text)
    return story if story is not None and story.text == read.text else read


def _text_of(example: Example) -> str:
    return "\n".join(example["sentences"])


def _sorry(why: str) -> tuple[None, str, str]:
    return None, "", f'<p class="so-sorry">{escape(why)}</p>'


def build_page(model: Model, examples: Sequence[Example], story_metrics: Metrics) -> gr.Blocks:
    """Builds the page.

    Args:
        model: loaded or not.
        examples: each with `title` and `sentences` in true order; the first one is shown at the start.
        story_metrics: `training.evaluation.metrics.story_metrics`; a Space has it in `metrics.py`.
    """
    actions = Actions(model, examples, story_metrics)
    with gr.Blocks(title="Sentence ordering", analytics_enabled=False) as page:
        story = gr.State(None, time_to_live=_STATE_SECONDS)
        _html(_INTRODUCTION, elem_id="so-introduction")
        status = _html(model.status(), js_on_load=_ANNOUNCED)
        with gr.Row(elem_id="so-columns"):
            with gr.Column(min_width=280):
                _html("<h2>1. Pick a story, or write your own</h2>")
                with gr.Row(elem_id="so-examples"):
                    picks = [gr.Button(example["title"], size="sm", min_width=0) for example in examples]
                first = _text_of(examples[0]) if examples else None
                text = gr.Textbox(first, label="Your sentences, one per line", lines=9, max_lines=16)
                is_judged = gr.Checkbox(bool(examples), label="These lines are in the true order: score the answer")
            with gr.Column(min_width=280):
                _html("<h2>2. Shuffle it, and let the model order it</h2>")
                with gr.Row(elem_id="so-buttons"):
                    shuffle = gr.Button("Shuffle", min_width=0)
                    order = gr.Button("Order", variant="primary", min_width=0)
                summary = _html(elem_id="so-summary", js_on_load=_ANNOUNCED)
                table = _html(elem_id="so-table", js_on_load=_JAVASCRIPT.read_text(encoding="utf-8"))

        given, shown = [text, is_judged, story], [story, table, summary]
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        shuffle.click(actions.shuffle, given, shown, **quiet)
        gr.on([order.click, text.submit], actions.order, given, shown, **quiet)
        is_judged.input(actions.judge, [is_judged, story], shown, **quiet)
        for number, button in enumerate(picks):
            button.click(partial(actions.pick, number), None, [text, is_judged, *shown], **quiet)
        if examples:  # keeps what a visitor has already written
            page.load(actions.shuffle, given, shown, **quiet)
        page.load(actions.status, None, status, concurrency_limit=None, **quiet)
    return page.queue(max_size=MAX_WAITING)


def _html(value: str | None = None, *, js_on_load: str | None = None, **options: Any) -> gr.HTML:
    return gr.HTML(value, elem_classes="so-html", js_on_load=js_on_load, **options)


def serve(
    model: Model,
    examples: Sequence[Example],
    story_metrics: Metrics,
    guard: Callable[..., Any],
    *,
    server_name: str | None = None,
    server_port: int | None = None,
    report: Callable[[str], None] = print,
) -> None:
    """Serves the page, loads the model, and waits until it is interrupted.

    Args:
        model, examples, story_metrics: as for `build_page`.
        guard: `training.demo.guard.Guard`; a Space has it in `demo_guard.py`.
        server_name: address to listen on; by default `GRADIO_SERVER_NAME`, which a Space sets.
        server_port: by default `GRADIO_SERVER_PORT`, or the first free port from 7860.
        report: called with each line of progress.

    Raises:
        OSError: no port is free.
        Exception: any error of `model.load`, after the page is closed.
    """
    page = build_page(model, examples, story_metrics)
    theme = gr.themes.Default(primary_hue="indigo", font=("system-ui", "sans-serif"), font_mono=("monospace",))
    listening = server_name or os.environ.get("GRADIO_SERVER_NAME") or "127.0.0.1"
    guarded = Middleware(guard, local_only=listening in ("127.0.0.1", "localhost", "::1"))
    _, address, _ = page.launch(
        server_name=server_name, server_port=server_port, share=False, ssr_mode=False, prevent_thread_lock=True,
        app_kwargs={"middleware": [guarded]}, state_session_capacity=MAX_VISITORS, max_file_size=0,
        quiet=True, footer_links=["gradio"], theme=theme, css=_CSS.read_text(encoding="utf-8"),
    )  # fmt: skip
    try:
        report(f"serving at {address}; loading the model {model.name}")
        model.prepare()
        report("the model is ready; stop with Ctrl-C")
        threading.Event().wait()
    finally:
        page.close(verbose=False)
