"""Sentences to ids: whatever the sentences contain, there is one marker for each, and nothing else that is special."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modeling_sentence_ordering import (
    SentenceOrderingConfig,
    SentenceOrderingPipeline,
    StoryTokenizer,
    TokenizedStory,
    batches_by_length,
)
from modeling_sentence_ordering.repository_sentence_ordering import with_marker
from modeling_sentence_ordering.tokenization_sentence_ordering import LONGEST_SENTENCE
from tests.modeling_sentence_ordering.small_encoders import ENCODERS, STORIES, MakeModel, make_batch, word_tokenizer

TOKENIZERS = [*ENCODERS, "rnn"]
SPECIAL = sorted({token for _, _, _, specials, _ in ENCODERS.values() for token in specials.values()} | {"[SENTENCE]"})
SENTENCES = st.lists(
    st.one_of(
        st.text(max_size=12),
        st.sampled_from(["", " ", "\n", *SPECIAL]),
        st.lists(st.sampled_from([*SPECIAL, " ", "the cat", "\u0301", "\u2581", "##"]), max_size=5).map("".join),
    ),
    max_size=6,
)


@pytest.fixture(scope="module")
def story_tokenizers(make_model: MakeModel) -> dict[str, StoryTokenizer]:
    return {name: make_model(name)[1] for name in TOKENIZERS}


def of(limit: int | None = None, separator: int | None = 3) -> StoryTokenizer:
    """A story tokenizer for ids alone: marker 2, separator 3 unless there is none."""
    config = SentenceOrderingConfig(marker_token_id=2, separator_token_id=separator, max_input_tokens=limit)
    return StoryTokenizer(word_tokenizer(), config)


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sentences=SENTENCES)
def test_one_marker_for_each_sentence_and_nothing_special_inside(
    name: str, sentences: list[str], story_tokenizers: dict[str, StoryTokenizer]
) -> None:
    tokenizer = story_tokenizers[name]
    ids = tokenizer.tokenize(sentences)
    assert len(ids) == len(sentences)
    vocabulary = tokenizer.tokenizer
    special = set(vocabulary.all_special_ids) - {vocabulary.unk_token_id}
    assert tokenizer.marker_token_id in special
    assert not special & {i for sentence in ids for i in sentence}
    assert all(0 <= i < len(vocabulary) for sentence in ids for i in sentence)

    story = tokenizer.assemble(ids)
    assert story.input_ids.count(tokenizer.marker_token_id) == len(sentences) == story.num_sentences
    assert [story.input_ids[place] for place in story.marker_positions] == [tokenizer.marker_token_id] * len(sentences)
    rebuilt = [i for sentence in ids for i in (tokenizer.marker_token_id, *sentence)]
    separator = tokenizer.separator_token_id
    assert story.input_ids == [*rebuilt, *([] if separator is None else [separator])]
    assert len(story.input_ids) == tokenizer.length(ids)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_sentences_are_tokenized_each_by_itself(name: str, story_tokenizers: dict[str, StoryTokenizer]) -> None:
    """As the tokenizer does it for a single text; long ones whole, and the shuffle cannot change any of them."""
    tokenizer = story_tokenizers[name]
    sentences = [*STORIES[0], "the cat " * 700]
    expected = [tokenizer.tokenizer(sentence, add_special_tokens=False)["input_ids"] for sentence in sentences]
    assert tokenizer.tokenize(sentences) == expected
    assert tokenizer.tokenize(sentences[::-1]) == expected[::-1]
    assert len(expected[-1]) >= 1400
    assert tokenizer.tokenize([]) == []


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_special_token_written_in_a_sentence_is_text(name: str, story_tokenizers: dict[str, StoryTokenizer]) -> None:
    """It leaves a trace of its own in the ids, and the words around it stay.

    A byte-level tokenizer has pieces for its letters; the others here, whose alphabet is small, have the unknown token.
    """
    tokenizer = story_tokenizers[name]
    for token in tokenizer.tokenizer.all_special_tokens:
        (plain,), (written,) = tokenizer.tokenize(["the cat the cat"]), tokenizer.tokenize([f"the cat {token} the cat"])
        half = len(plain) // 2
        assert written[:half] == plain[:half] and written[-half:] == plain[-half:]
        assert len(written) > len(plain)
        if name in ("roberta", "modernbert"):
            assert tokenizer.tokenizer.decode(written) == f"the cat {token} the cat"


def test_without_an_unknown_token_a_special_one_is_left_out() -> None:
    tokenizer = word_tokenizer()
    tokenizer.unk_token = None
    story_tokenizer = StoryTokenizer(tokenizer, SentenceOrderingConfig(marker_token_id=tokenizer.cls_token_id))
    (kept,) = story_tokenizer.tokenize(["the cat"])
    story_tokenizer.tokenizer = lambda sentences, **_: {"input_ids": [[*kept, tokenizer.cls_token_id]]}
    assert story_tokenizer.tokenize(["the cat [CLS]"]) == [kept]


def test_a_marker_that_is_the_unknown_token_is_left_out() -> None:
    tokenizer = word_tokenizer()
    tokenizer.cls_token = tokenizer.unk_token
    config = SentenceOrderingConfig(marker_token_id=tokenizer.unk_token_id)
    (ids,) = StoryTokenizer(tokenizer, config).tokenize(["the zebra cat"])
    assert len(ids) == 2 and tokenizer.unk_token_id not in ids


@given(st.lists(st.lists(st.integers(10, 20), max_size=5), max_size=6), st.integers(1, 30), st.sampled_from([None, 3]))
@settings(deadline=None)
def test_the_limit_is_kept_and_the_last_sentences_are_cut(
    sentences: list[list[int]], limit: int, separator: int | None
) -> None:
    tokenizer = of(limit, separator)
    story = tokenizer.assemble(sentences)
    assert story.num_sentences == len(sentences)
    assert len(story.input_ids) <= limit
    whole = of(None, separator).assemble(sentences)
    assert len(whole.input_ids) == tokenizer.length(sentences)
    if tokenizer.length(sentences) <= limit:
        assert story == whole
    closing = [] if separator is None else [separator]
    content = story.input_ids[: len(story.input_ids) - len(closing)]
    assert story.input_ids == content + closing, "a story that is cut off is closed, too"
    assert whole.input_ids[: len(content)] == content
    kept = len(story.marker_positions)
    assert story.marker_positions == whole.marker_positions[:kept]
    fitting = sum(tokenizer.length(sentences[:count]) <= limit for count in range(1, len(sentences) + 1))
    assert fitting <= kept <= min(fitting + 1, len(sentences)), "only the last kept sentence may be cut"
    for place, position in enumerate(story.marker_positions):
        assert story.input_ids[position] == 2
        assert not sentences[place] or position + 1 < len(content), "no marker without a token of its sentence"


def test_collate_pads_on_the_right() -> None:
    tokenizer = of(9)
    stories = [tokenizer.assemble(sentences) for sentences in ([[10, 11], [12]], [[13]], [[14] * 6, [15], [16]])]
    batch = tokenizer.collate(stories, [[1, 0], [0], [2, 0, 1]])
    assert {key: value.tolist() for key, value in batch.items()} == {
        "input_ids": [
            [2, 10, 11, 2, 12, 3, 0, 0],
            [2, 13, 3, 0, 0, 0, 0, 0],
            [2, 14, 14, 14, 14, 14, 14, 3],
        ],
        "attention_mask": [[1] * 6 + [0] * 2, [1] * 3 + [0] * 5, [1] * 8],
        "marker_positions": [[0, 3, -1], [0, -1, -1], [0, -1, -1]],
        "labels": [[1, 0, -100], [0, -100, -100], [2, 0, 1]],
    }
    assert {value.dtype for value in batch.values()} == {torch.int64}
    assert "labels" not in tokenizer.collate(stories)


@pytest.mark.parametrize("name", ["roberta", "rnn"])
def test_padding_is_the_tokenizers_own(name: str, story_tokenizers: dict[str, StoryTokenizer]) -> None:
    tokenizer = story_tokenizers[name]
    batch = make_batch(tokenizer)
    assert set(batch["input_ids"][batch["attention_mask"] == 0].tolist()) == {tokenizer.tokenizer.pad_token_id}


def test_an_empty_batch_and_an_empty_story() -> None:
    tokenizer = of()
    assert {tuple(value.shape) for value in tokenizer.collate([]).values()} == {(0, 0)}
    assert tokenizer.assemble([]) == TokenizedStory([3], [], 0)
    assert tokenizer.collate([tokenizer.assemble([])])["marker_positions"].shape == (1, 0)


def test_half_a_surrogate_pair_is_no_text(story_tokenizers: dict[str, StoryTokenizer]) -> None:
    with pytest.raises(ValueError, match=r"^sentence 1 .*'\\ud83d'.* surrogate pair$"):
        story_tokenizers["bert"].tokenize(["Fine.", "A \ud83d."])


def test_a_tokenizer_of_another_model_is_refused(make_model: MakeModel) -> None:
    small = make_model("bert")[0].config
    large = make_model("roberta")[1].tokenizer
    with pytest.raises(ValueError, match=r"\d+ tokens .* \d+ rows"):
        StoryTokenizer(large, small)
    with pytest.raises(ValueError, match="marker_token_id"):
        StoryTokenizer(large, SentenceOrderingConfig())


def test_a_tokenizer_without_padding_gets_some() -> None:
    tokenizer: Any = word_tokenizer()
    tokenizer.pad_token = None
    size = len(tokenizer)
    assert with_marker(tokenizer).pad_token == "[SEP]"
    assert len(tokenizer) == size, "the embeddings need not grow for it"


@given(
    lengths=st.lists(st.integers(1, 60), max_size=40),
    batch_size=st.none() | st.integers(1, 9),
    batch_tokens=st.none() | st.integers(1, 200),
)
def test_batches_hold_every_sequence_once_and_no_more_than_they_may(
    lengths: list[int], batch_size: int | None, batch_tokens: int | None
) -> None:
    batches = batches_by_length(lengths, batch_size=batch_size, batch_tokens=batch_tokens)
    flat = [index for batch in batches for index in batch]
    assert sorted(flat) == list(range(len(lengths)))
    assert [lengths[index] for index in flat] == sorted(lengths, reverse=True)
    for place, batch in enumerate(batches, 1):
        padded = len(batch) * lengths[batch[0]]
        assert batch_size is None or len(batch) <= batch_size
        assert batch_tokens is None or padded <= batch_tokens or len(batch) == 1
        if place < len(batches):  # nothing is left for the next batch that this one could have held
            is_full = batch_size is not None and len(batch) == batch_size
            assert is_full or (batch_tokens is not None and padded + lengths[batch[0]] > batch_tokens)


LONG_TEXTS = st.lists(
    st.sampled_from(
        [
            "the cat slept ",
            "umbrella",
            "\u732b\u304c\u5bdd\u305f\u3002",
            " \t \n",
            "zq",
            "\u0301",
            "[CLS]",
            "ate it all! ",
        ]
    ),
    min_size=1,
    max_size=4,
).map(lambda parts: "".join(parts) * (9000 // len("".join(parts)) + 1))


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=LONG_TEXTS, longest=st.integers(0, 300))
def test_a_cut_text_gives_the_same_first_ids(
    name: str, text: str, longest: int, story_tokenizers: dict[str, StoryTokenizer]
) -> None:
    tokenizer = story_tokenizers[name]
    (whole,), (first,) = tokenizer.tokenize([text]), tokenizer.tokenize([text], longest=longest)
    assert first[:longest] == whole[:longest]
    assert first == whole or longest < len(first) < len(whole)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_cutting_changes_no_usual_sentence(name: str, story_tokenizers: dict[str, StoryTokenizer]) -> None:
    for story in STORIES:
        assert story_tokenizers[name].tokenize(story, longest=10) == story_tokenizers[name].tokenize(story)


def test_a_huge_sentence_is_not_tokenized_as_a_whole(make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """50 million characters took 12 GB."""
    model, story_tokenizer = make_model("bert")
    order = SentenceOrderingPipeline(model=model, tokenizer=story_tokenizer.tokenizer, device="cpu")
    characters = []
    tokenize = StoryTokenizer._tokenize

    def counted(self: StoryTokenizer, sentences: list[str]) -> list[list[int]]:
        characters.append(sum(map(len, sentences)))
        return tokenize(self, sentences)

    monkeypatch.setattr(StoryTokenizer, "_tokenize", counted)
    answer = order(["It woke up. " * 4_000_000, "The cat slept."])
    assert answer["truncated"] == [0] and len(answer["sentences"][answer["order"].index(0)]) == 48_000_000
    assert sum(characters) < 20_000
    characters.clear()
    assert "truncated" not in order([" " * 10_000_000, "The cat slept."])
    assert sum(characters) < 3 * LONGEST_SENTENCE
