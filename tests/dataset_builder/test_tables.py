"""Tables as pandas, spreadsheets and `cat` write them: quoting, stories of unequal length, headers."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataset_builder import BadRecord, read_stories

ROWS = [
    ["a", "T", 'He said "no".', '"Go," he said.', '"Wait!"', "A, b.", "Five."],
    ["b", "T", "Plain.", "Two\tcells.", "Two\nlines.", "Four.", "Five."],
]
COLUMNS = ["storyid", "storytitle", *(f"sentence{number}" for number in range(1, 6))]


def sentences_of(path: Path) -> list[list[str]]:
    return [list(story.sentences) for story in read_stories(path)]


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_tsv_that_pandas_writes_is_read_back(tmp_path: Path, quoting: int, header: bool, line_end: str) -> None:
    columns = COLUMNS if header else COLUMNS[2:]
    frame = pd.DataFrame(ROWS, columns=COLUMNS)[columns]
    path = tmp_path / "s.tsv"
    frame.to_csv(path, sep="\t", index=False, header=header, quoting=quoting, lineterminator=line_end)
    assert sentences_of(path) == [row[2:] for row in ROWS]


def test_without_doubled_quotes_only_a_file_with_every_field_enclosed_is_quoted(tmp_path: Path) -> None:
    path = tmp_path / "s.tsv"
    path.write_text('"storyid"\t"sentence1"\t"sentence2"\n"a"\t"One."\t"Two."\n')
    assert sentences_of(path) == [["One.", "Two."]]


@pytest.mark.parametrize(
    "lines",
    [
        ['"Go," he said.', '"Go away."\t"I mean it," he said.'],
        ['"Wait!"\tHe ran.', 'He ran.\t"Wait!"'],
        ['"Go away.\tI mean it."', "He left.\tShe did not."],
        ['He said "no".\tShe said ""yes"".', '"\tOne mark.'],
        ["It's 5\" long.\tIt is not.", '"A" and "B"\tC'],
    ],
)
def test_an_unquoted_corpus_is_read_byte_for_byte(tmp_path: Path, lines: list[str]) -> None:
    path = tmp_path / "s.tsv"
    path.write_text("".join(f"{line}\n" for line in lines))
    shown = [list(story.sentences) for story in read_stories(path, as_given=True)]
    assert shown == [line.split("\t") for line in lines]


def test_one_field_with_doubled_quotes_is_unquoted_in_a_corpus_without_quoting_and_from_a_pipe(tmp_path: Path) -> None:
    text = '"Go," he said.\t"He said ""no""."\n'

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    (tmp_path / "s.tsv").write_text(text)
    expected = ['"Go," he said.', 'He said "no".']
    assert sentences_of(tmp_path / "s.tsv") == [expected]
    (story,) = read_stories(Pipe(text.encode()), file_format="tsv")
    assert list(story.sentences) == expected


HEADER = "storyid,sentence1,sentence2,sentence3,sentence4"


@pytest.mark.parametrize("rest", [",,", "", ",", ", ,\u200b", ",,,", ",,,,"])
@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_empty_and_missing_cells_at_the_end_end_the_story(tmp_path: Path, rest: str, suffix: str) -> None:
    path = tmp_path / f"s.{suffix}"
    text = f"{HEADER}\na,One.,Two.{rest}\n,,,,\nb,1,2,3,4\n"
    path.write_text(text if suffix == "csv" else text.replace(",", "\t"), encoding="utf-8")
    assert sentences_of(path) == [["One.", "Two."], ["1", "2", "3", "4"]]


def test_a_tsv_without_header_may_have_trailing_empty_cells(tmp_path: Path) -> None:
    (tmp_path / "s.tsv").write_text("One.\tTwo.\t\t\n1\t2\t3\t4\n")
    assert sentences_of(tmp_path / "s.tsv") == [["One.", "Two."], ["1", "2", "3", "4"]]


def test_unequal_lengths_in_parquet_and_json(tmp_path: Path) -> None:
    columns = {"sentence1": ["One.", "1"], "sentence2": ["Two.", "2"], "sentence3": [None, "3"], "sentence4": ["", "4"]}
    pq.write_table(pa.table(columns), tmp_path / "s.parquet")
    (tmp_path / "s.jsonl").write_text(
        '{"sentence1": "One.", "sentence2": "Two.", "sentence3": null}\n'
        '{"sentence1": "1", "sentence2": "2", "sentence3": "3", "sentence4": "4"}\n'
    )
    for name in ("s.parquet", "s.jsonl"):
        assert sentences_of(tmp_path / name) == [["One.", "Two."], ["1", "2", "3", "4"]]


@pytest.mark.parametrize("cell", ["", " ", "\u200b"])
def test_an_empty_cell_in_the_middle_is_an_error(tmp_path: Path, cell: str) -> None:
    (tmp_path / "s.csv").write_text(f"{HEADER}\na,One.,{cell},Three.,\n", encoding="utf-8")
    pq.write_table(
        pa.table({"sentence1": ["One."], "sentence2": [cell], "sentence3": ["Three."]}), tmp_path / "s.parquet"
    )
    for name in ("s.csv", "s.parquet"):
        with pytest.raises(BadRecord, match="sentence ?2'? is empty"):
            sentences_of(tmp_path / name)


@pytest.mark.parametrize("count", [2, 3, 7, 12])
def test_any_number_of_sentence_columns_is_a_layout(tmp_path: Path, count: int) -> None:
    names = [f"sentence{number}" for number in range(1, count + 1)]
    sentences = [f"Number {number}." for number in range(1, count + 1)]
    (tmp_path / "s.csv").write_text(",".join(names) + "\n" + ",".join(sentences) + "\n")
    (tmp_path / "s.tsv").write_text("\t".join(names) + "\n" + "\t".join(sentences) + "\n")
    assert sentences_of(tmp_path / "s.csv") == sentences_of(tmp_path / "s.tsv") == [sentences]


def test_a_column_that_is_named_twice_is_refused_in_parquet(tmp_path: Path) -> None:
    table = pa.Table.from_arrays(
        [pa.array(["a"]), pa.array(["b"]), pa.array(["c"])], ["sentence1", "sentence2"] + ["sentence2"]
    )
    pq.write_table(table, tmp_path / "s.parquet")
    with pytest.raises(BadRecord, match="'sentence2' occurs twice"):
        sentences_of(tmp_path / "s.parquet")


def test_the_header_of_a_concatenated_file_is_not_a_story(tmp_path: Path) -> None:
    text = f"{HEADER}\na,One.,Two.,Three.,Four.\n\ufeff{HEADER}\nb,1,2,3,4\n"
    (tmp_path / "s.csv").write_text(text, encoding="utf-8")
    assert sentences_of(tmp_path / "s.csv") == [["One.", "Two.", "Three.", "Four."], ["1", "2", "3", "4"]]
