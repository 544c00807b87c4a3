"""A classifier of pairs: the encoder reads two sentences, `A [SEP] B`, and says whether A comes before B."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset as TorchDataset
from tqdm import tqdm
from transformers import AutoModelForSequenceClassification, PrinterCallback, Trainer, set_seed
from transformers.trainer_utils import get_last_checkpoint

from modeling_sentence_ordering import load_tokenizer
from training.data.batches import Draw, StoryBatchSampler, evaluation_batches
from training.data.stories import StoryLoader, TokenizedStories, training_sampler
from training.frameworks.optimization import build_optimizer, build_schedule
from training.frameworks.run import TrainingRun
from training.frameworks.trainer.framework import training_arguments
from training.frameworks.training_log import TrainingLog
from training.models.encoders import resolve_encoder
from training.recipe.recipe import Recipe
from training.system.device import fastest_device

Pair = tuple[str, str, int]


class StoryPairs(TorchDataset[Pair]):
    """Every ordered pair of sentences of every story, with 1 if the first of them comes first, else 0."""

    def __init__(self, stories: Sequence[Sequence[str]]) -> None:
        self.stories = stories
        self.pairs = np.array([(index, *pair) for index, story in enumerate(stories) for pair in _pairs(len(story))])

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, draw: Draw) -> Pair:
        story, one, other = self.pairs[draw.index]
        return self.stories[story][one], self.stories[story][other], int(one < other)

    def lengths(self, tokens: Sequence[Sequence[int]], special: int) -> np.ndarray:
        """Tokens of each pair, from those of each sentence and the special ones that a pair has besides."""
        flat = np.array([count for story in tokens for count in story])
        starts = np.cumsum([0] + [len(story) for story in tokens])[self.pairs[:, 0]]
        return flat[starts + self.pairs[:, 1]] + flat[starts + self.pairs[:, 2]] + special


def _pairs(length: int) -> Iterator[tuple[int, int]]:
    return ((one, other) for one in range(length) for other in range(length) if one != other)


class _PairCollator:
    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def __call__(self, pairs: Sequence[Pair]) -> dict[str, torch.Tensor]:
        first, second, labels = zip(*pairs, strict=True)
        batch = self.tokenizer(list(first), list(second), padding=True, truncation=True, return_tensors="pt")
        return {**batch, "labels": torch.tensor(labels)}


class _PairTrainer(Trainer):
    """`Trainer` on batches that are made elsewhere."""

    def __init__(self, loader: StoryLoader, **options: Any) -> None:
        self._loader = loader
        super().__init__(**options)

    def get_train_dataloader(self) -> StoryLoader:
        return self._loader


def train_pair_classifier(
    recipe: Recipe, stories: TokenizedStories, folder: Path, budget: float = 1.0
) -> dict[str, int]:
    """Trains a classifier and saves it; from its last checkpoint, if it was interrupted.

    The budget is that of the recipe: as many steps, and in each batch as many tokens as in a batch of whole stories,
    so that the seconds are about the same. The last weights are kept; no validation story is looked at.

    Args:
        recipe: resolved; says the encoder, the optimizer and how long.
        stories: to train on.
        folder: where the classifier goes, and its checkpoints meanwhile.
        budget: so many times the recipe's steps.

    Returns:
        `stories`, `pairs` (drawn in all, of how many `pairs_there_are`), `steps` and `pairs_in_a_batch`.
    """
    set_seed(recipe.seed)
    name = resolve_encoder(recipe.encoder)
    tokenizer = load_tokenizer(name)
    model = AutoModelForSequenceClassification.from_pretrained(
        name, num_labels=2, use_safetensors=True, trust_remote_code=False
    )
    pairs = StoryPairs(stories.stories["sentences"])
    dataset: Any = pairs  # of pairs, where the loader's type says stories
    tokens = [[len(ids) for ids in stories.sentence_ids(index)] for index in range(len(stories))]
    lengths = pairs.lengths(tokens, tokenizer.num_special_tokens_to_add(pair=True))
    size = max(1, round(recipe.per_device_train_batch_size * stories.lengths.mean() / lengths.mean()))
    steps = max(1, round(budget * recipe.total_steps(training_sampler(stories, recipe).steps_per_epoch)))
    loader = StoryLoader(
        dataset,
        batch_sampler=StoryBatchSampler(
            lengths, size, gradient_accumulation_steps=recipe.gradient_accumulation_steps, seed=recipe.seed
        ),
        collate_fn=_PairCollator(tokenizer),
        generator=torch.Generator().manual_seed(recipe.seed),
    )
    folder.mkdir(parents=True, exist_ok=True)
    own = replace(recipe, output_dir=str(folder), eval_strategy="steps", eval_steps=max(1, steps // 10))
    log = TrainingLog(folder / "training_log.csv")
    run = TrainingRun(own, model, tokenizer, stories, log=log)
    optimizer = build_optimizer(model, recipe)
    trainer = _PairTrainer(
        loader,
        model=model,
        args=training_arguments(own, run, steps),
        train_dataset=pairs,
        optimizers=(optimizer, build_schedule(optimizer, recipe, steps)),
    )
    # Its loss is a mean over the batch, whatever Trainer concludes from the arguments of its `forward`.
    trainer.model_accepts_loss_kwargs = False
    trainer.remove_callback(PrinterCallback)
    checkpoints = run.checkpoints
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None)
    trainer.save_model(str(folder))
    tokenizer.save_pretrained(folder)
    drawn = steps * recipe.gradient_accumulation_steps * size
    return {"stories": len(stories), "pairs": drawn, "pairs_there_are": len(pairs), "steps": steps,
            "pairs_in_a_batch": size}  # fmt: skip


def pair_probabilities(folder: Path, stories: Sequence[Sequence[str]], batch_size: int) -> list[np.ndarray]:
    """For each story, `(sentences, sentences)`: the probability that row comes before column; 0.5 for itself.

    Every pair is read both ways, N (N - 1) short sequences for a story of N sentences.
    """
    tokenizer = load_tokenizer(str(folder))
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False)
    model.eval().to(fastest_device())
    found = [np.full((len(story), len(story)), 0.5) for story in stories]
    pairs = [(index, *pair) for index, story in enumerate(stories) for pair in _pairs(len(story))]
    characters = [len(stories[index][one]) + len(stories[index][other]) for index, one, other in pairs]
    for batch in tqdm(evaluation_batches(characters, batch_size), desc="Pairs", disable=None, leave=False):
        chosen = [pairs[i] for i in batch]
        first, second = ([stories[pair[0]][pair[place]] for pair in chosen] for place in (1, 2))
        inputs = tokenizer(first, second, padding=True, truncation=True, return_tensors="pt").to(model.device)
        with torch.inference_mode():
            probabilities = model(**inputs).logits.softmax(dim=1)[:, 1].tolist()
        for (index, one, other), probability in zip(chosen, probabilities, strict=True):
            found[index][one, other] = probability
    return found
