"""The recipe: every setting that decides the result of a training run, in any framework."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .checks import check_recipe
from .settings import RecipeError, setting

__all__ = ["Recipe", "RecipeError"]

# Fields that say where a run was made. They have no influence on the model.
_OF_THIS_MACHINE = ("output_dir", "resume_from_checkpoint", "overwrite_output_dir", "report_to")

FRAMEWORKS = ("trainer", "lightning", "poutyne")
SCHEDULES = ("linear", "cosine", "constant", "constant_with_warmup")
METRICS = ("kendalls_tau", "accuracy", "pmr", "loss")
# Names of the modeling package, which is not imported here because it imports torch: `--help` would wait for it.
OBJECTIVES = ("listmle", "mse", "pairwise", "position_listmle")
TARGET_SCALES = ("index", "unit")
READINGS = ("marker", "marker_and_mean", "max", "last")
HEADS = ("score", "pairs")


def optimizers() -> tuple[str, ...]:
    """Optimizers that transformers knows by name.

    Without those that step while gradients are computed: their gradients can be neither accumulated nor clipped.
    """
    from transformers.training_args import OptimizerNames  # imports torch

    names = (name.value for name in OptimizerNames)
    return tuple(name for name in names if "layerwise" not in name and name not in ("lomo", "adalomo"))


@dataclass
class Recipe:
    """Encoder, data and settings of a training run. Fields of `transformers.TrainingArguments` are named as there."""

    encoder: str = setting("", "Encoder: an id on the Hub, a folder, 'minilm' (from PyPI), 'cnn' or 'rnn'.")
    data: list[str] = setting(
        [], "Stories: 'sample', 'sample-long', an id on the Hub, files or folders (CSV, TSV, JSON, Parquet, text)."
    )
    output_dir: str = setting("", "Folder for the trained model, a complete Hub repository.")
    validation_data: list[str] | None = setting(None, "Stories to validate on; then all of --data is trained on.")
    split_sentences: str | None = setting(
        None,
        "Language of prose to split into sentences, such as en: in text files, and in a column text, abstract or "
        "story. Needs the extra 'split'.",
    )
    max_train_samples: int | None = setting(
        None, "Train on the first N training stories only; on all by default.", at_least=1
    )
    passage_sentences: list[int] | None = setting(
        None,
        "Train on passages of MIN to MAX consecutive sentences, drawn anew from each longer text in every epoch, and "
        "evaluate on fixed ones; texts that are too long for the encoder are cut by default.",
        metavars=("MIN", "MAX"),
        at_least=2,
    )
    streaming: bool = setting(
        False, "Read --data (Parquet files or an id on the Hub) during training, for data that do not fit into memory."
    )
    shuffle_buffer_size: int = setting(10_000, "Size of the shuffle buffer in stories, with --streaming.", at_least=1)
    framework: str = setting("trainer", "Training framework.", choices=FRAMEWORKS)
    objective: str = setting(
        "mse",
        "Training objective: squared error of the positions (mse), or a ranking loss (pairwise, listmle, "
        "position_listmle).",
        choices=OBJECTIVES,
    )
    target_scale: str = setting(
        "index",
        "Targets of mse: the position (index), or position / (N - 1) (unit), for stories of varying length.",
        choices=TARGET_SCALES,
    )
    reading: str | None = setting(
        None,
        "How the vector of a sentence is made from the encoder's states: the marker's state, that plus the mean of its "
        "tokens, their maximum, or the last state; 'marker' for pretrained encoders by default.",
        choices=READINGS,
    )
    head: str | None = setting(
        None,
        "What the model predicts: a score for each sentence (the default), or the order of each pair of sentences. "
        "'pairs' needs an objective other than mse.",
        choices=HEADS,
    )
    pair_size: int | None = setting(None, "Width of the two projections of --head pairs; 128 by default.", at_least=1)
    context_layers: int | None = setting(
        None, "Transformer layers over the sentence vectors, before the head; 0 by default.", at_least=0
    )
    consistency: float = setting(
        0.0,
        "Weight of a term that makes two shuffles of a story agree (R-Drop): each story is used twice in a step. "
        "Needs --objective pairwise; 0 for none.",
        at_least=0,
    )
    max_input_tokens: int | None = setting(
        None, "Longest input in tokens; as many as the encoder takes by default.", at_least=8
    )
    freeze_encoder: bool = setting(False, "Do not train the weights of the encoder.")
    lora: int | None = setting(
        None,
        "Train LoRA adapters of this rank in the frozen encoder; they are merged into the saved model. Needs "
        "the extra 'lora'.",
        bare=8,
        at_least=1,
    )
    encoder_config: str | None = setting(
        None, 'Fields of the cnn or rnn encoder as JSON, such as \'{"num_filters": 128, "filter_size": 7}\'.'
    )
    vocab_size: int = setting(
        8192, "Size of the vocabulary trained for 'cnn' and 'rnn'.", at_least=64, at_most=10_000_000
    )

    learning_rate: float | None = setting(
        None, "Peak learning rate; 3e-5 by default, and 1e-3 for 'cnn' and 'rnn'.", above=0
    )
    head_learning_rate: float | None = setting(
        None,
        "Peak learning rate of all weights outside of the encoder; the same as --learning_rate by default.",
        above=0,
    )
    per_device_train_batch_size: int = setting(16, "Stories in one forward pass in training.", at_least=1)
    per_device_train_batch_tokens: int | None = setting(
        None,
        "Tokens in one forward pass in training, padding included, instead of a number of stories.",
        at_least=1,
    )
    per_device_eval_batch_size: int = setting(64, "Stories in one forward pass in evaluation.", at_least=1)
    gradient_accumulation_steps: int = setting(1, "Forward passes per optimizer step.", at_least=1)
    num_train_epochs: float = setting(3.0, "Epochs: passes over the training stories.", at_least=0)
    max_steps: int = setting(-1, "Optimizer steps; overrides the epochs if positive.")
    lr_scheduler_type: str = setting("linear", "Learning-rate schedule.", choices=SCHEDULES)
    warmup_steps: float = setting(
        0.1, "Warm-up steps; a value below 1 is a share of all steps, as in TrainingArguments.", at_least=0
    )
    optim: str = setting(
        "adamw_torch_fused",
        "Optimizer: a name of transformers' OptimizerNames, such as adamw_torch, sgd or adafactor.",
        choices=optimizers,
    )
    weight_decay: float = setting(0.01, "Weight decay, except for biases and norms.", at_least=0)
    adam_beta1: float = setting(0.9, "AdamW's beta1.", at_least=0, below=1)
    adam_beta2: float = setting(0.999, "AdamW's beta2.", at_least=0, below=1)
    adam_epsilon: float = setting(1e-8, "AdamW's epsilon.", at_least=0)
    max_grad_norm: float = setting(1.0, "Maximum gradient norm for clipping; 0 for no clipping.", at_least=0)
    seed: int = setting(
        42,
        "Random seed of initial weights, order of stories, shuffles of sentences and dropout.",
        at_least=0,
        at_most=2**32 - 1,
    )
    shuffle_sentences: str = setting(
        "fresh",
        "Shuffle each story anew in every epoch (fresh), or always in the same way (fixed).",
        choices=("fresh", "fixed"),
    )
    train_sampling_strategy: str = setting(
        "group_by_length",
        "Order of stories: batches of similar length in random order, or random.",
        choices=("group_by_length", "random"),
    )
    bf16: bool | None = setting(None, "bfloat16 autocast; on by default where the hardware supports it.")
    fp16: bool | None = setting(
        None,
        "float16 autocast with a scaled loss, on a GPU; on by default on a GPU without bfloat16.",
    )
    fsdp: bool = setting(
        False,
        "Fully sharded data parallel: weights, gradients and optimizer state are sharded over the GPUs, for models "
        "that are too large to be trained on one.",
    )
    attn_implementation: str | None = setting(
        None,
        "Attention implementation of a pretrained encoder: 'sdpa', 'eager' or 'flash_attention_2'; chosen by "
        "transformers by default.",
    )
    fast_dropout: bool = setting(
        True,
        "Draw dropout four values at a time, which makes steps on the CPU faster. Without effect on a GPU or with "
        "--torch_compile.",
    )
    torch_compile: bool = setting(
        False, "Compile the encoder with torch.compile: minutes at the start, then faster steps."
    )
    gradient_checkpointing: bool = setting(False, "Recompute activations in the backward pass: less memory, more time.")
    dataloader_num_workers: int = setting(0, "Worker processes that prepare batches.", at_least=0)

    eval_strategy: str = setting("epoch", "When to evaluate and save.", choices=("no", "steps", "epoch"))
    eval_steps: int = setting(500, "Steps between evaluations, with --eval_strategy steps.", at_least=1)
    eval_on_start: bool = setting(True, "Evaluate on the test split before training as well.")
    logging_steps: int = setting(10, "Steps between entries of the training log.", at_least=1)
    metric_for_best_model: str = setting(
        "kendalls_tau", "Metric by which the best checkpoint is chosen.", choices=METRICS
    )
    load_best_model_at_end: bool = setting(
        True, "Load the best checkpoint by the validation stories at the end, not the last."
    )
    early_stopping_patience: int = setting(
        0, "Stop after this number of evaluations without improvement; 0 for never.", at_least=0
    )
    report_to: list[str] = setting(
        ["tensorboard"],
        "Experiment trackers: integrations of transformers such as tensorboard, wandb, mlflow or trackio; "
        "'all' that are installed, or 'none'.",
    )
    save_total_limit: int = setting(1, "Checkpoints to keep in addition to the best.", at_least=1)

    test_size: float = setting(0.2, "Share of the stories that is held out, for data without splits.", above=0, below=1)
    validation_size: float = setting(
        0.3, "Share of the held-out stories that is used for validation.", above=0, below=1
    )
    data_seed: int = setting(42, "Seed of the split and of the shuffles in evaluation.", at_least=0, at_most=2**32 - 1)

    resume_from_checkpoint: str | None = setting(
        None,
        "Checkpoint to resume from; without a value the last complete one, or from the start if there is none.",
        bare="last",
    )
    overwrite_output_dir: bool = setting(False, "Replace the content of the output folder.")

    def __post_init__(self) -> None:
        """Makes a list of a single source, and Python numbers of NumPy's, which cannot be written as JSON."""
        for name in ("data", "validation_data"):
            value = getattr(self, name)
            if isinstance(value, (str, os.PathLike)):
                setattr(self, name, [os.fspath(value)] if os.fspath(value) else [])
        if isinstance(self.passage_sentences, tuple):
            self.passage_sentences = list(self.passage_sentences)
        for spec in dataclasses.fields(self):
            value = getattr(self, spec.name)
            if hasattr(value, "item"):
                setattr(self, spec.name, value.item())

    def resolved(self) -> Recipe:
        """The recipe with the defaults that depend on the encoder and the hardware filled in."""
        rate = self.learning_rate if self.learning_rate is not None else (1e-3 if self.is_scratch else 3e-5)
        bf16, fp16 = self.bf16, self.fp16
        if bf16 is None:
            bf16 = not fp16 and computes_in_bf16()
            fp16 = not bf16 and has_gpu() if fp16 is None else fp16
        fp16 = bool(fp16)  # with an explicit bf16=False, fp16 is not enabled by default
        return dataclasses.replace(self, learning_rate=rate, bf16=bf16, fp16=fp16)

    def for_one_process(self, world_size: int) -> Recipe:
        """The recipe with which one process trains the same model as `world_size` processes do with this one."""
        return dataclasses.replace(self, gradient_accumulation_steps=self.gradient_accumulation_steps * world_size)

    @property
    def sources(self) -> list[str]:
        """All sources of stories."""
        return [*self.data, *(self.validation_data or [])]

    @property
    def is_scratch(self) -> bool:
        """Whether the encoder is one that is trained from scratch."""
        from modeling_sentence_ordering.configuration_sentence_ordering import is_scratch_encoder  # imports torch

        return is_scratch_encoder(self.encoder)

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
        if not self.is_scratch:
            raise RecipeError("--encoder_config is for the 'cnn' and 'rnn' encoders; pretrained encoders have a config")
        return fields

    def total_steps(self, steps_per_epoch: int) -> int:
        """Optimizer steps in the whole run."""
        return self.max_steps if self.max_steps > 0 else max(1, math.ceil(self.num_train_epochs * steps_per_epoch))

    def warmup(self, total_steps: int) -> int:
        """Warm-up steps in a run of `total_steps`."""
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
    """Whether the hardware multiplies matrices in bfloat16: AMX, AVX512-BF16, or CUDA compute capability 8.0."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_capability() >= (8, 0)
    checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in checks)


def shareable(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain values that may be published: names of files without their folders.

    Fields that refer to this machine (`output_dir`, resuming, overwriting) are left out. The rest, with the same data,
    trains the same model.
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
    """Values returned by `shareable`, perhaps of an earlier version, with the defaults of fields added since."""
    defaults = {spec.name: spec.default for spec in dataclasses.fields(Recipe)}
    defaults |= {"fp16": False, "fast_dropout": False}  # how training was before these fields existed
    later = {name: value for name, value in defaults.items() if value is not dataclasses.MISSING and value is not None}
    return {**{name: value for name, value in later.items() if name not in _OF_THIS_MACHINE}, **values}


def _without_folders(source: str) -> str:
    path = os.path.normpath(source)
    absolute_or_outside = os.path.isabs(path) or path.startswith(("~", ".."))
    return os.path.basename(path) if absolute_or_outside else source
