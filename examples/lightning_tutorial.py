"""PyTorch Lightning step by step on sentence ordering: load data, fit, log, resume, evaluate, predict.

python examples/lightning_tutorial.py --encoder minilm --output_dir lightning-tutorial
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, load_dataset
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger

from training import Recipe, SentenceOrderingModule, StoryDataModule, build_model, checkpoint_to_folder

BUILDER = Path(__file__).parents[1] / "dataset_builder"


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--max_epochs", type=int, default=3)
    parser.add_argument("--max_train_samples", type=int, default=320)
    parser.add_argument("--output_dir", default="lightning-tutorial")
    options = parser.parse_args(arguments)
    folder = Path(options.output_dir)

    # Load data: a DatasetDict. StoryDataModule also takes a Dataset, or the names of files as `--data` does.
    script, sample = str(BUILDER / "shuffled_rocstories.py"), str(BUILDER / "sample" / "sample_stories.csv")
    data = load_dataset(script, data_files=sample, trust_remote_code=True)
    data["train"] = data["train"].select(range(options.max_train_samples))
    model, tokenizer = build_model(Recipe(encoder=options.encoder), data["train"]["sentences"])
    stories = StoryDataModule(data, tokenizer, per_device_train_batch_size=16)

    # Fit and log, with any callback and logger of Lightning.
    def train(max_epochs: int, checkpoint: str | None = None) -> tuple[Trainer, ModelCheckpoint]:
        kept = ModelCheckpoint(folder / "checkpoints", monitor="val_kendalls_tau", mode="max", save_last=True)
        trainer = Trainer(
            max_epochs=max_epochs,
            accumulate_grad_batches=2,
            gradient_clip_val=1.0,
            logger=CSVLogger(folder, "logs"),
            log_every_n_steps=1,
            callbacks=[kept, EarlyStopping("val_loss", patience=3), LearningRateMonitor("step")],
        )
        module = SentenceOrderingModule(model, tokenizer, learning_rate=1e-4, lr_scheduler_type="constant")
        trainer.fit(module, datamodule=stories, ckpt_path=checkpoint, weights_only=True)
        return trainer, kept

    trainer, kept = train(options.max_epochs - 1)

    # Resume from a checkpoint, for one epoch more.
    trainer, kept = train(options.max_epochs, kept.last_model_path)

    # Evaluate the best checkpoint. A checkpoint contains everything: the encoder is not needed any more.
    best = SentenceOrderingModule.load_from_checkpoint(kept.best_model_path)
    (validated,) = trainer.validate(best, datamodule=stories, verbose=False)
    (tested,) = trainer.test(best, datamodule=stories, verbose=False)

    # Predict the order of stories without labels.
    unordered = Dataset.from_dict({"sentences": [["He ate it.", "Tom baked a cake."], ["She woke.", "She slept."]]})
    batches = trainer.predict(best, datamodule=StoryDataModule(unordered)) or []
    answers = [answer for batch in batches for answer in batch]

    # Make a checkpoint a repository for the Hub.
    checkpoint_to_folder(kept.best_model_path, folder / "model")
    print(f"test: tau {tested['test_kendalls_tau']:.4f}; {' '.join(answers[0]['sentences'])}")
    return {**validated, **tested, "epochs": trainer.current_epoch, "answers": answers}


if __name__ == "__main__":
    main()
