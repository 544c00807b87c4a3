"""Sentence ordering with PyTorch Lightning. The same model by the same recipe as in the two other examples.

python examples/with_lightning.py --encoder minilm --max_steps 270 --output_dir with-lightning
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from datasets import load_dataset
from pytorch_lightning import Trainer

from training import Recipe, SentenceOrderingModule, StoryDataModule, build_model, checkpoint_to_folder

BUILDER = Path(__file__).parents[1] / "dataset_builder"


def main(arguments: Sequence[str] | None = None) -> Mapping[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--max_steps", type=int, default=270)
    parser.add_argument("--output_dir", default="with-lightning")
    options = parser.parse_args(arguments)

    script, sample = str(BUILDER / "shuffled_rocstories.py"), str(BUILDER / "sample" / "sample_stories.csv")
    data = load_dataset(script, data_files=sample, trust_remote_code=True)
    model, tokenizer = build_model(Recipe(encoder=options.encoder), data["train"]["sentences"])
    module = SentenceOrderingModule(model, tokenizer, learning_rate=1e-4)
    stories = StoryDataModule(data, tokenizer, per_device_train_batch_size=8, per_device_eval_batch_size=64,
                              train_sampling_strategy="random", shuffle_sentences="fixed")  # fmt: skip
    trainer = Trainer(max_steps=options.max_steps, accumulate_grad_batches=2, gradient_clip_val=1.0,
                      default_root_dir=options.output_dir, enable_checkpointing=False, logger=False)  # fmt: skip
    trainer.fit(module, datamodule=stories)
    (metrics,) = trainer.test(module, datamodule=stories, verbose=False)
    trainer.save_checkpoint(f"{options.output_dir}.ckpt")
    checkpoint_to_folder(f"{options.output_dir}.ckpt", options.output_dir)  # a whole repository for the Hub
    print(f"test: tau {metrics['test_kendalls_tau']:.4f}, accuracy {metrics['test_accuracy']:.4f}")
    return metrics


if __name__ == "__main__":
    main()
