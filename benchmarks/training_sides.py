"""One side of `benchmarks.training_speed`: trains for some steps in a process of its own, and measures them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from benchmarks.guide_pipeline import BATCH_SIZE, MAX_LENGTH, guide_dataset, guide_trainer, load_guide_model
from benchmarks.side_by_side import peak_memory
from benchmarks.step_profile import StepProfile
from dataset_builder import load_all
from modeling_sentence_ordering import StoryTokenizer
from training.data.stories import TokenizedStories, training_loader, training_sampler
from training.frameworks.optimization import build_optimizer, build_schedule, seed_step
from training.frameworks.protocol import load_framework
from training.frameworks.run import TrainingRun
from training.frameworks.training_log import TrainingLog
from training.models.encoders import build_model, checkpoint_activations, resolve_encoder
from training.recipe.recipe import Recipe
from training.system.device import fastest_device, limit_kernel_caches

BARE = "bare loop"


@dataclass(frozen=True)
class Stretch:
    """The steps that are measured: those after the `warm` first ones, `steps` in number."""

    warm: int
    steps: int

    @property
    def total(self) -> int:
        """Steps that are made."""
        return self.warm + self.steps


class StepClock:
    """The time of each step of any optimizer in this process."""

    def __init__(self, after_warm_up: Callable[[], None], warm: int) -> None:
        self.times: list[float] = []

        def note(*_: Any) -> None:
            self.times.append(time.perf_counter())
            if len(self.times) == warm:
                after_warm_up()

        self._hook = register_optimizer_step_post_hook(note)

    def seconds(self, stretch: Stretch) -> float:
        """Of the steps that are measured.

        Raises:
            RuntimeError: if other steps were made than should have been.
        """
        self._hook.remove()
        if len(self.times) != stretch.total:
            raise RuntimeError(f"{len(self.times)} steps were made instead of {stretch.total}")
        return self.times[-1] - self.times[stretch.warm - 1]


def measure_side(told: Mapping[str, Any]) -> dict[str, Any]:
    """Trains as the side says; its figures."""
    stretch = Stretch(told["warm"], told["steps"])
    measured = _measure_guide(told, stretch) if "padding" in told else _measure_recipe(told, stretch)
    return {**measured, "peak_memory": peak_memory()}


def _measure_guide(told: Mapping[str, Any], stretch: Stretch) -> dict[str, Any]:
    torch.manual_seed(42)
    model, tokenizer = load_guide_model(resolve_encoder(told["recipe"]["encoder"]))
    stories = load_all(told["recipe"]["data"])["sentences"][: BATCH_SIZE * stretch.total]
    encoded = guide_dataset(stories, tokenizer, told["padding"])
    lengths = [sum(mask) for mask in encoded["attention_mask"]]
    with tempfile.TemporaryDirectory() as folder:
        trainer = guide_trainer(model, tokenizer, folder, encoded, max_steps=stretch.total, logging_steps=10)
        clock = StepClock(lambda: None, stretch.warm)
        trainer.train()
    tokens = BATCH_SIZE * stretch.steps * sum(lengths) / len(lengths)
    padded = tokens if told["padding"] == "longest" else BATCH_SIZE * stretch.steps * MAX_LENGTH
    return {
        "seconds": clock.seconds(stretch),
        "stories": BATCH_SIZE * stretch.steps,
        "tokens": tokens,
        "padded": padded,
    }


def _measure_recipe(told: Mapping[str, Any], stretch: Stretch) -> dict[str, Any]:
    limit_kernel_caches()
    with tempfile.TemporaryDirectory() as folder:
        recipe = Recipe(
            **{"eval_strategy": "no", **told["recipe"], "max_steps": stretch.total, "output_dir": folder}
        ).resolved()
        began = time.perf_counter()
        run = _open(recipe, Path(folder))
        opened = time.perf_counter() - began
        profile = StepProfile() if told.get("profile") else None
        with ExitStack() as stack:
            if profile is not None:
                stack.enter_context(profile.watching())
            clock = StepClock(profile.restart if profile else lambda: None, stretch.warm)
            train_bare(run) if told["loop"] == BARE else load_framework(told["loop"]).train(run)
            run.log.close()
    measured: dict[str, Any] = {"seconds": clock.seconds(stretch), **_work(run, stretch), "seconds_to_open": opened}
    if profile is not None:
        measured["shares"] = profile.shares()
    if told.get("arithmetic"):
        measured["arithmetic"] = arithmetic(run, stretch, measured["seconds"])
    return measured


def _open(recipe: Recipe, folder: Path) -> TrainingRun:
    """A run as `sentence-ordering train` makes it, on all of the stories."""
    stories = load_all(recipe.data)
    model, tokenizer = build_model(recipe, stories["sentences"])
    if recipe.gradient_checkpointing:
        checkpoint_activations(model)
    if recipe.torch_compile:
        model.encoder.compile(dynamic=True)
    model.to(fastest_device()).train()
    tokenized = TokenizedStories(stories, StoryTokenizer(tokenizer, model.config), recipe.data_seed)
    log = TrainingLog(folder / "log.csv", folder / "runs")
    return TrainingRun(replace(recipe, output_dir=str(folder)), model, tokenizer, tokenized, log=log)


def train_bare(run: TrainingRun) -> None:
    """The recipe in a plain loop of torch, without a framework."""
    recipe, model = run.recipe, run.model
    loader = training_loader(run.training, recipe)
    optimizer = build_optimizer(model, recipe)
    schedule = build_schedule(optimizer, recipe, recipe.max_steps)
    accumulation, device, step = recipe.gradient_accumulation_steps, model.device, 0
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=bool(recipe.bf16))
    for epoch in range(recipe.max_steps):
        loader.set_epoch(epoch)
        for number, batch in enumerate(loader):
            if number % accumulation == 0:
                seed_step(recipe, step)
            with autocast:
                loss = model(**{name: tensor.to(device) for name, tensor in batch.items()}).loss
            (loss / accumulation).backward()
            if (number + 1) % accumulation == 0:
                nn.utils.clip_grad_norm_(model.parameters(), recipe.max_grad_norm or float("inf"))
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
                step += 1
            if step == recipe.max_steps:
                return


def _batches(run: TrainingRun, stretch: Stretch) -> Iterator[np.ndarray]:
    """The lengths of the stories in each batch of the steps that are measured."""
    assert isinstance(run.training, TokenizedStories)
    sampler, lengths = training_sampler(run.training, run.recipe), run.training.lengths
    accumulation = run.recipe.gradient_accumulation_steps
    first, end = stretch.warm * accumulation, stretch.total * accumulation
    for number in range(first, end):
        epoch, place = divmod(number, len(sampler))
        if place == 0 or number == first:
            sampler.set_epoch(epoch)
            batches = list(sampler)
        yield lengths[[draw.index for draw in batches[place]]]


def _work(run: TrainingRun, stretch: Stretch) -> dict[str, Any]:
    batches = list(_batches(run, stretch))
    return {
        "stories": sum(map(len, batches)),
        "tokens": int(sum(batch.sum() for batch in batches)),
        "padded": int(sum(batch.max() * len(batch) for batch in batches)),
    }


def arithmetic(run: TrainingRun, stretch: Stretch, seconds: float) -> dict[str, Any]:
    """How near the steps came to what this machine's matrix product of the same shapes and dtype reaches.

    Counted are the products with the encoder's weights, forward and backward, and those of attention, for real tokens
    alone: what is spent on padding, on everything between the products, and on the optimizer is lost.
    """
    shapes = _linear_shapes(run)
    batches = list(_batches(run, stretch))
    rows = int(np.mean([batch.max() * len(batch) for batch in batches]))
    dtype = torch.bfloat16 if run.recipe.bf16 else torch.float32
    device = run.model.device
    per_token = 6 * sum(inputs * outputs for inputs, outputs in shapes)
    config = run.model.config.backbone_config
    layers, width = getattr(config, "num_hidden_layers", 0), getattr(config, "hidden_size", 0)
    attention = 12 * layers * width * int(sum((batch.astype(np.int64) ** 2).sum() for batch in batches))
    done = per_token * int(sum(batch.sum() for batch in batches)) + attention
    operations, needed = 0.0, 0.0
    for inputs, outputs in set(shapes):
        for product in ((rows, inputs, outputs), (rows, outputs, inputs), (outputs, rows, inputs)):
            count = shapes.count((inputs, outputs))
            operations += count * 2.0 * product[0] * product[1] * product[2]
            needed += count * _product_seconds(product, dtype, device)
    return {
        "dtype": str(dtype).removeprefix("torch."),
        "rows": rows,
        "operations_per_second": done / seconds,
        "operations_per_second_of_the_product": operations / needed,
        "share": done / seconds / (operations / needed),
    }


def _linear_shapes(run: TrainingRun) -> list[tuple[int, int]]:
    """Inputs and outputs of each linear layer of the encoder that every token goes through."""
    found: list[tuple[int, int]] = []

    def note(layer: Any, inputs: Any, _: Any) -> None:
        if inputs[0].shape[:-1].numel() == ids.numel():
            found.append((layer.in_features, layer.out_features))

    ids = torch.full((3, 7), run.model.config.marker_token_id, device=run.model.device)
    layers = [layer for layer in run.model.encoder.modules() if isinstance(layer, nn.Linear)]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    with torch.no_grad():
        run.model(input_ids=ids)
    for hook in hooks:
        hook.remove()
    return found


def _product_seconds(shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device) -> float:
    """The shortest time of a product `(a, b) @ (b, c)` among many."""
    one = torch.randn(shape[0], shape[1], dtype=dtype, device=device)
    other = torch.randn(shape[1], shape[2], dtype=dtype, device=device)
    times = []
    for _ in range(30):
        began = time.perf_counter()
        torch.mm(one, other)
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return min(times)
