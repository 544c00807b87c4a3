"""Sentence ordering with PyTorch Lightning. The same model by the same recipe as in the two other examples.

python examples/with_lightning.py --encoder minilm --max_steps 240 --output_dir with-lightning
"""

import argparse
from collections.abc import Mapping, Sequence

from pytorch_lightning import Trainer

from dataset_builder.loading import load_stories
from training.frameworks.lightning.checkpoints import checkpoint_to_folder
from training.frameworks.lightning.data import StoryDataModule
from training.frameworks.lightning.module import SentenceOrderingModule


def main(arguments: Sequence[str] | None = None) -> Mapping[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--max_steps", type=int, default=240)
    parser.add_argument("--output_dir", default="with-lightning")
    options = parser.parse_args(arguments)

    # The module has loss, metrics, optimizer, schedule and the seed of each step's dropout.
    module = SentenceOrderingModule.build(
        options.encoder,
        stories=load_stories(["sample"])["train"]["sentences"],  # `cnn` and `rnn` train their tokenizer on them
        learning_rate=1e-4,
    )
    # Batches as in the other examples; by themselves also right under several processes and after resuming.
    stories = StoryDataModule(
        ["sample"],
        per_device_train_batch_size=8,
        per_device_eval_batch_size=64,
        train_sampling_strategy="random",
        shuffle_sentences="fixed",
    )

    # Everything else is Lightning's own: any callback, logger, strategy and precision may come here.
    trainer = Trainer(
        max_steps=options.max_steps,
        accumulate_grad_batches=2,
        gradient_clip_val=1.0,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        logger=False,
    )
    trainer.fit(module, datamodule=stories)
    (metrics,) = trainer.test(module, datamodule=stories, verbose=False)

    # A checkpoint holds all there is, and becomes a whole repository for the Hub without anything else.
    trainer.save_checkpoint(f"{options.output_dir}.ckpt")
    checkpoint_to_folder(f"{options.output_dir}.ckpt", options.output_dir)
    print(f"test: tau {metrics['test_kendalls_tau']:.4f}, accuracy {metrics['test_accuracy']:.4f}")
    return metrics


if __name__ == "__main__":
    main()
