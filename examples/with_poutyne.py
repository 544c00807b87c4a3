"""Sentence ordering with Poutyne. The same model by the same recipe as in the two other examples.

python examples/with_poutyne.py --encoder minilm --max_steps 270 --output_dir with-poutyne
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from accelerate.data_loader import SeedableRandomSampler
from datasets import load_dataset
from torch.utils.data import DataLoader

import training as so
from modeling_sentence_ordering import DataCollatorForSentenceOrdering, save_tokenizer

BUILDER = Path(__file__).parents[1] / "dataset_builder"


def main(arguments: Sequence[str] | None = None) -> Mapping[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--max_steps", type=int, default=270, help="whole epochs, or less than one")
    parser.add_argument("--output_dir", default="with-poutyne")
    options = parser.parse_args(arguments)

    script, sample = str(BUILDER / "shuffled_rocstories.py"), str(BUILDER / "sample" / "sample_stories.csv")
    data = load_dataset(script, data_files=sample, trust_remote_code=True)
    recipe = so.Recipe(encoder=options.encoder, learning_rate=1e-4)
    model, tokenizer = so.build_model(recipe, data["train"]["sentences"])
    collate = so.TransformerCollator(DataCollatorForSentenceOrdering(tokenizer, model.config))  # Poutyne wants (x, y)
    train = DataLoader(data["train"], 8, sampler=SeedableRandomSampler(data["train"], data_seed=42), collate_fn=collate)
    validation, test = (DataLoader(data[name], 64, collate_fn=collate) for name in ("validation", "test"))
    batches = min(2 * options.max_steps, len(train))
    experiment = so.build_experiment(options.output_dir, model, so.build_optimizer(model, recipe), monitoring=False)
    experiment.train(train, validation, epochs=2 * options.max_steps // batches, steps_per_epoch=batches,
                     batches_per_step=2, lr_schedulers=[so.StepSchedule(so.build_schedule, recipe, options.max_steps)],
                     callbacks=[so.PassEpoch(train.sampler), so.SeedSteps(batches_per_step=2),
                                so.GradientClipping(1.0)])  # fmt: skip
    metrics = experiment.test(test, checkpoint="last", verbose=False)
    model.save_pretrained(options.output_dir)  # a whole repository for the Hub, with the tokenizer
    save_tokenizer(tokenizer, options.output_dir)
    print(f"test: tau {metrics['test_kendalls_tau']:.4f}, accuracy {metrics['test_accuracy']:.4f}")
    return metrics


if __name__ == "__main__":
    main()
