"""Records the number, lengths and hashes of the training stories."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from dataset_builder import story_hash
from training.data.passages import StreamedPassage
from training.data.stories import TokenizedStories, sentences_of, training_sampler
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
        model_folder.write_story_hashes(run.folder, map(story_hash, sentences_of(stories.stories)))
        shortest, longest = int(stories.num_sentences.min()), int(stories.num_sentences.max())
        if run.recipe.passage_sentences is not None:
            fewest, most = run.recipe.passage_sentences
            shortest, longest = min(shortest, fewest), min(longest, most)
        return TrainedOn(len(stories), (shortest, longest))
    sampler = training_sampler(stories, run.recipe.for_one_process(run.processes.world_size)).sampler
    assert isinstance(sampler, StreamBatchSampler)
    drawn = sampler.stories_in(steps)
    lengths: set[int] = set()

    def hashes() -> Iterator[str]:
        for story in sampler.stories_of_steps(steps):
            lengths.add(len(story.sentences))
            yield story.text_hash if isinstance(story, StreamedPassage) else story_hash(story.sentences)

    hashed = drawn <= MOST_HASHES
    if hashed:
        texts = model_folder.write_story_hashes(run.folder, hashes())
        drawn = drawn if run.recipe.passage_sentences is None else texts
    else:
        (run.folder / model_folder.STORY_HASHES_FILE).unlink(missing_ok=True)  # of an earlier model
        for _ in islice(hashes(), _SAMPLED_FOR_LENGTHS):
            pass
    return TrainedOn(drawn, (min(lengths), max(lengths)), hashed)
