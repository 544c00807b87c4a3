"""How well, and how fast, are texts ordered that are too long for an encoder?

    python benchmarks/long_texts.py [--model DIR_OR_REPO --data SRC...] [--output FILE]

First without a model: groups are scored by the true places of their sentences, with noise, so that only what comes of
combining them is judged. `group` scores are places in the group, as those of models are, `text` scores places in the
whole text, of which a group of neighbours tells little.

Then with the model: whole stories of the data are joined into texts, in a known order. Which story comes first nobody
can tell, so pairs of sentences of one story are what is judged: how many of them stand the right way round, and each
story's tau by itself.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dataset_builder import load_all
from modeling_sentence_ordering import SentenceOrderingPipeline, combine_groups
from modeling_sentence_ordering.pipeline_sentence_ordering import GROUP_SIZE
from training.models.model_folder import write_json
from training.models.trained_model import load_trained_model

TOKENS, ROOM = 12, 511  # of a simulated sentence, and of the encoder that it is for


def main() -> None:
    """Runs both parts; prints, or writes, what was found."""
    options = _parser().parse_args()
    results: dict[str, Any] = {"simulation": [], "model": []}
    for noise in options.noise:
        for kind in ("group", "text"):
            for size in options.group_size or [GROUP_SIZE]:
                for count in options.simulated_sentences:
                    results["simulation"].append(simulate(kind, noise, count, size))
                    print(json.dumps(results["simulation"][-1]), flush=True)
    if options.model is not None:
        model, tokenizer = load_trained_model(options.model)
        if options.max_input_tokens is not None:
            model.config.max_input_tokens = options.max_input_tokens
        order = SentenceOrderingPipeline(model=model, tokenizer=tokenizer)
        stories = load_all(options.data)["sentences"]
        for size in options.group_size or [model.config.group_size or GROUP_SIZE]:
            model.config.group_size = size
            for count in options.sentences:
                texts = joined(stories, count, max(1, options.texts * min(options.sentences) // count))
                results["model"].append(judge(order, texts, options.num_permutations))
                print(json.dumps(results["model"][-1]), flush=True)
    if options.output is not None:
        write_json(options.output, results)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", metavar="DIR_OR_REPO", help="a trained model")
    parser.add_argument("--data", nargs="+", default=["sample"], metavar="SRC", help="stories (default: sample)")
    parser.add_argument("--sentences", type=int, nargs="+", default=[30, 300], help="of a text (default: 30 300)")
    parser.add_argument("--texts", type=int, default=50, help="of the shortest texts, fewer of others (default: 50)")
    parser.add_argument("--group_size", type=int, nargs="+", help="other numbers than the model's own")
    parser.add_argument("--max_input_tokens", type=int, help="as if the encoder took no more than that")
    parser.add_argument("--num_permutations", type=int, default=1, metavar="K", help="as for order (default: 1)")
    parser.add_argument("--simulated_sentences", type=int, nargs="*", default=[30, 300, 2000], metavar="N")
    parser.add_argument("--noise", type=float, nargs="+", default=[1.0, 3.0], help="standard deviation of a score")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the results there, too, as JSON")
    return parser


def simulate(kind: str, noise: float, count: int, group_size: int, seed: int = 0) -> dict[str, Any]:
    """One text of so many sentences, whose places are scored with noise."""
    generator = random.Random(seed)
    truth = generator.sample(range(count), count)
    calls = 0

    def score_groups(groups: list[list[int]]) -> list[list[float]]:
        nonlocal calls
        calls += len(groups)
        rows = []
        for group in groups:
            ranks = {index: rank for rank, index in enumerate(sorted(group, key=truth.__getitem__))}
            places = [ranks[index] if kind == "group" else group_size * truth[index] / count for index in group]
            rows.append([place + generator.gauss(0, noise) for place in places])
        return rows

    begin = time.perf_counter()
    strengths = combine_groups(
        [f"sentence {index}" for index in range(count)],
        score_groups,
        lengths=[TOKENS] * count,
        room=ROOM,
        group_size=group_size,
        temperature=1.0,
    )
    seconds = time.perf_counter() - begin
    found = [truth[index] for index in sorted(range(count), key=strengths.__getitem__)]
    return {
        "scores": kind,
        "noise": noise,
        "group_size": group_size,
        "sentences": count,
        "encoder_calls": calls,
        "kendalls_tau": round(kendalls_tau(found), 4),
        "seconds_without_an_encoder": round(seconds, 2),
    }


def joined(stories: Sequence[Sequence[str]], count: int, texts: int, seed: int = 0) -> list[list[list[str]]]:
    """Texts of at least so many sentences, as lists of stories; no story is in two of them while there are others."""
    generator = random.Random(seed)
    waiting: list[Sequence[str]] = []
    found = []
    for _ in range(texts):
        text: list[list[str]] = []
        while sum(map(len, text)) < count:
            waiting = waiting or generator.sample(list(stories), len(stories))
            text.append(list(waiting.pop()))
        found.append(text)
    return found


def judge(order: SentenceOrderingPipeline, texts: list[list[list[str]]], num_permutations: int) -> dict[str, Any]:
    """Pairs within stories, and time, over texts that are handed in shuffled."""
    calls = right = pairs = 0
    taus: list[float] = []

    def count_calls(_module: Any, _inputs: Any, named: dict[str, Any]) -> None:
        nonlocal calls
        calls += len(named["input_ids"])

    hook = order.model.register_forward_pre_hook(count_calls, with_kwargs=True)
    generator = random.Random(0)
    begin = time.perf_counter()
    for text in tqdm(texts, disable=None):
        places = [(story, place) for story, sentences in enumerate(text) for place in range(len(sentences))]
        generator.shuffle(places)
        answer = order([text[story][place] for story, place in places], num_permutations=num_permutations)
        by_story: list[list[int]] = [[] for _ in text]
        for index in answer["order"]:
            story, place = places[index]
            by_story[story].append(place)
        for found in by_story:
            total = len(found) * (len(found) - 1) // 2
            taus.append(kendalls_tau(found))
            right += round((taus[-1] + 1) / 2 * total)
            pairs += total
    seconds = time.perf_counter() - begin
    hook.remove()
    return {
        "group_size": order.model.config.group_size,
        "max_input_tokens": order.model.config.max_input_tokens,
        "num_permutations": num_permutations,
        "texts": len(texts),
        "sentences": sum(len(story) for text in texts for story in text) / len(texts),
        "pairs_within_stories": pairs,
        "pairs_right": round(right / pairs, 4),
        "kendalls_tau_within_stories": round(sum(taus) / len(taus), 4),
        "encoder_calls_of_a_text": calls / len(texts),
        "seconds_for_a_text": round(seconds / len(texts), 2),
    }


def kendalls_tau(found: Sequence[int]) -> float:
    """Of a permutation, by merge sort: 2,000 sentences have two million pairs."""

    def count(values: list[int]) -> tuple[list[int], int]:
        if len(values) < 2:
            return values, 0
        half = len(values) // 2
        (left, one), (right, two) = count(values[:half]), count(values[half:])
        merged, swaps, at = [], one + two, 0
        for value in right:
            while at < len(left) and left[at] < value:
                merged.append(left[at])
                at += 1
            merged.append(value)
            swaps += len(left) - at
        return merged + left[at:], swaps

    number = len(found)
    return 1 - 4 * count(list(found))[1] / (number * (number - 1)) if number > 1 else 1.0


if __name__ == "__main__":
    main()
