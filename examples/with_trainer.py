"""Sentence ordering with the transformers Trainer. The same model by the same recipe as in the two other examples.

python examples/with_trainer.py --encoder minilm --max_steps 240 --output_dir with-trainer
"""

import argparse
from collections.abc import Sequence
from typing import Any

from transformers import EvalPrediction, Trainer, TrainerCallback, TrainingArguments

from dataset_builder.loading import load_stories
from modeling_sentence_ordering import StoryTokenizer, save_tokenizer
from training.data.stories import EvaluationStories, StoryCollator, TokenizedStories, training_loader
from training.evaluation.predictions import Predictions, judge
from training.frameworks.optimization import build_optimizer, build_schedule, seed_step
from training.models.encoders import build_model
from training.recipe.recipe import Recipe


class SeedSteps(TrainerCallback):
    """The dropout of the recipe: each step has its own seed."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        seed_step(Recipe(seed=args.seed), state.global_step)


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--max_steps", type=int, default=240)
    parser.add_argument("--output_dir", default="with-trainer")
    recipe = Recipe(**vars(parser.parse_args(arguments)), learning_rate=1e-4, bf16=False).resolved()

    splits = load_stories(["sample"])
    model, tokenizer = build_model(recipe, splits["train"]["sentences"])
    encode = StoryTokenizer(tokenizer, model.config)
    stories = {name: TokenizedStories(split, encode) for name, split in splits.items()}

    # Batches of the recipe: stories of similar length together, sentences shuffled anew in every epoch.
    class StoryTrainer(Trainer):
        def get_train_dataloader(self) -> Any:
            return training_loader(stories["train"], recipe)

    def compute_metrics(prediction: EvalPrediction) -> Any:
        scores, mask = prediction.predictions  # one score a sentence, not one a token
        return judge(Predictions(scores, prediction.label_ids, mask.astype(bool)), model.config)

    optimizer = build_optimizer(model, recipe)
    trainer = StoryTrainer(
        model,  # its loss is in it: nothing of Trainer's is overridden for it
        TrainingArguments(recipe.output_dir, max_steps=recipe.max_steps, seed=recipe.seed, max_grad_norm=1.0,
                          per_device_eval_batch_size=64, eval_strategy="epoch", save_strategy="no",
                          remove_unused_columns=False, label_names=["labels"], report_to="none"),
        data_collator=StoryCollator(encode),
        train_dataset=stories["train"],
        eval_dataset=EvaluationStories(stories["validation"]),
        compute_metrics=compute_metrics,
        callbacks=[SeedSteps()],
        optimizers=(optimizer, build_schedule(optimizer, recipe, recipe.max_steps)),
    )  # fmt: skip
    trainer.train()
    metrics = trainer.evaluate(EvaluationStories(stories["test"]), metric_key_prefix="test")
    model.save_pretrained(recipe.output_dir)  # a whole repository for the Hub, with the tokenizer
    save_tokenizer(tokenizer, recipe.output_dir)
    print(f"test: tau {metrics['test_kendalls_tau']:.4f}, accuracy {metrics['test_accuracy']:.4f}")
    return metrics


if __name__ == "__main__":
    main()
