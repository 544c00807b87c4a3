"""Round trips through every format, and errors with file and row."""

from __future__ import annotations

import csv
import io
import json
import os
import pickle
import random
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataset_builder import BadRecord, Story, UserError, read_stories
from dataset_builder.story import is_blank
from dataset_builder.story_files import FORMATS

HEADER = "storyid,storytitle,sentence1,sentence2,sentence3,sentence4,sentence5\n"
ROW = "id1,Title,One.,Two.,Three.,Four.,Five.\n"
OTHER_ROW = ROW.replace("One.", "Eins.")
IN_TSV = b"One.\tTwo.\tThree.\n"
IN_JSON = '{"sentences": ["One.", "Two."]}\n'
NASTY = [
    'He said "no", twice.',
    "a,b;c",
    " [CLS] and </s> ",
    "Grüße, 日本 \U0001f600!",
    "'quoted'",
    "tab-free\u2028line",
]

Stories = list[list[str]]

# What a sentence may be in a format that can hold anything, and in one where a line end ends the sentence.
any_sentence = st.one_of(
    st.sampled_from([*NASTY, "two\nlines", "two\r\nlines", "a\ttab"]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20),
).filter(lambda text: not is_blank(text))
line_sentence = any_sentence.filter(lambda text: not set("\r\n\t\ufeff") & set(text))
# The names of columns are a header in the first line of a TSV file; hypothesis knows them from our code.
tsv_sentence = line_sentence.filter(lambda text: not text.lower().startswith(("sentence", "story", chr(34))))


def story_lists(sentence: st.SearchStrategy[str], *, length: int | None = None) -> st.SearchStrategy[Stories]:
    return st.lists(st.lists(sentence, min_size=length or 2, max_size=length or 7), min_size=1, max_size=5)


def write_csv(path: Path, stories: Stories) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER.strip().split(","))
        writer.writerows([f"id{number}", 'A "title", \u00e9', *story] for number, story in enumerate(stories))


def write_tsv(path: Path, stories: Stories) -> None:
    path.write_bytes("".join("\t".join(story) + "\n" for story in stories).encode())


def write_text(path: Path, stories: Stories) -> None:
    path.write_bytes("\n".join("".join(f"{sentence}\n" for sentence in story) for story in stories).encode())


def write_jsonl(path: Path, stories: Stories) -> None:
    lines = (json.dumps({"sentences": story}, ensure_ascii=number % 2 == 0) for number, story in enumerate(stories))
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())


def write_parquet(path: Path, stories: Stories) -> None:
    pq.write_table(pa.table({"sentences": stories}), path)


@pytest.mark.parametrize(
    ("name", "write", "stories_of"),
    [
        ("stories.csv", write_csv, story_lists(any_sentence, length=5)),
        ("stories.tsv", write_tsv, story_lists(tsv_sentence)),
        ("stories.txt", write_text, story_lists(line_sentence)),
        ("stories.jsonl", write_jsonl, story_lists(any_sentence)),
        ("stories.parquet", write_parquet, story_lists(any_sentence)),
    ],
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_what_is_written_is_read(
    name: str,
    write: Callable[[Path, Stories], None],
    stories_of: st.SearchStrategy[Stories],
    data: st.DataObject,
    tmp_path: Path,
) -> None:
    stories = data.draw(stories_of)
    path = tmp_path / name
    write(path, stories)
    for as_given in (False, True):
        assert [list(story.sentences) for story in read_stories(path, as_given=as_given)] == stories


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["", "\n"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("s.csv", HEADER + ROW.strip()),
        ("s.tsv", "One.\tTwo.\tThree.\tFour.\tFive."),
        ("s.tsv", HEADER.replace(",", "\t") + ROW.strip().replace(",", "\t")),
        ("s.txt", "One.\nTwo.\nThree.\nFour.\nFive."),
        ("s.jsonl", '{"sentences": ["One.", "Two.", "Three.", "Four.", "Five."]}'),
    ],
)
def test_byte_order_mark_and_line_ends_make_no_difference(
    tmp_path: Path, name: str, content: str, start: str, line_end: str, end: str
) -> None:
    path = tmp_path / name
    path.write_bytes((start + content + end).replace("\n", line_end).encode())
    (story,) = read_stories(path)
    assert story.sentences == ("One.", "Two.", "Three.", "Four.", "Five.")


