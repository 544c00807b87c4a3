"""The demo page, in a real browser: `sentence-ordering demo` serves it, and a Space without our packages does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from modeling_sentence_ordering import SentenceOrderingModel, SentenceOrderingPipeline, load_tokenizer
from tests.model_card.rendered import CHROMIUM
from tests.modeling_sentence_ordering.small_encoders import write_encoder
from tests.training.conftest import run_command
from tests.training.served_pages import PATIENCE, ROOT, WITHOUT_OUR_PACKAGES, demo_of, is_local, served
from training.commands.demo import examples
from training.demo.space import write_space
from training.evaluation.metrics import story_metrics
from training.models.model_folder import save_model

sync_api = pytest.importorskip("playwright.sync_api", reason="needs what drives the browser: pip install playwright")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: install chromium"),
    # Not imported here: that takes seconds.
    pytest.mark.skipif(find_spec("gradio") is None, reason="needs the page's library: pip install -e '.[demo]'"),
]

Page = Any  # of playwright, which may not be there
Opener = Callable[..., Page]
STORY = ["We missed the bus.", "So we walked home.", "On the way it began to snow.", "Mother made tea.", "We laughed."]
TEXT = "Your sentences, one per line"
SCORED = "These lines are in the true order: score the answer"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights, half of whose neighbours in `STORY` are in doubt."""
    home = tmp_path_factory.mktemp("demo")
    write_encoder(home / "encoder", "roberta")
    model = SentenceOrderingModel.from_encoder(str(home / "encoder")).eval()
    tokenizer = load_tokenizer(str(home / "encoder"))
    scores = sorted(SentenceOrderingPipeline(model=model, tokenizer=tokenizer)(STORY)["scores"])
    gaps = sorted(later - earlier for earlier, later in zip(scores, scores[1:], strict=False))
    model.config.confidence_temperature = (gaps[1] + gaps[2]) / 2 / 1.0986  # σ(ln 3) is .75
    save_model(model, tokenizer, home / "tiny-model")
    return home / "tiny-model"


@pytest.fixture(scope="module")
def answer(model: Path) -> dict[str, Any]:
    """What the pipeline says of `STORY`."""
    loaded = SentenceOrderingModel.from_pretrained(model).eval()
    result: dict[str, Any] = SentenceOrderingPipeline(model=loaded, tokenizer=load_tokenizer(str(model)))(
        STORY, moves=True
    )
    assert [sure < 0.75 for sure in result["confidence"]].count(True) == 2
    return result


@pytest.fixture(scope="module")
def open_page() -> Iterator[Opener]:
    """Opens an address; fails in the end if a page asked for anything outside, or had an error or a dialog."""
    wrong: list[str] = []

    def asked(request: Any) -> None:
        if not is_local(request.url):
            wrong.append(f"asked for {request.url}")

    def interrupted(dialog: Any) -> None:
        wrong.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def watch(page: Page) -> None:
        page.on("request", asked)
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on("dialog", interrupted)

    with sync_api.sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)

        def open_address(address: str, width: int = 1280, script: str = "", **options: Any) -> Page:
            page = browser.new_page(viewport={"width": width, "height": 900}, **options)
            page.set_default_timeout(PATIENCE * 1000)
            watch(page)
            page.add_init_script(
                "window.moves = 0; const animate = Element.prototype.animate;"
                "Element.prototype.animate = function (...how) {"
                "  if (this.matches('.so-item')) window.moves += 1; return animate.apply(this, how); }"
            )
            page.add_init_script(script)
            page.goto(address)
            page.get_by_label(TEXT).wait_for()
            return page

        yield open_address
        browser.close()
    assert not wrong


@pytest.fixture(scope="module")
def address(model: Path) -> Iterator[str]:
    """The command's page, with its model loaded; in the end it is interrupted, which is no error."""
    with demo_of(model) as server:
        address = server.address()
        server.wait_for("the model is ready")
        yield address
        code, error = server.interrupt()
    assert (code, error) == (130, "sentence-ordering: interrupted\n")


