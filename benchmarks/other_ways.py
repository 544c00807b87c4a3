r"""Other ways to put sentences in order, on the same encoder, data and shuffles as `benchmarks.objectives`.

    python -m benchmarks.other_ways --config RECIPE.yaml --encoder NAME --data SRC... --validation_data SRC... \
        --output_dir FOLDER_OF_THE_RUNS --results FILE.json [--seeds 42] [--pair_budget 1.0] [--ways ...]

From the project's root. The ways are

- pairs: a classifier of pairs of sentences (`A [SEP] B`: is A before B?) trained by the recipe on pairs of the training
  stories, for as many steps with as many tokens as the recipe has, times `--pair_budget`; then a topological sort;
- centre_chain, best_chain: the encoder as it is, its embeddings of single sentences (mean over tokens), and a greedy
  chain of nearest neighbours, from the sentence nearest to the mean, or of all starts the one with the most similar
  neighbours. No seed has a part in these: they stand under seed 0.

None of them sees the true order of what it sorts, see `benchmarks.orders`. A run that is in the results file is not
done again. The encoder is a pretrained one.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from tqdm import tqdm
from transformers import AutoModel

from benchmarks.flags import BenchmarkParser
from benchmarks.measuring import ResultsFile, environment_here, figures, load_splits, run_script
from benchmarks.orders import as_predictions, best_chain, chain_from_centre, topological_order
from benchmarks.pair_classifier import pair_probabilities, train_pair_classifier
from dataset_builder import shuffled_labels
from modeling_sentence_ordering import StoryTokenizer, load_tokenizer
from modeling_sentence_ordering.configuration_sentence_ordering import is_scratch_encoder
from training.data.batches import evaluation_batches
from training.data.stories import TokenizedStories
from training.models.encoders import build_model, resolve_encoder
from training.recipe.recipe import Recipe, RecipeError, shareable
from training.system.device import fastest_device

CHAINS: Mapping[str, Callable[..., list[int]]] = {"centre_chain": chain_from_centre, "best_chain": best_chain}
NO_SEED = 0


def main() -> None:
    """Runs what has not been run yet."""
    parser = BenchmarkParser("other_ways", __doc__ or "")
    parser.add_argument("--ways", nargs="+", default=["pairs", *CHAINS], choices=["pairs", *CHAINS])
    parser.add_argument("--pair_budget", type=float, default=1.0, help="times the recipe's steps (default: 1.0)")
    recipe, options = parser.parse_benchmark(decided_elsewhere={"seed": "--seeds"})
    if is_scratch_encoder(recipe.encoder):
        raise RecipeError(f"--encoder {recipe.encoder}: the other ways need a pretrained encoder")
    common = {name: value for name, value in shareable(recipe).items() if name not in ("objective", "seed")}
    results = ResultsFile(options["results"], {"recipe": common, "pair_budget": options["pair_budget"]})
    seeds = {way: options["seeds"] if way == "pairs" else [NO_SEED] for way in options["ways"]}
    left = [(way, seed) for way in options["ways"] for seed in seeds[way] if not results.has(way, seed)]
    splits = load_splits(recipe)
    for way, seed in tqdm(left, unit="run", disable=None):
        figures = judge_pairs(replace(recipe, seed=seed), splits, results.head) if way == "pairs" else None
        results.add(way, seed, figures or judge_chain(way, recipe, splits["validation"]))
        tqdm.write(f"{way}, seed {seed}: tau {results.runs()[way][str(seed)]['kendalls_tau']:.4f}")


def judge_pairs(recipe: Recipe, splits: DatasetDict, head: Mapping[str, Any]) -> dict[str, Any]:
    """Trains the classifier, unless its folder holds it, and judges the sorted pairs of the validation stories.

    Raises:
        ValueError: if the folder holds a classifier by another recipe.
    """
    folder = Path(recipe.output_dir) / f"pairs-seed{recipe.seed}"
    trained = ResultsFile(folder / "trained.json", head)
    if not trained.has("pairs", recipe.seed):
        trained.claim()
        model, tokenizer = build_model(recipe, [])  # ours, for the number of tokens that the recipe reads
        stories = TokenizedStories(splits["train"], StoryTokenizer(tokenizer, model.config), recipe.data_seed)
        began = time.perf_counter()
        training = train_pair_classifier(recipe, stories, folder, head["pair_budget"])
        trained.add("pairs", recipe.seed, {**training, "seconds": round(time.perf_counter() - began, 2)})
    shuffled, labels = shuffled_stories(splits["validation"], recipe.data_seed)
    began = time.perf_counter()
    earlier = pair_probabilities(folder, shuffled, 4 * recipe.per_device_eval_batch_size)
    orders = [topological_order(story, pairs) for story, pairs in zip(shuffled, earlier, strict=True)]
    seconds = round(time.perf_counter() - began, 2)
    # Both readings of a pair together: judged by one of them, a classifier that always says yes would be right.
    margins = [(pairs - pairs.T)[np.less.outer(own, own)] for pairs, own in zip(earlier, labels, strict=True)]
    return {
        "training": trained.runs()["pairs"][str(recipe.seed)],
        **figures(as_predictions(orders, labels)),
        "pair_accuracy": float((np.sign(np.concatenate(margins)) / 2 + 0.5).mean()),
        "seconds": seconds,
        "environment": environment_here(),
    }


def judge_chain(way: str, recipe: Recipe, stories: Dataset) -> dict[str, Any]:
    """Judges a chain of nearest neighbours on the validation stories."""
    shuffled, labels = shuffled_stories(stories, recipe.data_seed)
    began = time.perf_counter()
    embeddings = sentence_embeddings(resolve_encoder(recipe.encoder), shuffled, 4 * recipe.per_device_eval_batch_size)
    orders = [CHAINS[way](story, vectors) for story, vectors in zip(shuffled, embeddings, strict=True)]
    return {
        **figures(as_predictions(orders, labels)),
        "seconds": round(time.perf_counter() - began, 2),
        "environment": environment_here(),
    }


def shuffled_stories(stories: Dataset, data_seed: int) -> tuple[list[list[str]], list[list[int]]]:
    """The stories as every evaluation shows them, and the original index of each sentence shown."""
    labels = [shuffled_labels(story["storyid"], story["sentences"], data_seed) for story in stories]
    in_true_order = stories["sentences"]
    return [[story[i] for i in own] for story, own in zip(in_true_order, labels, strict=True)], labels


def sentence_embeddings(encoder: str, stories: Sequence[Sequence[str]], batch_size: int) -> list[np.ndarray]:
    """For each story `(sentences, dimensions)`, float64: the mean over each sentence's tokens, of length 1."""
    tokenizer = load_tokenizer(encoder)
    model = AutoModel.from_pretrained(encoder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False)
    model.eval().to(fastest_device())
    flat = [sentence for story in stories for sentence in story]
    vectors = np.zeros((len(flat), model.config.hidden_size))
    batches = evaluation_batches([len(sentence) for sentence in flat], batch_size)
    for batch in tqdm(batches, desc="Embeddings", disable=None, leave=False):
        inputs = tokenizer([flat[i] for i in batch], padding=True, truncation=True, return_tensors="pt")
        inputs = inputs.to(model.device)
        with torch.inference_mode():
            hidden = model(**inputs).last_hidden_state.double()
        mask = inputs["attention_mask"].unsqueeze(-1)
        means = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
        vectors[batch] = torch.nn.functional.normalize(means, dim=1).cpu().numpy()
    return np.split(vectors, np.cumsum([len(story) for story in stories])[:-1])


if __name__ == "__main__":
    sys.exit(run_script(main))
