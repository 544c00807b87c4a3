"""Records the number, lengths and hashes of the training stories."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from training.data.stories import TokenizedStories, training_sampler
from training.data.streaming import StreamBatchSampler
from training.frameworks.run import TrainedOn, TrainingRun
from training.models import model_folder

# No hashes are written for more streamed stories: the file would be larger than many models.
MOST_HASHES = 1_000_000
_SAMPLED_FOR_LENGTHS = 10_000  # stories that are read in that case


def record_training_stories(run: TrainingRun, steps: int) -> TrainedOn:
    """Writes the hashes of the training stories, or, of a stream, those of the first `steps` steps.

    A stream is read once more, since a resumed run has not seen the stories before the checkpoint.
    """
    stories = run.training
    if isinstance(stories, TokenizedStories):
        model_folder.write_story_hashes(run.folder, stories.stories)
        return TrainedOn(len(stories), (int(stories.num_sentences.min()), int(stories.num_sentences.max())))
    sampler = training_sampler(stories, run.recipe.for_one_process(run.processes.world_size)).sampler
    assert isinstance(sampler, StreamBatchSampler)
    drawn = sampler.stories_in(steps)
    lengths: set[int] = set()

    def records() -> Iterator[dict[str, Any]]:
        for story in sampler.drawn(steps):
            lengths.add(len(story.sentences))
            yield {"sentences": story.sentences}

    hashed = drawn <= MOST_HASHES
    if hashed:
        model_folder.write_story_hashes(run.folder, records())
    else:
        (run.folder / model_folder.STORY_HASHES_FILE).unlink(missing_ok=True)  # of an earlier model
        for _ in islice(records(), _SAMPLED_FOR_LENGTHS):
            pass
    return TrainedOn(drawn, (min(lengths), max(lengths)), hashed)
