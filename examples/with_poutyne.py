"""Sentence ordering with Poutyne. The same model by the same recipe as in the two other examples.

python examples/with_poutyne.py --encoder minilm --max_steps 240 --output_dir with-poutyne
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from typing import Any

from poutyne import Callback

from dataset_builder.loading import load_stories
from modeling_sentence_ordering import StoryTokenizer, save_tokenizer
from training.data.stories import TokenizedStories, evaluation_loader, training_loader
from training.frameworks.optimization import build_optimizer, build_schedule, seed_step
from training.frameworks.poutyne.adapters import TransformerCollator
from training.frameworks.poutyne.callbacks import GradientClipping, PassEpoch, StepSchedule
from training.frameworks.poutyne.experiment import build_experiment
from training.models.encoders import build_model
from training.recipe.recipe import Recipe


class SeedSteps(Callback):
    """The dropout of the recipe: each step has its own seed."""

    batch = 0

    def on_train_batch_begin(self, batch_number: int, logs: Any) -> None:
        if self.batch % 2 == 0:
            seed_step(Recipe(), self.batch // 2)
        self.batch += 1


def main(arguments: Sequence[str] | None = None) -> Mapping[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--max_steps", type=int, default=240, help="whole epochs, or less than one")
    parser.add_argument("--output_dir", default="with-poutyne")
    recipe = Recipe(
        **vars(parser.parse_args(arguments)), learning_rate=1e-4, bf16=False,
        per_device_train_batch_size=8, gradient_accumulation_steps=2,
        train_sampling_strategy="random", shuffle_sentences="fixed",
    ).resolved()  # fmt: skip

    splits = load_stories(["sample"])
    model, tokenizer = build_model(recipe, splits["train"]["sentences"])
    encode = StoryTokenizer(tokenizer, model.config)
    stories = {name: TokenizedStories(split, encode) for name, split in splits.items()}

    # Poutyne wants (x, y); the model wants everything as x and has the loss itself. The collator stands between them.
    training = training_loader(stories["train"], recipe)
    validation, test = (evaluation_loader(stories[name], batch_size=64) for name in ("validation", "test"))
    for loader in (training, validation, test):
        loader.collate_fn = TransformerCollator(loader.collate_fn)

    # As it comes, an Experiment ends with its best epoch. Here all three end with the last.
    experiment = build_experiment(
        f"{recipe.output_dir}-run", model, build_optimizer(model, recipe), logging=False, monitoring=False
    )
    experiment.train(
        training,
        validation,
        epochs=math.ceil(recipe.max_steps * 2 / len(training)),
        steps_per_epoch=min(recipe.max_steps * 2, len(training)),
        batches_per_step=2,
        lr_schedulers=[StepSchedule(build_schedule, recipe, recipe.max_steps)],
        callbacks=[PassEpoch(training), SeedSteps(), GradientClipping(1.0)],
    )
    metrics = experiment.test(test, checkpoint="last", verbose=False)
    model.save_pretrained(recipe.output_dir)  # a whole repository for the Hub, with the tokenizer
    save_tokenizer(tokenizer, recipe.output_dir)
    print(f"test: tau {metrics['test_kendalls_tau']:.4f}, accuracy {metrics['test_accuracy']:.4f}")
    return metrics


if __name__ == "__main__":
    main()
