"""`sentence-ordering train`: from a recipe to a trained model in a folder for the Hub."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from modeling_sentence_ordering import SentenceOrderingModel, SentenceOrderingPipeline, StoryTokenizer
from training.data.long_texts import describe_long_texts
from training.data.recipe_stories import open_stories
from training.data.stories import drawn_stories
from training.data.streaming import StreamedStories
from training.evaluation.analysis import analyse
from training.evaluation.calibration import calibrated
from training.frameworks.protocol import Framework, load_framework, refuse_unsupported, resolved_for
from training.frameworks.reporting import Reporting, reported_to
from training.frameworks.run import TrainingRun
from training.frameworks.training_log import TrainingLog, read_training_log
from training.models import model_folder
from training.models.encoders import build_model, checkpoint_activations
from training.models.lora import add_lora
from training.recipe.recipe import Recipe, RecipeError, shareable
from training.system.device import fastest_device
from training.system.processes import Processes

from .card_options import CardOptions
from .run_folder import check_paths, check_same_stories, checkpoint_to_resume, clear_folder, run_folder
from .run_outputs import environment, write_outputs
from .trained_on import MOST_HASHES, record_training_stories

Log = Callable[[str], None]
OnEvaluation = Callable[[int, Mapping[str, float]], None]


def run_recipe(
    recipe: Recipe,
    report: Log = print,
    card: CardOptions | None = None,
    on_evaluation: OnEvaluation | None = None,
) -> dict[str, Any]:
    """Trains, evaluates and writes a model; with several processes, each calls this function.

    Each process trains on its share of the stories and has the same model. Only the first one logs and writes.

    Args:
        recipe: the recipe; checked and resolved here.
        report: called with each line of progress.
        card: statements for the model card.
        on_evaluation: called with the step and the metrics after each evaluation during training, in the first
            process only. An exception that it raises ends the training.

    Returns:
        The content of `results.json`; in other processes than the first, a part of it.

    Raises:
        RecipeError: for a recipe, data or an output folder that cannot be used (a `ValueError`).
        RuntimeError: if the loss is not finite.
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
            run, resume_from = _open(recipe, framework, processes, lambda _: None)
            return _train_and_evaluate(run, framework, resume_from, lambda _: None)
    with run_folder(recipe):
        with processes.joined():
            run, resume_from = _open(recipe, framework, processes, report)
            results = _train_and_evaluate(run, framework, resume_from, report, on_evaluation)
        _finish(run, results, card or CardOptions(), report)
    return results


def _open(recipe: Recipe, framework: Framework, processes: Processes, log: Log) -> tuple[TrainingRun, Path | None]:
    """The run and the checkpoint that it resumes from, or None."""
    folder = Path(recipe.output_dir)
    resume_from = processes.broadcast_from_rank_zero(
        lambda: checkpoint_to_resume(folder, recipe, framework, processes, log)
    )
    run, digests = processes.local_rank_zero_first(lambda: _load(recipe, resume_from, processes, log))
    if processes.is_first:
        clear_folder(folder, recipe, resume_from)
        run.checkpoints.mkdir(exist_ok=True)
        model_folder.write_json(run.checkpoints / model_folder.STORIES_FILE, digests)
        model_folder.write_recipe(folder, shareable(recipe.for_one_process(processes.world_size)))
    return run, resume_from


