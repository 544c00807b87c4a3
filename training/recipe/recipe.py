"""The recipe: everything that decides what a training run gives, for all frameworks alike."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from transformers.training_args import OptimizerNames

from modeling_sentence_ordering.configuration_sentence_ordering import (
    HEADS,
    READINGS,
    TARGET_SCALES,
    is_scratch_encoder,
)
from modeling_sentence_ordering.objectives_sentence_ordering import OBJECTIVES

from .checks import RecipeError, check_recipe

__all__ = ["Recipe", "RecipeError"]

# Fields that say where a run stood, and have no part in the model that it makes.
_OF_THIS_MACHINE = ("output_dir", "resume_from_checkpoint", "overwrite_output_dir", "report_to")

FRAMEWORKS = ("trainer", "lightning", "poutyne")
SCHEDULES = ("linear", "cosine", "constant", "constant_with_warmup")
# What transformers knows by name, but for those that step while gradients are computed: their gradients can be neither
# accumulated nor clipped by the recipe.
OPTIMIZERS = tuple(
    name.value for name in OptimizerNames if "layerwise" not in name.value and name.value not in ("lomo", "adalomo")
)
METRICS = ("kendalls_tau", "accuracy", "pmr", "loss")


def _of(text: str, **extra: Any) -> dict[str, Any]:
    return {"help": text, **extra}


@dataclass
class Recipe:
    """What is trained, on what, and how. Fields that `transformers.TrainingArguments` has are named as there."""

    encoder: str = field(
        default="", metadata=_of("Encoder: an id on the Hub, a folder, 'minilm' (from PyPI), 'cnn' or 'rnn'.")
    )
    data: list[str] = field(
        default_factory=list,
        metadata=_of("Stories: 'sample', an id on the Hub, files or folders (CSV, TSV, JSON, Parquet, text)."),
    )
    output_dir: str = field(default="", metadata=_of("Folder for the trained model, a complete Hub repository."))
    validation_data: list[str] | None = field(
        default=None, metadata=_of("Stories to validate on; then all of --data is trained on.")
    )
    split_sentences: str | None = field(
        default=None,
        metadata=_of(
            "Language of prose to split into sentences, such as en: of text files, and of a column text, abstract or "
            "story. Needs the extra 'split'."
        ),
    )
    max_train_samples: int | None = field(
        default=None, metadata=_of("Train on the first so many training stories only; on all, if not given.")
    )
    streaming: bool = field(
        default=False,
        metadata=_of("Read --data, Parquet files or an id on the Hub, while it is trained on: more than memory holds."),
    )
    shuffle_buffer_size: int = field(
        default=10_000, metadata=_of("Stories among which one is shuffled, with --streaming.")
    )
    framework: str = field(default="trainer", metadata=_of("Which framework trains.", choices=list(FRAMEWORKS)))
    objective: str = field(
        default="mse",
        metadata=_of(
            "Training objective: squared error of the places (mse), or of the order alone (pairwise, listmle, "
            "position_listmle).",
            choices=sorted(OBJECTIVES),
        ),
    )
    target_scale: str = field(
        default="index",
        metadata=_of(
            "What mse regresses on: the raw index, or 'unit' for index / (N - 1), for stories of varying length.",
            choices=list(TARGET_SCALES),
        ),
    )
    reading: str | None = field(
        default=None,
        metadata=_of(
            "How a sentence is read from the encoder: its marker's state, that plus the mean of its tokens, their "
            "maximum, or the last state; 'marker' for pretrained encoders, if not given.",
            choices=list(READINGS),
        ),
    )
    head: str | None = field(
        default=None,
        metadata=_of(
            "What the model decides: a score for each sentence, or each pair of sentences; 'score' if not given. "
            "'pairs' needs an objective other than mse.",
            choices=list(HEADS),
        ),
    )
    pair_size: int | None = field(
        default=None, metadata=_of("Width of the two projections with --head pairs; 128 if not given.")
    )
    context_layers: int | None = field(
        default=None,
        metadata=_of("Transformer layers over the sentences' vectors before the head; 0 if not given."),
    )
    consistency: float = field(
        default=0.0,
        metadata=_of(
            "Weight of a term that makes two shuffles of a story agree (R-Drop): each story is shown twice in a step. "
            "Needs --objective pairwise; 0 for none."
        ),
    )
    max_input_tokens: int | None = field(
        default=None,
        metadata=_of("Most tokens of a story that the model reads; as many as the encoder takes, if not given."),
    )
    freeze_encoder: bool = field(
        default=False, metadata=_of("Train only what is not the encoder: its weights stay as they are.")
    )
    lora: int | None = field(
        default=None,
        metadata=_of(
            "Train LoRA adapters of this rank in the frozen encoder; they are merged into the saved model. Needs "
            "the extra 'lora'.",
            nargs="?",
            const=8,
        ),
    )
    encoder_config: str | None = field(
        default=None,
        metadata=_of('Fields of the cnn or rnn encoder as JSON, such as \'{"num_filters": 128, "filter_size": 7}\'.'),
    )
    vocab_size: int = field(default=8192, metadata=_of("Size of the vocabulary trained for 'cnn' and 'rnn'."))

    learning_rate: float | None = field(
        default=None, metadata=_of("Highest learning rate; 3e-5, and 1e-3 for 'cnn' and 'rnn', if not given.")
    )
    head_learning_rate: float | None = field(
        default=None,
        metadata=_of("Highest learning rate of what is not the encoder; the same as the encoder's, if not given."),
    )
    per_device_train_batch_size: int = field(default=16, metadata=_of("Stories in one forward pass of training."))
    per_device_train_batch_tokens: int | None = field(
        default=None,
        metadata=_of(
            "Fill batches of training up to so many tokens, padding included, instead of a number of stories."
        ),
    )
    per_device_eval_batch_size: int = field(default=64, metadata=_of("Stories in one forward pass of evaluation."))
    gradient_accumulation_steps: int = field(default=1, metadata=_of("Forward passes for one step of the optimizer."))
    num_train_epochs: float = field(default=3.0, metadata=_of("Passes over the training stories."))
    max_steps: int = field(default=-1, metadata=_of("Steps of the optimizer; overrides the epochs if positive."))
    lr_scheduler_type: str = field(default="linear", metadata=_of("Learning-rate schedule.", choices=list(SCHEDULES)))
    warmup_steps: float = field(
        default=0.1, metadata=_of("Steps of warm-up; below 1 it is a share of all steps, as in TrainingArguments.")
    )
    optim: str = field(default="adamw_torch_fused", metadata=_of("Optimizer.", choices=list(OPTIMIZERS)))
    weight_decay: float = field(default=0.01, metadata=_of("Weight decay, not of biases and norms."))
    adam_beta1: float = field(default=0.9, metadata=_of("AdamW's beta1."))
    adam_beta2: float = field(default=0.999, metadata=_of("AdamW's beta2."))
    adam_epsilon: float = field(default=1e-8, metadata=_of("AdamW's epsilon."))
    max_grad_norm: float = field(default=1.0, metadata=_of("Gradients are clipped to this norm; 0 for no clipping."))
    seed: int = field(
        default=42, metadata=_of("Decides initial weights, order of stories, shuffles of sentences and dropout.")
    )
    shuffle_sentences: str = field(
        default="fresh",
        metadata=_of("A new shuffle of every story in every epoch, or always the same.", choices=["fresh", "fixed"]),
    )
    train_sampling_strategy: str = field(
        default="group_by_length",
        metadata=_of(
            "Order of stories: batches of similar length in random order, or wholly random.",
            choices=["group_by_length", "random"],
        ),
    )
    bf16: bool | None = field(
        default=None,
        metadata=_of("bfloat16 autocast; where the hardware computes in it, if not given.", nargs="?", const=True),
    )
    fp16: bool | None = field(
        default=None,
        metadata=_of(
            "float16 autocast with a scaled loss, on a GPU; on one that does not compute in bfloat16, if neither is "
            "given.",
            nargs="?",
            const=True,
        ),
    )
    fsdp: bool = field(
        default=False,
        metadata=_of(
            "Share weights, gradients and the optimizer's state out to the GPUs (fully sharded data parallel), for "
            "models that are too large to be trained on one."
        ),
    )
    attn_implementation: str | None = field(
        default=None,
        metadata=_of(
            "How a pretrained encoder computes attention: 'sdpa', 'eager', 'flash_attention_2'; what transformers "
            "chooses, if not given."
        ),
    )
    fast_dropout: bool = field(
        default=True,
        metadata=_of(
            "Draw dropout four values at a time, on the CPU: less time for each step. On a GPU, and with "
            "--torch_compile, nothing is different."
        ),
    )
    torch_compile: bool = field(
        default=False, metadata=_of("Compile the encoder: minutes at the start, less time for each step after that.")
    )
    gradient_checkpointing: bool = field(
        default=False, metadata=_of("Recompute activations in the backward pass: less memory, more time.")
    )
    dataloader_num_workers: int = field(default=0, metadata=_of("Processes that prepare batches."))

    eval_strategy: str = field(
        default="epoch", metadata=_of("When to evaluate and save.", choices=["no", "steps", "epoch"])
    )
    eval_steps: int = field(default=500, metadata=_of("Steps between evaluations, with --eval_strategy steps."))
    eval_on_start: bool = field(default=True, metadata=_of("Evaluate on the test split before training, too."))
    logging_steps: int = field(default=10, metadata=_of("Steps between entries of the training log."))
    metric_for_best_model: str = field(
        default="kendalls_tau", metadata=_of("What the best checkpoint is chosen by.", choices=list(METRICS))
    )
    load_best_model_at_end: bool = field(
        default=True, metadata=_of("Keep the best checkpoint by the validation stories, not the last.")
    )
    early_stopping_patience: int = field(
        default=0, metadata=_of("Stop after so many evaluations without a better one; 0 for never.")
    )
    report_to: list[str] = field(
        default_factory=lambda: ["tensorboard"],
        metadata=_of(
            "Where metrics are reported: integrations of transformers such as tensorboard, wandb, mlflow or trackio; "
            "'all' that are installed, or 'none'."
        ),
    )
    save_total_limit: int = field(default=1, metadata=_of("Checkpoints to keep besides the best."))

    test_size: float = field(default=0.2, metadata=_of("Share held out where the data bring no splits."))
    validation_size: float = field(default=0.3, metadata=_of("Share of that which is for validation."))
    data_seed: int = field(default=42, metadata=_of("Seed of the split and of the data set's shuffles."))

    resume_from_checkpoint: str | None = field(
        default=None,
        metadata=_of(
            "Go on from a checkpoint; without a value from the last whole one, or from the beginning if there is none.",
            nargs="?",
            const="last",
        ),
    )
    overwrite_output_dir: bool = field(default=False, metadata=_of("Replace what is in the output folder."))

    def __post_init__(self) -> None:
        """Makes a list of a source that is given by itself, and plain numbers of NumPy's, which JSON does not take."""
        for name in ("data", "validation_data"):
            value = getattr(self, name)
            if isinstance(value, (str, os.PathLike)):
                setattr(self, name, [os.fspath(value)] if os.fspath(value) else [])
        for spec in dataclasses.fields(self):
            value = getattr(self, spec.name)
            if hasattr(value, "item"):
                setattr(self, spec.name, value.item())

    def resolved(self) -> Recipe:
        """The same recipe with everything decided that this machine and the encoder decide."""
        scratch = is_scratch_encoder(self.encoder)
        rate = self.learning_rate if self.learning_rate is not None else (1e-3 if scratch else 3e-5)
        bf16, fp16 = self.bf16, self.fp16
        if bf16 is None:
            bf16 = not fp16 and computes_in_bf16()
            fp16 = not bf16 and has_gpu() if fp16 is None else fp16
        fp16 = bool(fp16)  # not by itself where somebody did not want bf16
        return dataclasses.replace(self, learning_rate=rate, bf16=bf16, fp16=fp16)

    def for_one_process(self, world_size: int) -> Recipe:
        """The recipe by which one process makes the model that so many make by this one."""
        return dataclasses.replace(self, gradient_accumulation_steps=self.gradient_accumulation_steps * world_size)

    @property
    def sources(self) -> list[str]:
        """Whatever stories are read from."""
        return [*self.data, *(self.validation_data or [])]

    @property
    def encoder_name(self) -> str:
        """The encoder's name without folders, for plots, cards and tables."""
        return _without_folders(self.encoder)

    def encoder_fields(self) -> dict[str, Any]:
        """`encoder_config` as a dictionary.

        Raises:
            RecipeError: if it is not a JSON object, or the encoder is a pretrained one.
        """
        if self.encoder_config is None:
            return {}
        try:
            fields = json.loads(self.encoder_config)
        except json.JSONDecodeError as error:
            raise RecipeError(f"--encoder_config is not JSON: {error}") from None
        if not isinstance(fields, dict):
            raise RecipeError("--encoder_config must be a JSON object such as '{\"num_layers\": 2}'")
        if not is_scratch_encoder(self.encoder):
            raise RecipeError("--encoder_config is for the 'cnn' and 'rnn' encoders; others bring their config along")
        return fields

    def total_steps(self, steps_per_epoch: int) -> int:
        """Steps of the optimizer in the whole run."""
        return self.max_steps if self.max_steps > 0 else max(1, math.ceil(self.num_train_epochs * steps_per_epoch))

    def warmup(self, total_steps: int) -> int:
        """Steps of warm-up in a run of so many steps."""
        share = self.warmup_steps < 1
        return math.ceil(total_steps * self.warmup_steps) if share else int(self.warmup_steps)

    def check(self) -> None:
        """See `check_recipe`."""
        check_recipe(self)