def test_spring_2016_and_other_spellings_of_the_header(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("StoryID,Story_Title,Sentence 1,Sentence 2,sentence3,sentence4,SENTENCE-5\n" + ROW)
    assert list(read_stories(path)) == [
        Story(("One.", "Two.", "Three.", "Four.", "Five."), "id1", "Title", str(path), 2)
    ]


def test_columns_may_be_in_any_order_among_others(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text(
        "sentence2,sentence1,other,sentence5,sentence4,sentence3,labels\nTwo.,One.,x,Five.,Four.,Three.,9\n"
    )
    (story,) = read_stories(path)
    assert story.sentences == ("One.", "Two.", "Three.", "Four.", "Five.")
    assert (story.storyid, story.title) == ("s-2", "")


def test_rows_and_made_up_ids_count_physical_lines(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(HEADER + 'x,t,"One,\nin two lines.",Two.,Three.,Four.,Five.\n\n' + ROW)
    assert [(story.storyid, story.row) for story in read_stories(tmp_path / "a.csv")] == [("x", 2), ("id1", 5)]
    (tmp_path / "b.txt").write_text("\n\nOne.\nTwo.\n\n\n \t\nThree.\nFour.\n")
    assert [(story.storyid, story.row) for story in read_stories(tmp_path / "b.txt")] == [("b-3", 3), ("b-8", 8)]
    (tmp_path / "c.jsonl").write_text('\n{"sentences": ["One.", "Two."], "storyid": 7, "storytitle": "T"}\n')
    assert [(story.storyid, story.title, story.row) for story in read_stories(tmp_path / "c.jsonl")] == [("7", "T", 2)]


@given(order=st.permutations(range(6)))
def test_labels_and_rebart_are_inverse_permutations(order: list[int]) -> None:
    """labels[i]: original index of the i-th shown; orig_sents[k]: place among the shown of the k-th original."""
    true_order = [f"Sentence {index}." for index in range(6)]
    shown = [true_order[index] for index in order]
    inverse = [order.index(index) for index in range(6)]
    ours = {"sentences": shown, "labels": order}
    rebart = {"shuf_sents": shown, "orig_sents": [str(place) for place in inverse]}
    for record in (ours, rebart):
        line = json.dumps(record)
        (story,) = read_stories(io.StringIO(line), file_format="jsonl")
        assert list(story.sentences) == true_order
        (given_story,) = read_stories(io.StringIO(line), file_format="jsonl", as_given=True)
        assert list(given_story.sentences) == shown


def test_rebart_example() -> None:
    """Written out, with a permutation that is not its own inverse."""
    line = '{"orig_sents": ["2", "0", "1"], "shuf_sents": ["She ate it.", "She was full.", "Ann baked a pie."]}'
    (story,) = read_stories(io.StringIO(line), file_format="jsonl")
    assert story.sentences == ("Ann baked a pie.", "She ate it.", "She was full.")


def test_parquet_with_labels_and_with_the_guides_columns(tmp_path: Path) -> None:
    shuffled = pa.table({"sentences": [["c", "a", "b"], ["x", "y"]], "labels": [[2, 0, 1], None], "extra": [1, 2]})
    pq.write_table(shuffled, tmp_path / "shuffled.parquet")
    assert [story.sentences for story in read_stories(tmp_path / "shuffled.parquet")] == [("a", "b", "c"), ("x", "y")]
    shown = [story.sentences for story in read_stories(tmp_path / "shuffled.parquet", as_given=True)]
    assert shown == [("c", "a", "b"), ("x", "y")]
    columns = {f"sentence{number}": [f"S{number}"] for number in (3, 1, 5, 4, 2)}
    pq.write_table(pa.table({**columns, "storyid": ["g"], "so_targets": [[3, 1, 2, 4, 0]]}), tmp_path / "g.parquet")
    (story,) = read_stories(tmp_path / "g.parquet")
    assert (story.sentences, story.storyid) == (("S1", "S2", "S3", "S4", "S5"), "g")


BAD: list[tuple[str, str | bytes, int | None, str]] = [
    ("s.csv", HEADER.replace(",sentence3", "") + ROW, 1, "column(s) missing: sentence3"),
    ("s.csv", HEADER.replace("sentence5", "sentense5") + ROW, 1, "column(s) missing: sentence5"),
    ("s.csv", HEADER.replace("sentence4", "Sentence 2") + ROW, 1, "names 'sentence2' twice"),
    ("s.csv", HEADER.replace("storytitle", "storyid") + ROW, 1, "names 'storyid' twice"),
    ("s.csv", "a,b\n1,2\n", 1, "the first row has: a, b"),
    ("s.csv", "x1,The Cat,A cat sat.,It got up.,It ran off.,It ate fish.,It slept well.\n", 1, "header row is missing"),
    ("s.csv", "A cat sat.,It got up.,It ran off.,It ate fish.,It slept well.\n", 1, "header row is missing"),
    ("s.csv", HEADER.replace(",", "\t") + ROW, 1, "no commas in the first row"),
    ("s.csv", "", None, "the file is empty"),
    ("s.csv", HEADER + ROW + "id2,T,One.\n", 3, "1 sentence, where an order needs at least two"),
    ("s.csv", HEADER + ROW + "id2,T,One.,Two.,Three.,Four.,Five.,Six.\n", 3, "8 fields"),
    ("s.csv", HEADER + "id2,T,One.,Two., ,Four.,Five.\n", 2, "column 'sentence3' is empty"),
    ("s.csv", HEADER + ROW + 'id2,T,"One.,Two.,Three.,Four.,Five.\n' + ROW, 3, "not valid CSV"),
    ("s.csv", HEADER + 'id2,T,"One.,Two.,Three.,Four.,Five.\n' + 4000 * ROW, 2, "not valid CSV: field larger than"),
    ("s.csv", HEADER + 'id2,T,"One." x,Two.,Three.,Four.,Five.\n', 2, "not valid CSV"),
    ("s.csv", (HEADER + ROW).encode() + b"id2,T,Caf\xe9.,Two.,Three.,Four.,Five.\n", 3, "byte 0xe9 at offset 117"),
    ("s.csv", HEADER.encode("utf-16"), 1, "not UTF-8: byte 0xff at offset 0"),
    ("s.tsv", "One.\tTwo.\nOne.\t\tThree.\n", 2, "sentence 2 is empty"),
    ("s.tsv", "One.\tTwo.\nOne, two.\n", 2, "1 sentence, where an order needs at least two"),
    ("s.tsv", b"One.\tTwo.\n\nOne\xff.\tTwo.\n", 3, "byte 0xff at offset 14"),
    ("s.tsv", HEADER.replace(",", "\t") + "id\tTitle\tOne.\t\u200b\tThree.\n", 2, "column 'sentence2' is empty"),
    ("s.tsv", HEADER.replace(",sentence3", "").replace(",", "\t"), 1, "column(s) missing: sentence3"),
    ("s.txt", "One.\nTwo.\n\nAlone.\n", 4, "1 sentence"),
    ("s.txt", b"One.\nTwo.\n\nOne.\n\xc3(\n", 5, "byte 0xc3 at offset 16"),
    ("s.jsonl", '{"sentences": ["One.", "Two."]}\n{"sentences": ["One.",\n', 2, "not a line of JSON"),
    ("s.jsonl", '["One.", "Two."]\n', 1, "not a JSON object"),
    ("s.jsonl", "[" * 100_000 + "\n", 1, "not a line of JSON"),
    ("s.jsonl", '{"text": "One. Two."}\n', 1, "'sentences' is missing (found: text)"),
    ("s.jsonl", '{"sentences": "One. Two."}\n', 1, "'sentences' is not a list"),
    ("s.jsonl", '{"sentences": ["One.", 2]}\n', 1, "sentence 2 is not text"),
    ("s.jsonl", '{"sentences": ["One.", " "]}\n', 1, "sentence 2 is empty"),
    ("s.jsonl", '{"sentences": ["One.", "\\ud800"]}\n', 1, "half of a surrogate pair"),
    ("s.jsonl", '{"sentences": []}\n', 1, "0 sentences"),
    ("s.jsonl", '{"sentences": ["One.", "Two."], "labels": [0, 0]}\n', 1, "'labels' is not a permutation of 0 … 1"),
    ("s.jsonl", '{"sentences": ["One.", "Two."], "labels": [1, 2]}\n', 1, "'labels' is not a permutation"),
    ("s.jsonl", '{"sentences": ["One.", "Two."], "labels": [1]}\n', 1, "'labels' is not a permutation"),
    ("s.jsonl", '{"sentences": ["One.", "Two."], "labels": [1, 0, null]}\n', 1, "'labels' is not a permutation"),
    ("s.jsonl", '{"sentences": ["One.", "Two."], "labels": [true, false]}\n', 1, "'labels' is not a permutation"),
    ("s.jsonl", '{"sentences": ["One.", "Two."], "labels": 1}\n', 1, "'labels' is not a permutation"),
    ("s.jsonl", '{"shuf_sents": ["One.", "Two."], "orig_sents": ["0", "x"]}\n', 1, "'orig_sents' is not a permutation"),
    ("s.jsonl", '{"shuf_sents": ["One.", "Two."]}\n', 1, "'orig_sents' is missing"),
    ("s.parquet", b"PAR1 this is not", None, "not readable as Parquet"),
    ("s.parquet", b"", None, "not readable as Parquet"),
]


@pytest.mark.parametrize(("name", "content", "row", "reason"), BAD)
def test_what_is_wrong_is_said_with_file_and_row(
    tmp_path: Path, name: str, content: str | bytes, row: int | None, reason: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(BadRecord) as caught:
        list(read_stories(path))
    message = str(caught.value)
    assert caught.value.row == row
    assert reason in message
    assert message.startswith(f"{path}, row {row}: " if row else f"{path}: ")
    assert "\n" not in message
    handed_over = pickle.loads(pickle.dumps(caught.value))
    assert (str(handed_over), handed_over.row) == (message, row)


@pytest.mark.parametrize(
    ("column", "values", "reason"),
    [
        ("sentences", [["One.", "Two."], None], "row 2: 'sentences' is not a list"),
        ("sentences", [["One.", "Two."], ["One.", None]], "row 2: sentence 2 is not text"),
        ("sentences", ["One."], "row 1: 'sentences' is not a list"),
        ("text", ["One."], "column 'sentences' is missing (found: text)"),
    ],
)
def test_what_is_wrong_in_parquet(tmp_path: Path, column: str, values: list[Any], reason: str) -> None:
    pq.write_table(pa.table({column: values}), tmp_path / "s.parquet")
    with pytest.raises(BadRecord, match="s.parquet") as caught:
        list(read_stories(tmp_path / "s.parquet"))
    assert reason in str(caught.value)


def test_parquet_that_is_damaged_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    write_parquet(path, [[f"{number} and {place}" for place in range(5)] for number in range(500)])
    content = path.read_bytes()
    path.write_bytes(content[:300] + bytes(300) + content[600:])
    with pytest.raises(BadRecord, match="s.parquet: not readable as Parquet"):
        list(read_stories(path))


@pytest.mark.parametrize(
    ("name", "content", "bad_rows"),
    [
        ("s.csv", HEADER + "a,T,,2,3,4,5\n" + ROW + 'b,T,"1"x,2,3,4,5\nc,T,1\n' + OTHER_ROW, [2, 4, 5]),
        ("s.csv", (HEADER + "a,T,").encode() + b"\xff,2,3,4,5\n" + (ROW + OTHER_ROW).encode(), [2]),
        ("s.tsv", b"x\n" + IN_TSV + b"\xff\t\n\n" + IN_TSV.replace(b"One", b"Eins"), [1, 3]),
        ("s.txt", b"One.\nTwo.\n\nA\nB\xff\nC\n\nx\n\nEins.\nTwo.", [5, 8]),
        ("s.jsonl", "{\n" + IN_JSON + "3\n" + IN_JSON.replace("One", "Eins") + '{"sentences": ["x"]}', [1, 3, 5]),
    ],
)
def test_reading_continues_after_bad_records(
    tmp_path: Path, name: str, content: str | bytes, bad_rows: list[int]
) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    errors: list[BadRecord] = []
    stories = list(read_stories(path, on_error=errors.append))
    assert [error.row for error in errors] == bad_rows
    assert [story.sentences[0] for story in stories] == ["One.", "Eins."]


def test_as_given_takes_one_sentence_or_none() -> None:
    lines = '{"sentences": []}\n{"sentences": ["One."]}\n{"shuf_sents": ["b", "a"]}\n'
    stories = read_stories(io.StringIO(lines), as_given=True, file_format="jsonl")
    assert [story.sentences for story in stories] == [(), ("One.",), ("b", "a")]
    assert [story.sentences for story in read_stories(io.BytesIO(b"One.\n"), as_given=True)] == [("One.",)]
    assert list(read_stories(io.BytesIO(b""), as_given=True)) == []


def test_a_text_stream_with_bytes_below_tells_the_bad_byte() -> None:
    stream = io.TextIOWrapper(io.BytesIO(b"One.\nTw\xff.\n"), encoding="utf-8")
    with pytest.raises(BadRecord, match=r"stdin, row 2: not UTF-8: byte 0xff at offset 7"):
        list(read_stories(stream, as_given=True))


def test_a_story_comes_out_of_a_pipe_before_the_next_goes_in() -> None:
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb") as source, os.fdopen(write_end, "wb", buffering=0) as sink:
        sink.write(b"One.\nTwo.\n\n")
        stories = read_stories(source)
        answer: list[Story] = []
        waiting = threading.Thread(target=lambda: answer.append(next(stories)), daemon=True)
        waiting.start()
        waiting.join(timeout=10)
        assert [story.sentences for story in answer] == [("One.", "Two.")]


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    write: dict[str, Callable[[Path, Stories], None]] = {
        ".csv": write_csv,
        ".tsv": write_tsv,
        ".txt": write_text,
        ".jsonl": write_jsonl,
        ".parquet": write_parquet,
    }

    def fed(path: Path, count: int) -> None:
        digits = random.Random(0)  # so that Parquet cannot make them short
        write[path.suffix](path, [[f"{digits.getrandbits(160):040x}" for _ in range(5)] for _ in range(count)])

    def peak(path: Path) -> int:
        tracemalloc.start()
        try:
            assert sum(1 for _ in read_stories(path)) > 0
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    for suffix in write:
        small, large = tmp_path / f"small{suffix}", tmp_path / f"large{suffix}"
        more = 4 if suffix == ".parquet" else 1  # there a dictionary of up to 1 MB is read first
        fed(small, 1_500 * more)
        fed(large, 4_000 * more)  # 0.8 MB of sentences, in Parquet one row group of 3.2 MB
        peak(small)  # what is imported on the way
        assert peak(large) < peak(small) + 200_000, suffix


def test_a_file_that_is_not_there_or_not_known(tmp_path: Path) -> None:
    (tmp_path / "stories.csv").touch()
    with pytest.raises(ValueError, match=r"storys\.csv: no such file; did you mean .*stories\.csv\?"):
        read_stories(tmp_path / "storys.csv")
    with pytest.raises(ValueError, match=r"stories\.pdf: no reader for \.pdf.*\.csv, \.tsv"):
        read_stories(tmp_path / "stories.pdf")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ValueError, match="a folder, where a file is expected"):
        read_stories(tmp_path / "folder.csv")


def test_files_are_closed_when_reading_stops(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text('{"sentences": ["One.", "Two."]}\n' * 3)
    stories = read_stories(path)
    assert isinstance(stories, Iterator)
    next(stories)
    stories.close()  # type: ignore[attr-defined]
    assert not [warning for warning in recwarn if warning.category is ResourceWarning]


def test_an_unknown_format_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UserError) as caught:
        read_stories(io.StringIO("a\nb\n"), file_format="xml")
    assert all(fact in str(caught.value) for fact in ("'xml'", *FORMATS))
