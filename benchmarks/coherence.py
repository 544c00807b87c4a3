"""How often a model prefers a text to a disturbed copy of it, by number of sentences.

`python -m benchmarks.coherence --model DIR --data SRC --results FILE`. The measure is that of the coherence literature
(Barzilay & Lapata, 2008, "Modeling Local Coherence: An Entity-Based Approach"): the accuracy with which an original
gets a higher `log_probability` (see `sentence-ordering score`) than a copy; ties count one half. Copies are the same
sentences shuffled, and the original with two sentences swapped, drawn at random with a fixed seed; those equal to the
original are drawn again.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring import run_script
from dataset_builder import load_all, load_stories
from modeling_sentence_ordering import AnswerOptions, StoryScores, StoryTokenizer, coherence, score_stories
from training.evaluation.analysis import confidence_intervals
from training.models.model_folder import write_json
from training.models.trained_model import load_trained_model
from training.runs.run_outputs import environment
from training.system.console import show

SEED = 42
KINDS = ("shuffled", "swapped")
MOST_DRAWS = 100


def disturbed(sentences: Sequence[str], kind: str, generator: np.random.Generator) -> list[int] | None:
    """A different order of a text, as indices; None if the text has only one or the draws found no other.

    Args:
        sentences: of the original.
        kind: one of `KINDS`.
        generator: random numbers.
    """
    for _ in range(MOST_DRAWS if len(set(sentences)) > 1 else 0):
        order = np.arange(len(sentences))
        if kind == "shuffled":
            order = generator.permutation(order)
        else:
            one, other = generator.choice(len(sentences), 2, replace=False)
            order[[one, other]] = order[[other, one]]
        found: list[int] = order.tolist()
        if [sentences[index] for index in found] != list(sentences):
            return found
    return None


def preferred(original: float, copy: float) -> float:
    """1 if the original scores higher, 1/2 if both score the same, otherwise 0."""
    return 0.5 if abs(original - copy) < 1e-9 else float(original > copy)


def log_probability(sentences: Sequence[str], found: StoryScores, order: Sequence[int], temperature: float) -> float:
    """Of a text in another order. The model's scores do not depend on the order, so it reads each text once."""
    index = list(order)
    pairs = None if found.pair_logits is None else found.pair_logits[index][:, index]
    scores = [float(found.scores[i] or 0.0) for i in index]
    judged = coherence(
        [sentences[i] for i in index], scores, range(len(index)), pair_logits=pairs, temperature=temperature
    )
    return float(judged["log_probability"])


def accuracies(values: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """For each kind of copy the accuracy, averaged over texts, with a bootstrap interval over texts."""
    found = {}
    for kind, some in values.items():
        array = np.array(some, dtype=np.float64)
        interval = confidence_intervals({"accuracy": array}).get("accuracy") if len(some) else None
        found[kind] = {"texts": len(some), "accuracy": float(array.mean()) if len(some) else None, "interval": interval}
    return found


def measure(
    model: Any, tokenizer: Any, stories: Sequence[Sequence[str]], *, copies: int = 20, num_permutations: int = 1
) -> dict[str, Any]:
    """Compares all texts with their copies.

    Args:
        model: calibrated.
        tokenizer: the model's.
        stories: their sentences in true order.
        copies: of each kind, of each text.
        num_permutations: as in `order`.

    Returns:
        `all`, see `accuracies`, and `by_sentences`, the same for each number of sentences.
    """
    story_tokenizer, temperature = StoryTokenizer(tokenizer, model.config), model.config.confidence_temperature
    AnswerOptions(score=True).check_calibration(temperature)
    tokenized = story_tokenizer.tokenize_stories(stories, longest=story_tokenizer.room)
    ids = [story_tokenizer.shortened(story)[0] for story in tokenized]
    scores = score_stories(model, story_tokenizer, stories, ids, num_permutations=num_permutations)
    generator = np.random.default_rng(SEED)
    by_count: dict[int, dict[str, list[float]]] = {}
    for sentences, found in zip(stories, scores, strict=True):
        row = by_count.setdefault(len(sentences), {kind: [] for kind in KINDS})
        for kind in KINDS:
            orders = [order for _ in range(copies) if (order := disturbed(sentences, kind, generator)) is not None]
            if orders:
                original = log_probability(sentences, found, range(len(sentences)), temperature)
                wins = [preferred(original, log_probability(sentences, found, order, temperature)) for order in orders]
                row[kind].append(sum(wins) / len(wins))
    every = {kind: [value for row in by_count.values() for value in row[kind]] for kind in KINDS}
    return {
        "texts": len(stories),
        "all": accuracies(every),
        "by_sentences": [{"sentences": count, **accuracies(by_count[count])} for count in sorted(by_count)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coherence", description=__doc__)
    parser.add_argument("--model", required=True, metavar="DIR", help="a calibrated model")
    parser.add_argument("--data", required=True, nargs="+", metavar="SRC", help="stories in true order")
    parser.add_argument("--split", default="test", help="split of the data, or 'all'")
    parser.add_argument("--copies", type=int, default=20, help="copies of each kind, of each text")
    parser.add_argument("--num_permutations", type=int, default=1, help="arrangements of each text")
    parser.add_argument("--results", type=Path, required=True, metavar="FILE", help="JSON file to write")
    options = parser.parse_args()
    stories = load_all(options.data) if options.split == "all" else load_stories(options.data)[options.split]
    model, tokenizer = load_trained_model(options.model)
    began = time.perf_counter()
    found = measure(
        model, tokenizer, stories["sentences"], copies=options.copies, num_permutations=options.num_permutations
    )
    head = {
        "model": Path(options.model).name,
        "encoder": model.config.backbone_config.model_type.removeprefix("sentence_ordering_"),
        "parameters": model.num_parameters(),
        "head": model.config.head,
        "data": [Path(source).name for source in options.data],
        "split": options.split,
        "copies": options.copies,
        "num_permutations": options.num_permutations,
        "seed": SEED,
        "seconds": round(time.perf_counter() - began, 1),
        "environment": environment(model),
    }
    options.results.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.results, {**head, **found})
    for kind, values in found["all"].items():
        show(f"{kind}: accuracy {values['accuracy']:.3f} over {values['texts']:,} texts")


if __name__ == "__main__":
    sys.exit(run_script(main))