@pytest.fixture
def page(address: str, open_page: Opener) -> Iterator[Page]:
    page = open_page(address)
    page.locator(".so-item").first.wait_for()  # the first example
    yield page
    page.close()


def press(page: Page, button: str) -> None:
    page.get_by_role("button", name=button, exact=True).click()


def write(page: Page, text: str, scored: bool = False) -> None:
    if text.count("\n") < 100:
        page.get_by_label(TEXT).fill(text)
    else:  # typing takes Chromium a time that grows with the square of the lines
        put = "(box, text) => { box.value = text; box.dispatchEvent(new Event('input', { bubbles: true })); }"
        page.get_by_label(TEXT).evaluate(put, text)
    page.get_by_label(SCORED).set_checked(scored)


def shown(page: Page) -> list[str]:
    """The sentences, in the order on the page."""
    return [str(text) for text in page.locator(".so-text").all_text_contents()]


def wait_for_summary(page: Page, words: str) -> str:
    page.locator("#so-summary").get_by_text(words).first.wait_for()
    return str(page.locator("#so-summary").inner_text())


def test_a_story_is_shuffled_put_in_order_and_judged_as_our_own_code_does(page: Page, answer: Any) -> None:
    write(page, "\n".join(STORY), scored=True)
    press(page, "Shuffle")
    wait_for_summary(page, "5 sentences, shuffled")
    assert shown(page) != STORY and sorted(shown(page)) == sorted(STORY)
    assert page.locator(".so-note, .so-doubt").count() == 0
    first = shown(page)
    # Read before the press: the page may have answered by the next line.
    listed = page.locator(".so-list").inner_text()
    press(page, "Shuffle")
    page.wait_for_function("listed => document.querySelector('.so-list').innerText !== listed", arg=listed)
    assert shown(page) not in (first, STORY)
    press(page, "Order")
    summary = wait_for_summary(page, "in place")
    assert shown(page) == answer["sentences"]
    right = [place == index for place, index in enumerate(answer["order"])]
    tau = story_metrics([answer["scores"]], [list(range(5))])["kendalls_tau"][0]
    assert f"{sum(right)} of 5 sentences in place" in summary and f"{tau:.2f}".replace("-", "−") in summary
    items = [item.inner_text() for item in page.locator(".so-item").all()]
    for place, text in enumerate(items):
        true_place = answer["order"][place] + 1
        assert ("in its place" if right[place] else f"belongs in place {true_place}") in text
    sure = [*answer["confidence"], 1.0]
    assert ["in doubt" in text for text in items] == [one < 0.75 for one in sure]
    assert all(f"{one:.0%} sure" in text for one, text in zip(sure, items, strict=True) if one < 0.75)
    # Without a true order there is nothing to judge; the order stays.
    page.get_by_label(SCORED).uncheck()
    assert "in place" not in wait_for_summary(page, "in the model’s order")
    assert shown(page) == answer["sentences"]
    moved = [index for index in answer["order"] if index in answer["moved"]]
    assert page.locator(".so-note").all_inner_texts() == [f"↕ moved from line {index + 1}" for index in moved]
    assert f"{len(moved)} moved from their lines" in page.locator("#so-summary").inner_text()


def test_what_is_written_before_the_server_has_answered_stays(address: str, open_page: Opener) -> None:
    late = (
        "const own = window.fetch; window.fetch = async (...what) => {"
        "  if (String(what[0].url ?? what[0]).includes('queue/join')) await new Promise(go => setTimeout(go, 2000));"
        "  return own(...what); }"
    )
    page = open_page(address, script=late)
    first_example = page.get_by_label(TEXT).input_value()
    assert first_example.count("\n") >= 3 and page.get_by_label(SCORED).is_checked()
    write(page, "\n".join(STORY))
    assert page.locator(".so-item").count() == 0, "the server has not answered yet"
    page.locator(".so-item").first.wait_for()
    page.wait_for_timeout(500)
    assert page.get_by_label(TEXT).input_value() == "\n".join(STORY)
    press(page, "Order")
    wait_for_summary(page, "in the model’s order")
    assert sorted(shown(page)) == sorted(STORY)
    page.close()