def _load(
    recipe: Recipe, resume_from: Path | None, processes: Processes, log: Log
) -> tuple[TrainingRun, dict[str, str]]:
    """The run with its model and stories, and the digests of the stories."""
    stories = open_stories(recipe)
    if stories.stream is None and "train" not in stories.splits:
        raise RecipeError(f"there are no training stories in {', '.join(recipe.data)}")
    if recipe.early_stopping_patience and "validation" not in stories.splits:
        raise RecipeError("--early_stopping_patience needs validation stories: use --validation_data, or data with a "
                          "validation split")  # fmt: skip
    digests = stories.digests() if processes.is_first else {}
    if resume_from is not None and processes.is_first:
        check_same_stories(resume_from, digests)
    model, tokenizer = build_model(recipe, stories.sentences)
    adapted = _prepare(model, recipe)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    log(f"stories: {stories.counts()}; encoder: {recipe.encoder}, {parameters / 1e6:.1f} M parameters")
    story_tokenizer = StoryTokenizer(tokenizer, model.config)
    splits = stories.tokenized(story_tokenizer, recipe.data_seed)
    streamed = None if stories.stream is None else StreamedStories(stories.stream, story_tokenizer)
    training = splits.pop("train") if streamed is None else streamed
    if processes.is_first and (line := describe_long_texts(training, recipe)) is not None:
        log(line)
    return TrainingRun(recipe, model, tokenizer, training, splits, processes=processes, adapted=adapted), digests


def _prepare(model: SentenceOrderingModel, recipe: Recipe) -> Any:
    """Applies the recipe's ways to save memory and time, in place; the `PeftModel` around the model, or None."""
    if recipe.gradient_checkpointing:
        try:
            checkpoint_activations(model)
        except ValueError:
            raise RecipeError(f"the {recipe.encoder} encoder does not support --gradient_checkpointing") from None
    adapted = None if recipe.lora is None else add_lora(model, recipe.lora, recipe.seed)
    if recipe.freeze_encoder:
        model.encoder.requires_grad_(False)
    if recipe.torch_compile:
        model.encoder.compile(dynamic=True)  # in place, so that the uncompiled encoder is saved
    model.to(fastest_device())
    return adapted


def _train_and_evaluate(
    run: TrainingRun,
    framework: Framework,
    resume_from: Path | None,
    log: Log,
    on_evaluation: OnEvaluation | None = None,
) -> dict[str, Any]:
    """Trains, saves and evaluates the model; called in every process."""
    results = _before_training(run, resume_from, log)
    results["training"] = _train(run, framework, resume_from, log, on_evaluation)
    run.model.to(fastest_device()).eval()
    if run.processes.is_first:
        # Before the evaluation: with `--eval_strategy no` there is not even a checkpoint until now.
        model_folder.save_model(run.model, run.tokenizer, run.folder)
        _record_training_stories(run, results["training"], log)
    for split in ("validation", "test"):
        if split in run.splits:
            results[split] = _evaluated(run, split, "after training", log)
    return results


def _evaluated(run: TrainingRun, split: str, when: str, log: Log) -> dict[str, float | int]:
    metrics = run.evaluate(split)
    line = (
        f"{split} {when}: tau {metrics['kendalls_tau']:.3f}, accuracy {metrics['accuracy']:.3f}, "
        f"pmr {metrics['pmr']:.3f}, loss {metrics['loss']:.3f} on {metrics['stories']:,} stories"
    )
    if metrics["dropped_sentences"]:
        line += f" ({metrics['dropped_sentences']:,} sentences were beyond the encoder's limit)"
    log(line)
    return metrics


def _before_training(run: TrainingRun, resume_from: Path | None, log: Log) -> dict[str, Any]:
    """The metrics before training; those of the first start if the run is resumed."""
    path, split = run.folder / model_folder.RESULTS_FILE, run.main_split
    if resume_from is not None:
        known = model_folder.read_json(path) if path.exists() else {}
        return {key: value for key, value in known.items() if key == "before_training"}
    if not run.recipe.eval_on_start or split is None:
        return {}
    results = {"before_training": {"split": split, **_evaluated(run, split, "before training", log)}}
    if run.processes.is_first:
        model_folder.write_json(path, results)
    return results


