r"""A base-size encoder with the best recipe, on a GPU.

    python -m benchmarks.base_encoder --encoder FOLDER --data SRC... --validation_data SRC... \
        --output_dir FOLDER_OF_THE_RUNS --results FILE.json [--objective pairwise] [--config RECIPE.yaml] \
        [--seeds 42] [--num_permutations 1 8] [--cpu]

From the project's root. What no flag and no `--config` says is as in `DEFAULTS`. Interrupted, it goes on from the last
epoch when it is started again. `--cpu` lets it run without a GPU, to try it with `--max_steps 2`.

    python -m benchmarks.base_encoder --encoder FOLDER --pieces NEW_FOLDER [--megabytes 55]

only writes the encoder in bfloat16 and in pieces of at most so many megabytes, for a machine that it cannot be sent to
in one file; NEW_FOLDER is an encoder like any other, half the size.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from transformers import AutoModel

from benchmarks.flags import BenchmarkParser, add_permutations_flag
from benchmarks.measuring import run_script
from benchmarks.objectives import measure_rows
from dataset_builder import UserError
from modeling_sentence_ordering import load_tokenizer

DEFAULTS = {
    "objective": "pairwise",
    "num_train_epochs": 4.0,
    "per_device_train_batch_size": 32,
    "per_device_eval_batch_size": 256,
    "learning_rate": 5e-5,
    "logging_steps": 50,
}


def main() -> None:
    """Trains and judges, or writes the encoder in pieces."""
    if any(argument.split("=")[0] == "--pieces" for argument in sys.argv[1:]):
        parser = argparse.ArgumentParser(prog="python -m benchmarks.base_encoder", allow_abbrev=False)
        parser.add_argument("--encoder", type=Path, required=True)
        parser.add_argument("--pieces", type=Path, required=True)
        parser.add_argument("--megabytes", type=int, default=55)
        options = parser.parse_args()
        write_pieces(options.encoder, options.pieces, options.megabytes)
        return
    train()


def train() -> None:
    """Trains and judges, unless the results have it."""
    parser = BenchmarkParser("base_encoder", __doc__ or "")
    parser.set_defaults(**DEFAULTS)
    add_permutations_flag(parser)
    parser.add_argument("--cpu", action="store_true", help="run without a GPU as well")
    recipe, options = parser.parse_benchmark(decided_elsewhere={"seed": "--seeds"})
    if not torch.cuda.is_available() and not options["cpu"]:
        raise RuntimeError("there is no GPU that torch can use; --cpu runs without one, for a few --max_steps")
    measure_rows({recipe.objective: recipe}, recipe, options)


def write_pieces(encoder: Path, folder: Path, megabytes: int) -> None:
    """Writes an encoder in bfloat16, its weights in files of at most so many megabytes, and its tokenizer.

    Raises:
        UserError: if there is something in the folder, or a single tensor is larger than a piece may be.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"--pieces {folder} is not empty: choose another")
    model = AutoModel.from_pretrained(encoder, dtype=torch.bfloat16, use_safetensors=True, trust_remote_code=False)
    name, largest = max(((name, p.nbytes) for name, p in model.named_parameters()), key=lambda item: item[1])
    if largest > megabytes * 10**6:
        raise UserError(f"--megabytes {megabytes}: {name} alone has {largest / 1e6:.1f}")
    model.save_pretrained(folder, max_shard_size=megabytes * 10**6)
    load_tokenizer(str(encoder)).save_pretrained(folder)
    for path in sorted(folder.glob("*.safetensors")):
        print(f"{path.name} {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    sys.exit(run_script(main))
