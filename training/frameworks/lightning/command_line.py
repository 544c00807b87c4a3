"""`LightningCLI` for `SentenceOrderingModule` and `StoryDataModule`, with all options of Lightning.

python -m training.frameworks.lightning.command_line {fit,validate,test,predict} --config CONFIG.yaml ...
"""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from argparse import ArgumentError
from collections.abc import Sequence
from typing import Any, cast

import datasets
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import BasePredictionWriter
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from transformers.utils import logging as transformers_logging

from dataset_builder import UserError
from dataset_builder.file_writing import write_text
from training.system.device import limit_kernel_caches
from training.system.exit_codes import DONE, exit_code
from training.system.interrupts import exit_with

from .data import StoryDataModule
from .framework import interrupts_raised
from .module import SentenceOrderingModule

# A single bound method: jsonargparse makes a class of it, and fails for a second, equal one.
build_module = SentenceOrderingModule.build


class PredictionWriter(BasePredictionWriter):
    """Writes predictions as JSONL: `storyid`, `order` and `scores` of each test story.

    Args:
        output: the file; with several processes, each writes its share to a file with the rank at the end.
    """

    def __init__(self, output: str) -> None:
        super().__init__("epoch")
        self.output = output

    def write_on_epoch_end(
        self, trainer: Trainer, pl_module: LightningModule, predictions: Sequence[Any], batch_indices: Sequence[Any]
    ) -> None:
        """Writes this process's predictions."""
        stories = cast(Any, trainer).datamodule.shown_stories()
        indices = [index for loader in batch_indices for batch in loader for index in batch]
        answers = [answer for batch in predictions for answer in batch]
        rows = [
            {"storyid": stories[i].get("storyid", str(i)), "order": answer["order"], "scores": answer["scores"]}
            for i, answer in zip(indices, answers, strict=True)
        ]
        number = f".{trainer.global_rank}" if trainer.world_size > 1 else ""
        write_text(f"{self.output}{number}", "".join(f"{json.dumps(row)}\n" for row in rows))


class StoryCLI(LightningCLI):
    """`LightningCLI` for a `SentenceOrderingModule` and a `StoryDataModule`."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Links the seeds, and the training stories to the module, for encoders whose tokenizer is trained."""
        parser.link_arguments("model.seed", "data.seed")
        parser.link_arguments(
            "data", "model.stories", compute_fn=StoryDataModule.training_sentences, apply_on="instantiate"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one of Lightning's commands.

    Returns:
        0 for success, 1 for other errors, 2 for bad input, 130 if it was interrupted; each except 0 with one line on
        standard error.
    """
    limit_kernel_caches()
    _quiet_libraries()
    return exit_code(lambda: _run(arguments), sys.argv[1:] if arguments is None else arguments)


def _run(arguments: Sequence[str] | None) -> int:
    in_terminal = sys.stdout.isatty() and sys.stderr.isatty()
    try:
        with interrupts_raised():
            StoryCLI(
                build_module,
                StoryDataModule,
                seed_everything_default=False,  # the recipe's own seed decides
                auto_configure_optimizers=False,
                load_from_checkpoint_support=False,  # our checkpoints are complete
                trainer_defaults={} if in_terminal else {"enable_progress_bar": False, "enable_model_summary": False},
                save_config_kwargs={"overwrite": True},  # so that `fit` can be repeated in one folder
                parser_kwargs={"exit_on_error": False},
                args=None if arguments is None else list(arguments),
            )
    except ArgumentError as error:
        raise UserError(f"{error} (see --help)") from error
    return DONE


def _quiet_libraries() -> None:
    """Silences Lightning's tips and deprecation warnings; progress bars are shown in terminals only."""
    os.environ.setdefault("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1")  # never unpickle code from a checkpoint
    for name in ("pytorch_lightning", "pytorch_lightning.utilities.rank_zero", "lightning_fabric"):
        logging.getLogger(name).addFilter(_is_not_a_tip)
    for category in (DeprecationWarning, FutureWarning):
        warnings.filterwarnings("ignore", category=category, module="pytorch_lightning|lightning_fabric")
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
        transformers_logging.disable_progress_bar()


def _is_not_a_tip(record: logging.LogRecord) -> bool:
    return "Tip:" not in record.getMessage()


if __name__ == "__main__":
    exit_with(main())