def has_gpu() -> bool:
    """Whether there is a CUDA GPU."""
    import torch

    return torch.cuda.is_available()


def computes_in_bf16() -> bool:
    """Whether this machine multiplies matrices in bfloat16: AMX or AVX512-BF16, or CUDA from 8.0 on."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_capability() >= (8, 0)
    checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in checks)


def shareable(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain values that may be published: file names stay, the folders of this machine do not.

    What says where the run stood on this machine (`output_dir`, resuming, overwriting) is left out: what remains,
    given the same data, makes the same model.
    """
    values = dataclasses.asdict(recipe)
    for key in _OF_THIS_MACHINE:
        del values[key]
    values["encoder"] = _without_folders(recipe.encoder)
    for key in ("data", "validation_data"):
        if values[key] is not None:
            values[key] = [_without_folders(source) for source in values[key]]
    return {key: value for key, value in values.items() if value is not None}


def with_later_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """What `shareable` gave, perhaps by an earlier version, with the defaults of fields that came since."""
    defaults = {spec.name: spec.default for spec in dataclasses.fields(Recipe)}
    defaults |= {"fp16": False, "fast_dropout": False}  # what there was when there were no such fields
    later = {name: value for name, value in defaults.items() if value is not dataclasses.MISSING and value is not None}
    return {**{name: value for name, value in later.items() if name not in _OF_THIS_MACHINE}, **values}


def _without_folders(source: str) -> str:
    path = os.path.normpath(source)
    absolute_or_outside = os.path.isabs(path) or path.startswith(("~", ".."))
    return os.path.basename(path) if absolute_or_outside else source
