"""Sentence ordering with the transformers Trainer. The same model by the same recipe as in the two other examples.

python examples/with_trainer.py --encoder minilm --max_steps 270 --output_dir with-trainer
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from datasets import load_dataset
from transformers import Trainer, TrainingArguments

from modeling_sentence_ordering import DataCollatorForSentenceOrdering, compute_metrics, save_tokenizer
from training import Recipe, StepSeedCallback, build_model

BUILDER = Path(__file__).parents[1] / "dataset_builder"


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--max_steps", type=int, default=270)
    parser.add_argument("--output_dir", default="with-trainer")
    options = parser.parse_args(arguments)
    script, sample = str(BUILDER / "shuffled_rocstories.py"), str(BUILDER / "sample" / "sample_stories.csv")
    data = load_dataset(script, data_files=sample, trust_remote_code=True)
    model, tokenizer = build_model(Recipe(encoder=options.encoder), data["train"]["sentences"])
    # The callback gives every framework the same dropout, and a resumed run that of an uninterrupted one.
    training = TrainingArguments(options.output_dir, max_steps=options.max_steps, per_device_train_batch_size=8,
                                 gradient_accumulation_steps=2, per_device_eval_batch_size=64, learning_rate=1e-4,
                                 warmup_steps=0.1, weight_decay=0.01, max_grad_norm=1.0, eval_strategy="epoch",
                                 save_strategy="no", remove_unused_columns=False, report_to="none")  # fmt: skip
    trainer = Trainer(model, training, DataCollatorForSentenceOrdering(tokenizer, model.config), data["train"],
                      data["validation"], compute_metrics=compute_metrics, callbacks=[StepSeedCallback()])  # fmt: skip
    trainer.train()
    metrics = trainer.evaluate(data["test"], metric_key_prefix="test")
    trainer.save_model()
    save_tokenizer(tokenizer, options.output_dir)
    print(f"test: tau {metrics['test_kendalls_tau']:.4f}, accuracy {metrics['test_accuracy']:.4f}")
    return metrics


if __name__ == "__main__":
    main()
