"""What Lightning's own documentation teaches, on our module and on stories that the user has loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, DatasetDict
from pytorch_lightning.callbacks import BackboneFinetuning, EarlyStopping, LearningRateFinder, LearningRateMonitor
from pytorch_lightning.loggers import CSVLogger
from torch.utils.data import DataLoader

from dataset_builder import UserError
from modeling_sentence_ordering import SentenceOrderingModel, SentenceOrderingPipeline, load_tokenizer
from modeling_sentence_ordering.tokenization_sentence_ordering import arrangement
from tests.training.frameworks.lightning.test_lightning_module import build, make_stories, make_trainer, quiet  # noqa: F401
from tests.training.made_up import made_up_stories
from training.frameworks.lightning.data import StoryDataModule
from training.frameworks.lightning.module import SentenceOrderingModule


def shuffled(count: int, seed: int) -> Dataset:
    """Stories as the data set's configuration `shuffled` has them."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for story in made_up_stories(count, seed=seed):
        labels = torch.randperm(len(story), generator=generator).tolist()
        rows.append({"sentences": [story[label] for label in labels], "labels": labels})
    return Dataset.from_list(rows)


@pytest.fixture(scope="module")
def splits() -> DatasetDict:
    return DatasetDict({"train": shuffled(40, 0), "validation": shuffled(12, 1), "test": shuffled(9, 2)})


def ordered(module: SentenceOrderingModule, stories: list[list[str]]) -> list[dict[str, Any]]:
    """What the pipeline answers."""
    pipeline = SentenceOrderingPipeline(model=module.model.eval(), tokenizer=module.tokenizer)
    answers: list[dict[str, Any]] = pipeline(stories)
    return answers


