r"""Speed, memory and quality on a GPU, by plain torch and the modeling package: nothing else has to be installed there.

    python -m benchmarks.on_a_gpu --train FILE... --validation FILE --small FOLDER [--base FOLDER] \
        [--parts table training] [--epochs 4] [--seeds 42] [--output FILE.json]

From the project's root. `table` measures the small encoder and a BERT of base size with random weights: stories a
second, the share of the card's own bfloat16 rate that is reached, peak memory, and whether a step waits for the device.
`training` trains `--base` (or `--small`) with the pair head and the consistency term, as `training/recipes` has it, and
judges it on the validation stories with one and with eight arrangements. Files are CSV in the layout of ROCStories, TSV
of ordered sentences, or JSONL with `sentences`. `--cpu` tries the script without a GPU.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.optim import AdamW
from torch.utils.data import DataLoader
from transformers import BertConfig, BertModel, get_linear_schedule_with_warmup

from modeling_sentence_ordering import (
    SentenceOrderingModel,
    StoryTokenizer,
    compute_metrics,
    in_order,
    load_tokenizer,
    score_stories,
)

Stories = list[list[str]]
FIELDS: dict[str, Any] = {"head": "pairs", "objective": "pairwise", "reading": "marker_and_mean"}
MODES = ("fp32", "bf16", "fp16", "bf16 compiled", "bf16 eager attention", "bf16 flash attention")
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")


def read_stories(path: Path) -> Stories:
    """The stories of one file, sentences in true order."""
    if path.suffix == ".jsonl":
        stories = [json.loads(line)["sentences"] for line in path.read_text("utf-8").splitlines()]
    elif path.suffix == ".tsv":
        stories = [line.split("\t") for line in path.read_text("utf-8").splitlines()]
    else:
        with open(path, newline="", encoding="utf-8") as file:
            stories = [[row[f"sentence{number}"] for number in range(1, 6)] for row in csv.DictReader(file)]
    return [story for story in stories if len(story) >= 2]


def make_model(encoder: str, tokenizer: Any, seed: int, attention: str | None = None, **fields: Any) -> Any:
    """A model around a folder's encoder, or around a BERT of base size with random weights, in float32."""
    torch.manual_seed(seed)
    options = {"attn_implementation": attention} if attention else {}
    if encoder != "random base":
        return SentenceOrderingModel.from_encoder(
            encoder, tokenizer=tokenizer, encoder_kwargs=options, **FIELDS, **fields
        ).float()
    config = BertConfig(vocab_size=len(tokenizer), **options)
    bert = BertModel(config, add_pooling_layer=False)
    separator = tokenizer.sep_token_id
    return SentenceOrderingModel._from_encoder_model(
        bert, tokenizer, {"separator_token_id": separator, **FIELDS, **fields}
    )


def batches(rows: list[dict[str, Any]], size: int, generator: torch.Generator) -> list[list[int]]:
    """Indices in batches of similar length, in random order."""
    order = torch.randperm(len(rows), generator=generator).tolist()
    found = []
    for start in range(0, len(order), 50 * size):
        near = sorted(order[start : start + 50 * size], key=lambda i: len(rows[i]["input_ids"]))
        found += [near[i : i + size] for i in range(0, len(near), size)]
    return [found[i] for i in torch.randperm(len(found), generator=generator).tolist()]


def mapped(collator: Any, stories: Stories) -> list[dict[str, Any]]:
    """The stories as rows of ids."""
    columns = collator.tokenize({"sentences": stories})
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def optimizer_of(model: Any, learning_rate: float, head_learning_rate: float) -> AdamW:
    """AdamW with weight decay for matrices only."""
    groups = []
    for inside, rate in ((True, learning_rate), (False, head_learning_rate)):
        weights = [p for name, p in model.named_parameters() if name.startswith("encoder.") == inside]
        groups += [
            {"params": [p for p in weights if (p.ndim >= 2) == is_matrix], "lr": rate, "weight_decay": 0.01 * is_matrix}
            for is_matrix in (True, False)
        ]
    return AdamW(groups, fused=True)


def steps_over(loader: Any, device: str) -> Iterator[dict[str, torch.Tensor]]:
    """Batches on the device."""
    for batch in loader:
        yield {name: value.to(device, non_blocking=True) for name, value in batch.items()}


def step_of(model: Any, optimizer: AdamW, dtype: torch.dtype, scaler: Any, device: str) -> Callable[..., None]:
    """One training step: forward, backward, clipping, optimizer."""

    def step(batch: dict[str, torch.Tensor]) -> None:
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            loss = model(**batch).loss
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)

    return step


