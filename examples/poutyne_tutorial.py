"""Poutyne step by step on sentence ordering: load data, fit, log, resume, evaluate, predict.

python examples/poutyne_tutorial.py --encoder minilm --output_dir poutyne-tutorial
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import poutyne
import torch
from accelerate.data_loader import SeedableRandomSampler
from datasets import load_dataset
from torch.utils.data import DataLoader

from modeling_sentence_ordering import save_tokenizer
from training import (
    GradientClipping,
    PassEpoch,
    Recipe,
    SeedSteps,
    TransformerCollator,
    build_experiment,
    build_model,
)

BUILDER = Path(__file__).parents[1] / "dataset_builder"


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--max_train_samples", type=int, default=320)
    parser.add_argument("--output_dir", default="poutyne-tutorial")
    options = parser.parse_args(arguments)
    folder = Path(options.output_dir)

    # Load data. The order of the stories depends on the epoch, so that a resumed run sees the same batches.
    script, sample = str(BUILDER / "shuffled_rocstories.py"), str(BUILDER / "sample" / "sample_stories.csv")
    data = load_dataset(script, data_files=sample, trust_remote_code=True)
    rows = data["train"].select(range(options.max_train_samples))
    model, tokenizer = build_model(Recipe(encoder=options.encoder), rows["sentences"])
    collate = TransformerCollator(model.data_collator(tokenizer))
    training = DataLoader(rows, 16, sampler=SeedableRandomSampler(rows, data_seed=42), collate_fn=collate)
    validation, test = (DataLoader(data[name], 64, collate_fn=collate) for name in ("validation", "test"))

    # Fit and log. An Experiment keeps the best epoch, and writes log.tsv and logs for TensorBoard.
    def train(epochs: int) -> poutyne.ModelBundle:
        model, _ = build_model(Recipe(encoder=options.encoder), rows["sentences"])
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        experiment = build_experiment(folder / "experiment", model, optimizer)
        experiment.train(
            training,
            validation,
            epochs=epochs,
            batches_per_step=2,
            callbacks=[
                PassEpoch(training.sampler),
                SeedSteps(batches_per_step=2),
                GradientClipping(1.0),
                poutyne.EarlyStopping(monitor="val_loss", patience=3),
            ],
        )
        return experiment

    train(options.epochs - 1)

    # Resume: an Experiment in the same folder goes on with the next epoch.
    experiment = train(options.epochs)

    # Evaluate the best epoch.
    tested = experiment.test(test, checkpoint="best", verbose=False)

    # Predict the order of stories without labels and of unequal length.
    unordered = [["He ate it.", "Tom baked a cake."], ["It was good.", "He sat down.", "He ate."]]
    unlabelled = TransformerCollator(model.data_collator(tokenizer), label_names=None)
    loader: DataLoader[Any] = DataLoader([{"sentences": story} for story in unordered], 1, collate_fn=unlabelled)  # type: ignore[arg-type]
    predicted = experiment.infer(loader, checkpoint="best", verbose=False)
    orders = [
        scores[there].argsort().tolist()
        for scores, there in zip(predicted["logits"], predicted["sentence_mask"], strict=True)
    ]

    # Save a repository for the Hub.
    experiment.model.save_pretrained(folder / "model")
    save_tokenizer(tokenizer, folder / "model")
    print(f"test: tau {tested['test_kendalls_tau']:.4f}; {' '.join(unordered[0][i] for i in orders[0])}")
    return {**tested, "epochs": len(experiment.get_stats()), "orders": orders}


if __name__ == "__main__":
    main()