def test_sentences_move_to_their_places_unless_motion_is_not_wanted(address: str, open_page: Opener) -> None:
    for reduced_motion, moves in (("no-preference", True), ("reduce", False)):
        page = open_page(address, reduced_motion=reduced_motion)
        page.locator(".so-item").first.wait_for()
        write(page, "\n".join(STORY), scored=True)
        press(page, "Shuffle")
        wait_for_summary(page, "5 sentences, shuffled")
        press(page, "Order")
        wait_for_summary(page, "in place")
        page.locator(".so-note").first.wait_for()  # the list comes after the summary
        if moves:
            page.wait_for_function("window.moves > 0")
        else:
            assert page.evaluate("window.moves") == 0
        page.close()


def test_everything_can_be_done_by_keyboard(page: Page, answer: Any) -> None:
    page.get_by_label(TEXT).focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("\n".join(STORY))
    for key, words in (("Tab", None), ("Space", None), ("Tab", None), ("Enter", "shuffled"), ("Tab", None)):
        page.keyboard.press(key)
        if words:
            wait_for_summary(page, words)
    assert not page.get_by_label(SCORED).is_checked()
    assert page.evaluate("document.activeElement.innerText") == "Order"
    page.keyboard.press("Enter")
    wait_for_summary(page, "in the model’s order")
    assert shown(page) == answer["sentences"]
    # Or from where one writes; and an example is a button like any other.
    page.get_by_role("button", name="Shuffle").focus()
    page.keyboard.press("Enter")
    wait_for_summary(page, "shuffled")
    page.get_by_label(TEXT).focus()
    page.keyboard.press("Shift+Enter")
    wait_for_summary(page, "in the model’s order")
    page.get_by_role("button", name=examples()[1]["title"]).focus()
    page.keyboard.press("Enter")
    wait_for_summary(page, "shuffled")
    assert sorted(shown(page)) == sorted(examples()[1]["sentences"]) and page.get_by_label(SCORED).is_checked()


@pytest.mark.parametrize("width", [1280, 360])
def test_it_fits_a_wide_and_a_narrow_screen(width: int, address: str, open_page: Opener) -> None:
    page = open_page(address, width)
    page.locator(".so-item").first.wait_for()
    write(page, "\n".join([*STORY, "Pneumonoultramicroscopicsilicovolcanoconiosis" * 8]), scored=True)
    press(page, "Order")
    wait_for_summary(page, "in place")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for part in (".so-item", "#so-buttons button", "#so-examples button"):
        for box in [part.bounding_box() for part in page.locator(part).all()]:
            assert box["x"] >= 0 and box["x"] + box["width"] <= width and box["height"] >= 24
    page.close()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("", "Write some sentences", id="nothing"),
        pytest.param(" \n\t\n\u3000 ", "Write some sentences", id="white space"),
        pytest.param("No more than this.", "at least two sentences", id="one sentence"),
        pytest.param("It rained.\n" * 5_000, "55,000 characters are too many", id="many lines"),
        pytest.param("A.\n" * 101, "101 sentences are too many", id="lines"),
        pytest.param("A. " * 101, "101 sentences are too many", id="paragraph"),
        pytest.param("x" * 49_999 + "\nB.", "50,002 characters are too many", id="long line"),
    ],
)
def test_it_says_what_it_cannot_order(text: str, words: str, page: Page) -> None:
    for button in ("Shuffle", "Order"):
        write(page, text)
        press(page, button)
        wait_for_summary(page, words)
        assert shown(page) == []
        write(page, "A.\nB.")
        press(page, "Shuffle")  # and goes on
        wait_for_summary(page, "2 sentences, shuffled")