def train(arguments: argparse.Namespace, stories: Stories, validation: Stories, seed: int) -> dict[str, Any]:
    """Trains one model and judges it."""
    device, encoder = arguments.device, str(arguments.base or arguments.small)
    tokenizer = load_tokenizer(encoder)
    model = make_model(encoder, tokenizer, seed, consistency=arguments.consistency).to(device).train()
    collator = model.data_collator(tokenizer, shuffle=True, seed=seed)
    rows, generator = mapped(collator, stories), torch.Generator().manual_seed(seed)
    optimizer = optimizer_of(model, arguments.learning_rate, arguments.head_learning_rate)
    steps = int(arguments.epochs * -(-len(rows) // arguments.batch_size))
    schedule = get_linear_schedule_with_warmup(optimizer, round(0.1 * steps), steps)
    step = step_of(model, optimizer, torch.bfloat16, torch.amp.GradScaler(enabled=False), device)
    started, done = time.perf_counter(), 0
    while done < steps:
        loader = loader_of(rows, collator, arguments, generator)
        for batch in islice(steps_over(loader, device), steps - done):
            step(batch)
            schedule.step()
            done += 1
    if device == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    return {
        "seed": seed,
        "seconds": round(seconds, 1),
        "steps": steps,
        **{f"{k} arrangements": judge(model.eval(), tokenizer, validation, k) for k in (1, 8)},
        **same_order_on_the_cpu(model, tokenizer, validation[: arguments.compared]),
    }


def loader_of(
    rows: list[dict[str, Any]], collator: Any, arguments: argparse.Namespace, generator: torch.Generator
) -> DataLoader[Any]:
    """Batches of one epoch."""
    return DataLoader(
        rows,  # type: ignore[arg-type]
        batch_sampler=batches(rows, arguments.batch_size, generator),
        collate_fn=collator,
        num_workers=arguments.workers,
        pin_memory=arguments.device == "cuda",
        generator=generator,
    )


def answers(model: Any, tokenizer: Any, stories: Stories, num_permutations: int) -> list[dict[str, Any]]:
    """The orders that the model gives, in float32."""
    story_tokenizer = StoryTokenizer(tokenizer, model.config)
    ids = [story_tokenizer.shortened(story)[0] for story in story_tokenizer.tokenize_stories(stories)]
    options = {"num_permutations": num_permutations, "batch_tokens": 65536}
    found = score_stories(model, story_tokenizer, stories, ids, **options)
    return [in_order(story, one.scores, pair_logits=one.pair_logits) for story, one in zip(stories, found, strict=True)]


def judge(model: Any, tokenizer: Any, stories: Stories, num_permutations: int) -> dict[str, float]:
    """Metrics of the orders on stories whose sentences are handed in in true order, which makes no difference."""
    width = max(map(len, stories))
    ranks = torch.full((len(stories), width), -100.0)
    for row, answer in zip(ranks, answers(model, tokenizer, stories, num_permutations), strict=True):
        row[torch.tensor(answer["order"])] = torch.arange(len(answer["order"])).float()
    labels = torch.arange(width).expand_as(ranks).masked_fill(ranks == -100, -100)
    metrics = compute_metrics((ranks, labels))
    return {name: round(metrics[name], 4) for name in ("accuracy", "kendalls_tau", "pmr")}


def same_order_on_the_cpu(model: Any, tokenizer: Any, stories: Stories) -> dict[str, Any]:
    """How many stories the CPU puts in the same order."""
    if not stories:
        return {}
    here = answers(model, tokenizer, stories, 1)
    there = answers(model.cpu(), tokenizer, stories, 1)
    same = sum(a["order"] == b["order"] for a, b in zip(here, there, strict=True))
    difference = max(
        abs(x - y) for a, b in zip(here, there, strict=True) for x, y in zip(a["scores"], b["scores"], strict=True)
    )
    return {"compared with the CPU": len(stories), "in the same order": same, "largest difference": difference}


def matrix_rate(device: str, size: int) -> float:
    """Floating-point operations a second of a bfloat16 matrix product of random values."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = timed(lambda: a @ b, 10, device)
    return 2 * size**3 / seconds


def timed(run: Callable[[], Any], repetitions: int, device: str) -> float:
    """Mean seconds of a call, after three that do not count."""
    for _ in range(3):
        run()
    if device == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(repetitions):
        run()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - started) / repetitions


def operations(model: Any, batch: dict[str, torch.Tensor]) -> float:
    """Floating-point operations of the encoder's forward pass over the real tokens of a batch."""
    config = model.config.backbone_config
    embeddings = sum(p.numel() for name, p in model.encoder.named_parameters() if "embeddings" in name)
    weights = sum(p.numel() for p in model.encoder.parameters()) - embeddings
    tokens = batch["attention_mask"].sum(dim=1).double()
    attention = 4 * config.num_hidden_layers * config.hidden_size * (tokens**2).sum()
    return float(2 * weights * tokens.sum() + attention)


def measure(arguments: argparse.Namespace, encoder: str, mode: str, stories: Stories, rate: float) -> dict[str, Any]:
    """One row of the table."""
    device = arguments.device
    tokenizer = load_tokenizer(str(arguments.small))
    attention = {"eager": "eager", "flash": "flash_attention_2"}.get(mode.split()[1] if " " in mode else "")
    model = make_model(encoder, tokenizer, 0, attention).to(device).train()
    collator = model.data_collator(tokenizer, shuffle=True)
    rows = mapped(collator, stories[: arguments.speed_batch])
    batch = next(steps_over([collator(rows)], device))
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[mode.split()[0]]
    if mode.endswith("compiled"):
        model.encoder.compile()
    step = step_of(
        model, optimizer_of(model, 1e-5, 1e-5), dtype, torch.amp.GradScaler(device, enabled=mode == "fp16"), device
    )
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    training = timed(lambda: step(batch), arguments.repetitions, device)
    peak = torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else 0.0
    waits = device_waits(lambda: step(batch)) if device == "cuda" else None
    model.eval()
    unlabelled = {name: value for name, value in batch.items() if name != "labels"}

    def infer() -> None:
        with torch.inference_mode(), torch.autocast(device, dtype, enabled=dtype != torch.float32):
            model(**unlabelled)

    inference, work = timed(infer, arguments.repetitions, device), operations(model, batch)
    return {
        "encoder": encoder,
        "mode": mode,
        "training stories/s": round(len(rows) / training),
        "training share": round(3 * work / training / rate, 3),
        "inference stories/s": round(len(rows) / inference),
        "inference share": round(work / inference / rate, 3),
        "peak MiB": round(peak),
        "waits in a step": waits,
    }


def device_waits(step: Callable[[], None]) -> int:
    """How often a training step waits for the device, by torch's profiler."""
    with torch.profiler.profile(activities=list(torch.profiler.supported_activities())) as profile:
        step()
    counts = {event.key: event.count for event in profile.key_averages()}
    # The profiler itself waits once, when it stops.
    return sum(counts.get(name, 0) for name in WAITS) - counts.get("cudaDeviceSynchronize", 0)


def table(arguments: argparse.Namespace, stories: Stories) -> dict[str, Any]:
    """All rows; a mode that this machine has not is named with the reason."""
    rate = matrix_rate(arguments.device, 8192 if arguments.device == "cuda" else 512)
    rows: list[dict[str, Any]] = []
    for encoder in (str(arguments.small), "random base"):
        for mode in MODES:
            try:
                rows.append(measure(arguments, encoder, mode, stories, rate))
            except (ImportError, ValueError, RuntimeError) as error:
                rows.append({"encoder": encoder, "mode": mode, "not measured": str(error).split("\n")[0][:120]})
            rows[-1]["encoder"] = "small" if encoder != "random base" else "base"
            print(json.dumps(rows[-1]), flush=True)
    return {"bf16 matrix product TFLOP/s": round(rate / 1e12, 1), "rows": rows}


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.on_a_gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", type=Path, nargs="+", required=True, help="stories to train on")
    parser.add_argument("--validation", type=Path, required=True, help="stories to judge on")
    parser.add_argument("--small", type=Path, required=True, help="folder of the small encoder")
    parser.add_argument("--base", type=Path, help="folder of the encoder to train; the small one if not given")
    parser.add_argument("--parts", nargs="+", choices=["table", "training"], default=["table", "training"])
    parser.add_argument("--epochs", type=float, default=4.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[42])
    parser.add_argument("--batch_size", type=int, default=32, help="stories in a step; each is shown twice")
    parser.add_argument("--learning_rate", type=float, default=5e-5)
    parser.add_argument("--head_learning_rate", type=float, default=2.5e-4)
    parser.add_argument("--consistency", type=float, default=1.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--compared", type=int, default=100, help="stories that the CPU orders as well")
    parser.add_argument("--speed_batch", type=int, default=256, help="stories in a batch of the table")
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--limit", type=int, help="read only so many stories of each split")
    parser.add_argument("--output", type=Path, help="JSON file")
    parser.add_argument("--cpu", action="store_true", help="run without a GPU")
    arguments = parser.parse_args()
    if not arguments.cpu and not torch.cuda.is_available():
        parser.error("no GPU that torch can use; --cpu tries the script without one")
    arguments.device = "cpu" if arguments.cpu else "cuda"
    return arguments


def main() -> None:
    """Measures, trains, prints."""
    arguments = parse()
    stories = [story for path in arguments.train for story in read_stories(path)][: arguments.limit]
    validation = read_stories(arguments.validation)[: arguments.limit]
    card = torch.cuda.get_device_name() if arguments.device == "cuda" else "CPU"
    results: dict[str, Any] = {"device": card, "torch": torch.__version__}
    if "table" in arguments.parts:
        results["table"] = table(arguments, stories)
    if "training" in arguments.parts:
        results["training"] = []
        for seed in arguments.seeds:
            results["training"].append(train(arguments, stories, validation, seed))
            print(json.dumps(results["training"][-1]), flush=True)
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
