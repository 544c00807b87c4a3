"""What the documentation of `Trainer` teaches, step by step: data, training, resuming, evaluation, prediction, search.

python examples/trainer_tutorial.py --encoder minilm --max_steps 240 --output_dir trainer-tutorial
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import load_dataset
from transformers import Trainer, TrainingArguments, set_seed

from modeling_sentence_ordering import DataCollatorForSentenceOrdering, compute_metrics
from training import Recipe, StepSeedCallback, build_model

BUILDER = Path(__file__).parents[1] / "dataset_builder"


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--max_steps", type=int, default=240)
    parser.add_argument("--n_trials", type=int, default=3)
    parser.add_argument("--output_dir", default="trainer-tutorial")
    options = parser.parse_args(arguments)

    # Data: `map` turns sentences into ids once, and Trainer drops the other columns.
    script, sample = str(BUILDER / "shuffled_rocstories.py"), str(BUILDER / "sample" / "sample_stories.csv")
    data = load_dataset(script, data_files=sample, trust_remote_code=True)
    model, tokenizer = build_model(Recipe(encoder=options.encoder), data["train"]["sentences"])
    collator = DataCollatorForSentenceOrdering(tokenizer, model.config, shuffle=True)  # anew in every epoch
    data = data.map(collator.tokenize, batched=True)

    def new_model(_trial: Any = None) -> Any:
        set_seed(42)
        return build_model(Recipe(encoder=options.encoder), data["train"]["sentences"])[0]

    def new_trainer(max_steps: int) -> Trainer:
        return Trainer(
            args=TrainingArguments(
                options.output_dir,
                max_steps=max_steps,
                per_device_train_batch_size=16,
                learning_rate=1e-4,
                eval_strategy="steps",
                eval_steps=options.max_steps // 2,
                save_steps=options.max_steps // 2,
                load_best_model_at_end=True,
                metric_for_best_model="kendalls_tau",
                logging_steps=5,
                report_to="tensorboard",  # tensorboard --logdir trainer-tutorial
            ),
            model_init=new_model,
            data_collator=collator,
            train_dataset=data["train"],
            eval_dataset=data["validation"],
            compute_metrics=compute_metrics,
            callbacks=[StepSeedCallback()],
        )

    # Training, and longer training from the last checkpoint. A run that was interrupted is resumed the same way.
    new_trainer(options.max_steps // 2).train()
    trainer = new_trainer(options.max_steps)
    trainer.train(resume_from_checkpoint=True)

    # Evaluation, and the order of a story whose order is not known: its sentences, sorted by their scores.
    metrics = trainer.evaluate(data["test"], metric_key_prefix="test")
    collator.shuffle = False
    unknown = data["test"].select([0]).remove_columns("labels")
    scores = trainer.predict(unknown).predictions[0]
    ordered = [sentence for _, sentence in sorted(zip(scores, unknown[0]["sentences"], strict=True))]
    print("\n".join(ordered))

    # A search for a learning rate; by default Trainer would add up all metrics.
    collator.shuffle = True
    best = trainer.hyperparameter_search(
        hp_space=lambda trial: {"learning_rate": trial.suggest_float("learning_rate", 1e-5, 1e-2, log=True)},
        compute_objective=lambda metrics: metrics["eval_kendalls_tau"],
        direction="maximize",
        backend="optuna",
        n_trials=options.n_trials,
    )
    print(f"test tau {metrics['test_kendalls_tau']:.4f}; best of {options.n_trials} trials: {best.hyperparameters}")
    return {**metrics, "ordered": ordered, "best": best}


if __name__ == "__main__":
    main()