def _train(
    run: TrainingRun, framework: Framework, resume_from: Path | None, log: Log, on_evaluation: OnEvaluation | None
) -> dict[str, float | int]:
    if run.processes.is_first:
        run.log = _open_log(run, framework, resume_from, log, on_evaluation)
    began = time.perf_counter()
    try:
        framework.train(run, resume_from)
    finally:
        run.log.close()
    if run.adapted is not None:
        run.model = run.adapted.merge_and_unload()
    results = {"seconds": round(time.perf_counter() - began, 2), "stories": len(run.training)}
    if run.recipe.passage_sentences is not None:
        results["passages_per_epoch"] = len(drawn_stories(run.training, run.recipe))
    several = run.processes.world_size
    return {**results, "processes": several} if several > 1 else results


def _open_log(
    run: TrainingRun, framework: Framework, resume_from: Path | None, log: Log, on_evaluation: OnEvaluation | None
) -> TrainingLog:
    recipe, path = run.recipe, run.folder / model_folder.LOG_FILE
    old_rows = read_training_log(path) if resume_from else []
    tensorboard = run.folder / model_folder.TENSORBOARD if "tensorboard" in reported_to(recipe.report_to) else None
    opened = TrainingLog(path, tensorboard, log, Reporting.from_recipe(recipe, run.model), on_evaluation)
    if resume_from is not None:
        opened.continue_from(old_rows, framework.checkpoint_step(resume_from))
    return opened


def _finish(run: TrainingRun, results: dict[str, Any], card: CardOptions, log: Log) -> None:
    """Writes calibration, results, model card and an example; called in the first process."""
    run.recipe = run.recipe.for_one_process(run.processes.world_size)
    _calibrate(run, results, log)
    results["environment"] = environment(run.model)
    if run.main_split is not None:
        results["analysis"] = analyse(run.predictions[run.main_split], run.model.config.confidence_temperature)
    log(write_outputs(run, results, card.stated_for(run.recipe)))
    _show_example(run, log)
    log(f"\nnext: sentence-ordering order --model {run.folder} YOUR_STORIES.txt")


def _record_training_stories(run: TrainingRun, results: dict[str, Any], log: Log) -> None:
    steps = int(max(row["step"] for row in read_training_log(run.folder / model_folder.LOG_FILE)))
    run.trained_on = trained_on = record_training_stories(run, steps)
    if isinstance(run.training, StreamedStories):
        results |= {"stories": trained_on.stories, "story_hashes": trained_on.hashed}
    if not trained_on.hashed:
        log(
            f"did not write {model_folder.STORY_HASHES_FILE}, because there are more than {MOST_HASHES:,} training "
            "stories; `evaluate` cannot tell whether it meets training stories"
        )


def _calibrate(run: TrainingRun, results: dict[str, Any], log: Log) -> None:
    """Fits the temperature of the confidence on the validation stories, if there are any, and saves it."""
    calibration = calibrated(run.predictions)
    if calibration is None:
        return
    results["calibration"] = calibration
    run.model.config.confidence_temperature = calibration["temperature"]
    model_folder.save_config(run.model, run.folder)
    errors = ", ".join(f"{error:.3f} on {split}" for split, error in calibration["calibration_error"].items())
    log(f"confidence: temperature {calibration['temperature']:.3f}, calibration error {errors}")


def _show_example(run: TrainingRun, log: Log) -> None:
    """Orders the first held-out story that is within the encoder's limit."""
    split = run.main_split
    if split is None:
        return
    stories = run.splits[split]
    if not stories.fits.any():
        return
    index = int(stories.fits.argmax())
    story = stories.stories[index]["sentences"]
    shuffled = [story[label] for label in stories.evaluation_labels(index)]
    answer = SentenceOrderingPipeline(model=run.model, tokenizer=run.tokenizer)(shuffled)
    log(f"\nA story from the {split} split, shuffled:")
    for sentence in shuffled:
        log(f"    {sentence}")
    log("In the order of the model (true position in brackets):")
    for sentence in answer["sentences"]:
        log(f"    [{story.index(sentence) + 1}] {sentence}")
