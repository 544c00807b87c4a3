"""Does the order in which sentences are handed in matter? Counted over random cases.

    python benchmarks/input_order.py --model DIR_OR_REPO [--cases N] [--output FILE]

A case is a batch of stories made of the bundled sample's sentences (2 to 10 each, some of them twice), which is ordered
as it is and with every story shuffled: the answers must be the same, to the last digit. Then each story is ordered by
itself, where the padding is another: counted is how many pairs of sentences change places, and how far apart the scores
of such a pair are at most.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dataset_builder import load_all
from modeling_sentence_ordering import SentenceOrderingPipeline
from training.models.model_folder import write_json
from training.models.trained_model import load_trained_model


def main() -> None:
    """Runs the cases and prints, or writes, what was counted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, metavar="DIR_OR_REPO", help="a trained model")
    parser.add_argument("--cases", type=int, default=10_000, help="batches of one to four stories (default: 10,000)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the counts there, too, as JSON")
    options = parser.parse_args()
    model, tokenizer = load_trained_model(options.model)
    order = SentenceOrderingPipeline(model=model, tokenizer=tokenizer)
    sentences = sorted({sentence for story in load_all(["sample"])["sentences"] for sentence in story})
    told = {"encoder": model.config.backbone_config.model_type, "parameters": model.num_parameters()}
    counts = told | count(order, sentences, options.cases)
    if options.output is not None:
        write_json(options.output, counts)
    print(json.dumps(counts, indent=2))


def count(order: SentenceOrderingPipeline, sentences: list[str], cases: int, seed: int = 0) -> dict[str, Any]:
    """How many stories differ, and how many pairs change places, over so many cases."""
    generator = random.Random(seed)
    stories = differ = pairs = swaps = 0
    furthest = 0.0
    for _ in tqdm(range(cases), disable=None):
        batch = [_story(generator, sentences) for _ in range(generator.randint(1, 4))]
        shuffled = [generator.sample(story, len(story)) for story in batch]
        options = {"batch_size": generator.randint(2, 4), "num_permutations": generator.randint(1, 2)}
        for one, other in zip(order(batch, **options), order(shuffled, **options), strict=True):
            stories += 1
            differ += _in_order(one) != _in_order(other)
            alone = order(other["sentences"], num_permutations=options["num_permutations"])
            changed = _swaps(one, alone)
            pairs += len(one["sentences"]) * (len(one["sentences"]) - 1) // 2
            swaps += len(changed)
            furthest = max([furthest, *changed])
    return {
        "cases": cases,
        "stories": stories,
        "stories_that_differ_in_the_same_batch": differ,
        "pairs": pairs,
        "pairs_that_change_places_in_another_batch": swaps,
        "largest_difference_of_scores_of_such_a_pair": furthest,
    }


def _story(generator: random.Random, sentences: list[str]) -> list[str]:
    story = generator.sample(sentences, generator.randint(2, 10))
    return [*story, story[0]] if generator.random() < 0.2 else story


def _in_order(answer: dict[str, Any]) -> list[tuple[str, float]]:
    return [(sentence, answer["scores"][i]) for sentence, i in zip(answer["sentences"], answer["order"], strict=True)]


def _swaps(one: dict[str, Any], other: dict[str, Any]) -> list[float]:
    """For each pair that stands in one order here and in the other there, how far apart its scores are here.

    Identical sentences are told apart by how many of them came before.
    """
    places: dict[tuple[str, int], int] = {}
    for place, sentence in enumerate(other["sentences"]):
        places[sentence, other["sentences"][:place].count(sentence)] = place
    story, values = one["sentences"], [score for _, score in _in_order(one)]
    there = [places[sentence, story[:place].count(sentence)] for place, sentence in enumerate(story)]
    return [
        values[later] - values[earlier]
        for later in range(len(story))
        for earlier in range(later)
        if there[earlier] > there[later]
    ]


if __name__ == "__main__":
    main()