def assert_same_answers(answers: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """Up to the last digits, which depend on the padding."""
    for answer, other in zip(answers, expected, strict=True):
        assert set(answer) == set(other)
        assert answer["sentences"] == other["sentences"] and answer["order"] == other["order"]
        assert answer["scores"] == pytest.approx(other["scores"], abs=1e-5)


def test_a_data_set_dict_is_fitted_validated_tested_and_ordered(
    home: Path, tmp_path: Path, splits: DatasetDict
) -> None:
    module = SentenceOrderingModule(str(home / "tiny-bert"), learning_rate=1e-2)
    stories = StoryDataModule(splits, module.tokenizer, per_device_train_batch_size=8)
    logger = CSVLogger(tmp_path, "csv", "")
    trainer = make_trainer(tmp_path, max_epochs=3, logger=logger, callbacks=[EarlyStopping("val_loss")])
    before = trainer.validate(module, datamodule=stories, verbose=False)[0]
    trainer.fit(module, datamodule=stories)
    after = trainer.validate(module, datamodule=stories, verbose=False)[0]
    assert after["val_loss"] < before["val_loss"]
    expected = {f"val_{name}" for name in ("loss", "accuracy", "kendalls_tau", "pmr", "mean_logits", "std_logits")}
    assert set(after) == expected
    (tested,) = trainer.test(module, datamodule=stories, verbose=False)

    assert set(tested) == {name.replace("val", "test") for name in expected}
    answers = [answer for batch in trainer.predict(module, datamodule=stories) or () for answer in batch]
    assert_same_answers(answers, ordered(module, list(splits["test"]["sentences"])))


def test_a_story_is_evaluated_in_the_arrangement_of_the_pipeline(home: Path, splits: DatasetDict) -> None:
    module = build(home)
    stories = StoryDataModule(splits, module.model.data_collator(module.tokenizer), per_device_eval_batch_size=64)
    stories.setup("validate")
    (batch,) = stories.val_dataloader()
    shown = []
    for row in splits["validation"]:  # given in any order, with labels
        way = arrangement(row["sentences"], 0)
        shown.append({key: [row[key][place] for place in way] for key in ("sentences", "labels")})
    expected = module.model.data_collator(module.tokenizer)(shown)
    by_ids = {
        tuple(row.tolist()): labels.tolist() for row, labels in zip(batch["input_ids"], batch["labels"], strict=True)
    }
    for row, labels in zip(expected["input_ids"], expected["labels"], strict=True):
        assert by_ids[tuple(row.tolist())] == labels.tolist()


def test_stories_without_labels(home: Path, tmp_path: Path) -> None:
    """Longer than the encoder as well; in every form in which they can be handed in."""
    module = build(home)
    texts = [*made_up_stories(5, seed=3), [f"Sentence {i} of a long text went on and on." for i in range(80)]]
    module.model.config.confidence_temperature = 0.7
    expected = ordered(module, texts)
    rows = Dataset.from_dict({"sentences": texts})
    for data in (rows, DatasetDict({"predict": rows}), {"test": rows}):
        stories = StoryDataModule(data, per_device_eval_batch_size=4)
        batches = make_trainer(tmp_path).predict(module, datamodule=stories) or []
        assert_same_answers([answer for batch in batches for answer in batch], expected)
    loader: DataLoader[Any] = DataLoader(texts, batch_size=4, collate_fn=list)  # type: ignore[arg-type]
    batches = make_trainer(tmp_path).predict(module, loader) or []
    assert_same_answers([answer for batch in batches for answer in batch], expected)
    assert set(expected[0]) == {"sentences", "order", "scores", "confidence"}
    collate = module.model.data_collator(module.tokenizer)
    loader = DataLoader(rows.select(range(5)), batch_size=2, collate_fn=collate)
    answers = [answer for batch in make_trainer(tmp_path).predict(module, loader) or [] for answer in batch]
    assert [sorted(answer["order"]) for answer in answers] == [sorted(answer["order"]) for answer in expected[:5]]


def test_stories_in_their_true_order_are_shuffled(home: Path) -> None:
    module = build(home)
    rows = Dataset.from_dict({"sentences": made_up_stories(16, seed=4)})
    stories = StoryDataModule({"train": rows, "validation": rows}, module.tokenizer, per_device_train_batch_size=4)
    stories.setup("fit")
    loader = stories.train_dataloader()
    assert len(loader) == 4
    for batch in (*loader, *stories.val_dataloader()):
        labels = [[label for label in row if label >= 0] for row in batch["labels"].tolist()]
        assert all(sorted(row) == list(range(len(row))) for row in labels)
        assert any(row != sorted(row) for row in labels)
    assert stories.splits["train"].stories["sentences"] == rows["sentences"]


def test_without_a_trainer(home: Path, splits: DatasetDict) -> None:
    """A loop of one's own over the same batches."""
    module = build(home)
    for data in (splits, [str(home / "stories.jsonl")], str(home / "stories.jsonl")):
        stories = StoryDataModule(data, module.tokenizer, per_device_train_batch_size=8)
        stories.prepare_data()
        stories.setup("fit")
        optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
        batches = list(stories.train_dataloader())
        assert len(batches) == len(stories.train_dataloader()) > 2
        for batch in batches[:2]:
            module(**batch).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    assert all(torch.isfinite(parameter).all() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("data", "facts"),
    [
        (Dataset.from_dict({"text": ["It rained."]}), ["train", "'sentences'", "text"]),
        ({"test": Dataset.from_dict({"sentence": ["It rained."]})}, ["test", "'sentences'", "sentence"]),
        (7, ["int", "Dataset"]),
    ],
)
def test_data_that_are_no_stories(data: Any, facts: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        StoryDataModule(data)
    assert all(fact in str(caught.value) for fact in facts)


def test_labels_that_do_not_belong_to_the_sentences(home: Path) -> None:
    rows = Dataset.from_dict({"sentences": [["a", "b"], ["c", "d"]], "labels": [[0, 1], [1, 1]]})
    module = build(home)
    with pytest.raises(ValueError, match=r"row 2: 'labels' is not a permutation"):
        StoryDataModule(rows, module.tokenizer).setup("fit")
    split = StoryDataModule({"train": rows.select([0])}, module.tokenizer)
    split.setup("test")
    with pytest.raises(ValueError, match="no test stories.*found: train"):
        split.test_dataloader()


def test_the_head_is_trained_first_and_then_the_encoder(home: Path, tmp_path: Path, splits: DatasetDict) -> None:
    module = build(home, lr_scheduler_type="constant")
    before = {name: value.clone() for name, value in module.model.named_parameters()}
    finetuning = BackboneFinetuning(unfreeze_backbone_at_epoch=1, backbone_initial_lr=1e-3, verbose=False)

    def changed() -> set[str]:
        return {
            name.split(".")[0]
            for name, value in module.model.named_parameters()
            if not torch.equal(value, before[name])
        }

    seen = []
    module.on_train_epoch_end = lambda: seen.append(changed())  # type: ignore[method-assign]
    trainer = make_trainer(tmp_path, max_epochs=3, callbacks=[finetuning])
    trainer.fit(module, datamodule=StoryDataModule(splits, per_device_train_batch_size=8))
    assert seen == [{"head"}, {"head", "encoder"}, {"head", "encoder"}]


@pytest.mark.parametrize("schedule", ["linear", "constant_with_warmup"])
def test_the_encoder_joins_a_schedule_that_is_under_way(
    home: Path, tmp_path: Path, splits: DatasetDict, schedule: str
) -> None:
    module = build(home, lr_scheduler_type=schedule)
    finetuning = BackboneFinetuning(unfreeze_backbone_at_epoch=1, backbone_initial_lr=1e-3, verbose=False)
    trainer = make_trainer(tmp_path, max_epochs=3, callbacks=[finetuning])
    trainer.fit(module, datamodule=StoryDataModule(splits, per_device_train_batch_size=8))
    assert trainer.global_step == 15
    head, _, encoder = [group["lr"] for group in trainer.optimizers[0].param_groups]
    assert encoder > 0 and head == (0 if schedule == "linear" else 2e-3)


def test_the_learning_rate_finder_as_a_callback(home: Path, tmp_path: Path, splits: DatasetDict) -> None:
    module = build(home)
    finder = LearningRateFinder(max_lr=0.1, num_training_steps=25, early_stop_threshold=None)
    logger = CSVLogger(tmp_path, "csv", "")
    trainer = make_trainer(
        tmp_path, max_steps=10, max_epochs=-1, logger=logger, callbacks=[finder, LearningRateMonitor("step")]
    )
    trainer.fit(module, datamodule=StoryDataModule(splits, per_device_train_batch_size=8))
    assert finder.optimal_lr is not None
    found = finder.optimal_lr.suggestion()
    assert module.hparams["learning_rate"] == found != 2e-3
    rates = [line.split(",") for line in (tmp_path / "csv" / "metrics.csv").read_text().splitlines()]
    column = rates[0].index("lr-AdamW/pg1")
    # One step of warm-up, and then down to 0 in the nine that are left.
    assert [float(row[column]) for row in rates[1:] if row[column]] == pytest.approx(
        [0.0] + [found * left / 9 for left in range(9, 0, -1)]
    )


@pytest.mark.parametrize(
    "fields", [{"lr_scheduler_type": "constant"}, {"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 3}]
)
def test_training_for_some_time(home: Path, tmp_path: Path, splits: DatasetDict, fields: dict[str, Any]) -> None:
    trainer = make_trainer(tmp_path, max_epochs=None, max_time={"seconds": 1})
    trainer.fit(build(home, **fields), datamodule=StoryDataModule(splits, per_device_train_batch_size=8))
    assert trainer.global_step > 3
    assert trainer.optimizers[0].param_groups[0]["lr"] == 2e-3


@pytest.mark.parametrize(
    "fields", [{"lr_scheduler_type": "linear"}, {"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 0.1}]
)
def test_a_schedule_that_needs_an_end(home: Path, tmp_path: Path, fields: dict[str, Any]) -> None:
    trainer = make_trainer(tmp_path, max_epochs=None, max_time={"seconds": 1})
    with pytest.raises(ValueError, match=f"'{fields['lr_scheduler_type']}'.*max_steps or max_epochs.*'constant'"):
        trainer.fit(build(home, **fields), datamodule=make_stories(home))


def test_incomplete_steps_weigh_their_stories_alike(home: Path, tmp_path: Path, splits: DatasetDict) -> None:
    """Of plain loaders, three batches make a step of two and one of one, which is not half as large."""
    folder = str(home / "calm-bert")
    norms = []
    for batches_per_step in (1, 2):
        torch.manual_seed(0)
        model = SentenceOrderingModel.from_encoder(folder)
        model.dropout.p = 0.0
        module = SentenceOrderingModule(model, load_tokenizer(folder), learning_rate=1e-12)
        collate = model.data_collator(module.tokenizer)
        rows: Any = splits["train"].select(range(24))
        loader: DataLoader[Any] = DataLoader(rows, batch_size=8, collate_fn=collate)
        options = {"max_epochs": 1, "gradient_clip_val": None, "accumulate_grad_batches": batches_per_step}
        make_trainer(tmp_path, **options).fit(module, loader)
        assert module.gradient_norm is not None
        norms.append(float(module.gradient_norm))
    assert norms[1] == pytest.approx(norms[0], rel=1e-3)  # the last step of each has the last batch alone


def test_names_that_need_stories() -> None:
    with pytest.raises(ValueError, match=r"SentenceOrderingModule\.build\('cnn', stories="):
        SentenceOrderingModule("cnn")
