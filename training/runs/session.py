"""`sentence-ordering train`: from a recipe to a trained model in a complete folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import DatasetDict

from modeling_sentence_ordering import SentenceOrderingModel, SentenceOrderingPipeline, StoryTokenizer
from training.data.recipe_stories import open_stories
from training.data.stories import TokenizedStories
from training.data.streaming import StreamedStories
from training.evaluation.analysis import analyse
from training.evaluation.calibration import calibrated
from training.evaluation.predictions import Predictions, judge, predict
from training.frameworks.protocol import Framework, load_framework, refuse_unsupported, resolved_for
from training.frameworks.reporting import Reporting, reported_to
from training.frameworks.run import TrainingRun
from training.frameworks.training_log import TrainingLog, read_training_log
from training.models import repository
from training.models.adapters import add_lora
from training.models.encoders import build_model, checkpoint_activations
from training.recipe.recipe import Recipe, RecipeError, shareable
from training.system.device import fastest_device
from training.system.processes import Processes

from .card_options import CardOptions
from .description import describe, environment
from .run_folder import check_paths, check_same_stories, checkpoint_to_resume, clear_folder, run_folder
from .trained_on import MOST_HASHES, TrainedOn, record_stream, record_table

Report = Callable[[str], None]


@dataclass
class _Session:
    """What one call of `run_recipe` works with."""

    recipe: Recipe
    folder: Path
    stories: DatasetDict
    digests: dict[str, str]
    model: SentenceOrderingModel
    tokenizer: Any
    tokenized: dict[str, TokenizedStories]
    training: TokenizedStories | StreamedStories
    report: Report
    processes: Processes
    predictions: dict[str, Predictions] = field(default_factory=dict)
    trained_on: TrainedOn = field(init=False)
    on_evaluation: Callable[[int, Mapping[str, float]], None] | None = None
    adapted: Any = None  # the PeftModel around the model, with --lora

    @property
    def judged_split(self) -> str | None:
        """The split that the model is judged on before and after: `test`, or `validation` where there is no test."""
        return next((split for split in ("test", "validation") if split in self.tokenized), None)

    def evaluate(self, split: str, when: str) -> dict[str, float | int]:
        """Metrics on a split; what the model said last of each is kept."""
        batch_size = self.recipe.per_device_eval_batch_size
        self.predictions[split] = predict(
            self.model, self.tokenized[split], batch_size=batch_size, processes=self.processes
        )
        metrics = judge(self.predictions[split], self.model.config)
        self.report(f"{split} {when}: {_in_words(metrics)}")
        return metrics


def run_recipe(
    recipe: Recipe,
    report: Report = print,
    card: CardOptions | None = None,
    on_evaluation: Callable[[int, Mapping[str, float]], None] | None = None,
) -> dict[str, Any]:
    """Trains, evaluates and writes a model; together with the other processes, if several were started.

    The first of them speaks and writes. All others have the same model, and do their share of training and evaluation.

    Args:
        recipe: what to do; checked and resolved here.
        report: called with each line for the person who waits.
        card: what is stated for the model card.
        on_evaluation: see `TrainingLog`; of the first process only.

    Returns:
        What `results.json` holds; of other processes than the first what they know of it.

    Raises:
        RecipeError: for a recipe, data or an output folder that cannot be used (ValueError).
        TrainingFailed: if the loss is not finite.
    """
    recipe.check()
    reported_to(recipe.report_to)
    check_paths(recipe)
    framework = load_framework(recipe.framework)
    processes = Processes.from_environment()
    refuse_unsupported(recipe, framework, processes)
    recipe = resolved_for(recipe, framework)
    if not processes.is_first:
        with processes.joined():
            return _trained(recipe, framework, processes, _say_nothing)[1]
    with run_folder(recipe):
        with processes.joined():
            session, results = _trained(recipe, framework, processes, report, on_evaluation)
        _finish(session, results, card or CardOptions())
    return results


def _finish(session: _Session, results: dict[str, Any], card: CardOptions) -> None:
    """What the first process does alone: how sure the model is, its description, and an example."""
    recipe, processes = session.recipe, session.processes
    session.recipe = recipe.for_one_process(processes.world_size)
    _calibrate(session, results)
    results["environment"] = environment(session.model)
    if session.judged_split is not None:
        results["analysis"] = analyse(session.predictions[session.judged_split])
    session.report(describe(session, results, card.stated_for(recipe)))
    _show_example(session)
    session.report(f"\nnext: sentence-ordering order --model {session.folder} YOUR_STORIES.txt")


def _trained(
    recipe: Recipe,
    framework: Framework,
    processes: Processes,
    report: Report,
    on_evaluation: Callable[[int, Mapping[str, float]], None] | None = None,
) -> tuple[_Session, dict[str, Any]]:
    """What all processes do: the model, trained and saved, and what it is worth."""
    folder = Path(recipe.output_dir)
    resume_from = processes.of_first(lambda: checkpoint_to_resume(folder, recipe, framework, processes, report))
    session = processes.one_first(lambda: _open(recipe, folder, resume_from, report, processes))
    session.on_evaluation = on_evaluation
    if processes.is_first:
        clear_folder(folder, recipe, resume_from)
    results = _before_training(session, resume_from)
    results["training"] = _train(session, framework, resume_from)
    session.model.to(fastest_device()).eval()
    if processes.is_first:
        # At once: with --eval_strategy no there is not even a checkpoint until now.
        repository.save_model(session.model, session.tokenizer, folder)
        session.trained_on = _record_training_stories(session, results["training"])
    for split in ("validation", "test"):
        if split in session.tokenized:
            results[split] = session.evaluate(split, "after training")
    return session, results


def _say_nothing(_: str) -> None:
    pass


def _open(recipe: Recipe, folder: Path, resume_from: Path | None, report: Report, processes: Processes) -> _Session:
    stories = open_stories(recipe)
    if stories.stream is None and "train" not in stories.splits:
        raise RecipeError(f"there are no training stories in {', '.join(recipe.data)}")
    if recipe.early_stopping_patience and "validation" not in stories.splits:
        raise RecipeError("--early_stopping_patience needs validation stories: --validation_data, or data with such")
    digests = stories.digests() if processes.is_first else {}
    if resume_from is not None and processes.is_first:
        check_same_stories(resume_from, digests)
    model, tokenizer = build_model(recipe, stories.sentences)
    if recipe.gradient_checkpointing:
        try:
            checkpoint_activations(model)
        except ValueError:
            raise RecipeError(f"--gradient_checkpointing is nothing that the encoder {recipe.encoder} can do") from None
    adapted = None if recipe.lora is None else add_lora(model, recipe.lora, recipe.seed)
    if recipe.freeze_encoder:
        model.encoder.requires_grad_(False)
    if recipe.torch_compile:
        model.encoder.compile(dynamic=True)  # in place: what is saved is the encoder as it was
    model.to(fastest_device())
    parameters = sum(parameter.numel() for parameter in model.parameters())
    report(f"stories: {stories.counts()}; encoder: {recipe.encoder}, {parameters / 1e6:.1f} M parameters")
    story_tokenizer = StoryTokenizer(tokenizer, model.config)
    tokenized = stories.tokenized(story_tokenizer, recipe.data_seed)
    training = tokenized["train"] if stories.stream is None else StreamedStories(stories.stream, story_tokenizer)
    session = _Session(
        recipe, folder, stories.splits, digests, model, tokenizer, tokenized, training, report, processes
    )
    session.adapted = adapted
    return session


def _before_training(session: _Session, resume_from: Path | None) -> dict[str, Any]:
    """What is known before training; of a run that is resumed, what it knew."""
    path = session.folder / repository.RESULTS_FILE
    if resume_from is not None:
        known = repository.read_json(path) if path.exists() else {}
        return {key: value for key, value in known.items() if key == "before_training"}
    if not session.recipe.eval_on_start or session.judged_split is None:
        return {}
    split = session.judged_split
    results = {"before_training": {"split": split, **session.evaluate(split, "before training")}}
    if session.processes.is_first:
        repository.write_json(path, results)
    return results


def _train(session: _Session, framework: Framework, resume_from: Path | None) -> dict[str, float | int]:
    log = _open_log(session, framework, resume_from)
    run = TrainingRun(
        session.recipe,
        session.model,
        session.tokenizer,
        session.training,
        session.tokenized.get("validation"),
        session.folder / repository.CHECKPOINTS,
        log,
        session.processes,
    )
    if session.processes.is_first:
        checkpoints = session.folder / repository.CHECKPOINTS
        checkpoints.mkdir(exist_ok=True)
        repository.write_json(checkpoints / repository.STORIES_FILE, session.digests)
        repository.write_recipe(session.folder, shareable(session.recipe.for_one_process(session.processes.world_size)))
    began = time.perf_counter()
    try:
        framework.train(run, resume_from)
    finally:
        log.close()
    session.model = run.model if session.adapted is None else session.adapted.merge_and_unload()
    results = {"seconds": round(time.perf_counter() - began, 2), "stories": len(session.training)}
    several = session.processes.world_size
    return {**results, "processes": several} if several > 1 else results


def _open_log(session: _Session, framework: Framework, resume_from: Path | None) -> TrainingLog:
    if not session.processes.is_first:
        return TrainingLog(None)
    path = session.folder / repository.LOG_FILE
    old_rows = read_training_log(path) if resume_from else []
    recipe = session.recipe
    tensorboard = session.folder / repository.TENSORBOARD if "tensorboard" in reported_to(recipe.report_to) else None
    log = TrainingLog(path, tensorboard, session.report, Reporting.of(recipe, session.model), session.on_evaluation)
    if resume_from is not None:
        log.continue_from(old_rows, framework.checkpoint_step(resume_from))
    return log


def _record_training_stories(session: _Session, results: dict[str, Any]) -> TrainedOn:
    if isinstance(session.training, TokenizedStories):
        return record_table(session.folder, session.stories["train"], session.training)
    steps = int(max(row["step"] for row in read_training_log(session.folder / repository.LOG_FILE)))
    known = record_stream(
        session.folder, session.training, session.recipe.for_one_process(session.processes.world_size), steps
    )
    results |= {"stories": known.stories, "story_hashes": known.hashed}
    if not known.hashed:
        session.report(
            f"no {repository.STORY_HASHES_FILE}: it would be of more than {MOST_HASHES:,} stories; `evaluate` cannot "
            "tell whether the model was trained on those that it meets"
        )
    return known


def _calibrate(session: _Session, results: dict[str, Any]) -> None:
    """Fits how sure the model is of an order, if there are validation stories, and saves it with the model."""
    calibration = calibrated(session.predictions)
    if calibration is None:
        return
    results["calibration"] = calibration
    session.model.config.confidence_temperature = calibration["temperature"]
    repository.save_config(session.model, session.folder)
    errors = ", ".join(f"{error:.3f} on {split}" for split, error in calibration["calibration_error"].items())
    session.report(f"confidence: temperature {calibration['temperature']:.3f}, calibration error {errors}")


def _show_example(session: _Session) -> None:
    """Orders one story that the model has not been trained on, the first that it can take whole."""
    split = session.judged_split
    if split is None:
        return
    tokenized = session.tokenized[split]
    taken_whole = tokenized.story_tokenizer.count_fitting
    every = ((index, tokenized.sentence_ids(index)) for index in range(len(tokenized)))
    place = next((index for index, ids in every if taken_whole(ids) == len(ids)), None)
    if place is None:
        return
    story = session.stories[split][place]["sentences"]
    shuffled = [story[label] for label in tokenized.evaluation_labels(place)]
    pipeline = SentenceOrderingPipeline(model=session.model, tokenizer=session.tokenizer)
    answer = pipeline(shuffled)
    session.report(f"\nA story from the {split} split, shuffled:")
    for sentence in shuffled:
        session.report(f"    {sentence}")
    session.report("put in order by the model (the true place in brackets):")
    for sentence in answer["sentences"]:
        session.report(f"    [{story.index(sentence) + 1}] {sentence}")


def _in_words(metrics: dict[str, float | int]) -> str:
    words = (
        f"tau {metrics['kendalls_tau']:.3f}, accuracy {metrics['accuracy']:.3f}, pmr {metrics['pmr']:.3f}, "
        f"loss {metrics['loss']:.3f} on {metrics['stories']:,} stories"
    )
    if metrics["dropped_sentences"]:
        words += f" ({metrics['dropped_sentences']:,} sentences were beyond the encoder's limit)"
    return words