def test_odd_sentences_are_shown_as_they_are(page: Page) -> None:
    odd = [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(2)> &amp; <b>bold</b> </li></ol>",
        "${alert(3)} {{value}} {{#each value}} @children `",
        "👩‍👩‍👧‍👦 🏳️‍🌈 went home 🏠.",
        "خرج الرجل من البيت.",
        "\u202eright to left\u202c, and [CLS] [SEP] </s> <mask>",
        "The same.",
        "The same.",
        "nul \u0000 bell \u0007",
    ]
    write(page, "\r\n".join(["", *odd, "  "]), scored=True)
    press(page, "Order")
    wait_for_summary(page, f"of {len(odd)} sentences in place")
    assert sorted(shown(page)) == sorted(text.replace("\u0000", "") for text in odd)  # HTML has no NUL
    assert page.locator("#so-table script, #so-table img, #so-table b").count() == 0
    press(page, "Shuffle")
    wait_for_summary(page, f"{len(odd)} sentences, shuffled")


def test_half_a_character_does_no_harm(page: Page) -> None:
    page.get_by_label(TEXT).evaluate(
        "box => { box.value = 'A \\ud83d.\\nB.'; box.dispatchEvent(new Event('input', { bubbles: true })); }"
    )
    page.get_by_label(SCORED).uncheck()
    press(page, "Order")
    wait_for_summary(page, "2 sentences, in the model’s order")


def test_a_paragraph_is_cut_into_sentences(page: Page) -> None:
    write(page, ' It rained at 3.30.  "Come in!" said Nina… (Was it late?) 下雨了。他走了。No ')
    press(page, "Order")
    wait_for_summary(page, "6 sentences")
    sentences = ["It rained at 3.30.", '"Come in!" said Nina…', "(Was it late?)", "下雨了。", "他走了。", "No"]
    assert sorted(shown(page)) == sorted(sentences)


@pytest.mark.slow
def test_a_space_runs_without_our_packages(model: Path, answer: Any, open_page: Opener) -> None:
    space = model.parent / "my-space"
    write_space(space, str(model), examples())
    with served(space, "-c", WITHOUT_OUR_PACKAGES) as server:
        page = open_page(server.address())
        page.locator(".so-ready").wait_for()
        write(page, "\n".join(STORY), scored=True)
        press(page, "Order")
        wait_for_summary(page, "in place")
        assert shown(page) == answer["sentences"]
        assert page.get_by_text("The model tiny-model is ready").is_visible()
        page.close()


def test_the_page_is_there_before_the_model_and_says_so(model: Path, open_page: Opener) -> None:
    space = model.parent / "slow-space"
    write_space(space, "nobody/slow-model", [])
    with served(space, str(ROOT / "tests" / "training" / "clients" / "slow_demo.py")) as server:
        page = open_page(server.address())
        page.get_by_text("is loading").wait_for()
        write(page, "One.\nTwo.\nThree.")
        press(page, "Order")
        wait_for_summary(page, "Waiting for the model")
        server.process.stdin.write("load\n")
        server.process.stdin.flush()
        assert "does not say how sure" in wait_for_summary(page, "in the model’s order")
        assert shown(page) == ["Three.", "Two.", "One."]
        assert [note for note in page.locator(".so-item").all_inner_texts() if "only its beginning" in note][0].count(
            "One."
        )
        page.locator(".so-ready").wait_for()
        # An error of the model is told in words.
        write(page, "One.\nThis is unorderable.")
        press(page, "Order")
        assert "could not order this: it is too <i>odd</i>" in wait_for_summary(page, "could not order")
        page.close()


def test_a_model_that_does_not_load_ends_the_page_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    command = run_command("demo", "--model", "empty")
    assert command.code == 2 and "serving at http://127.0.0.1:" in command.out
    assert command.err == "sentence-ordering: --model empty has no config.json: it is not a model folder\n"
