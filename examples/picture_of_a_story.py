"""Draws how a model puts a story of the bundled sample in order: the picture at the top of README.md.

    python examples/picture_of_a_story.py --model my-first-model --output examples/pictures/story.svg

`my-first-model` is what the first command of README.md makes. The story is the example that the model card
calls the median.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from dataset_builder import load_stories, shuffled_labels
from model_card.story_picture import draw_story
from modeling_sentence_ordering import SentenceOrderingPipeline
from training import load_trained_model


def main(arguments: Sequence[str] | None = None) -> None:
    """Orders one story of the test split, in its one shuffle, and draws it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, metavar="DIR", help="folder of a model trained on the sample")
    parser.add_argument("--output", required=True, metavar="FILE.svg", help="the picture")
    parser.add_argument("--storyid", help="story of the test split (default: the median example of the card)")
    options = parser.parse_args(arguments)

    stories = load_stories("sample")["test"]
    if options.storyid is None:
        story = stories[median_story(Path(options.model))]
    elif options.storyid in stories["storyid"]:
        story = stories[stories["storyid"].index(options.storyid)]
    else:
        parser.error(f"there is no story {options.storyid} in the test split of the sample")
    shuffled = [story["sentences"][label] for label in shuffled_labels(story["storyid"], story["sentences"], 42)]

    model, tokenizer = load_trained_model(options.model)
    order = SentenceOrderingPipeline(model=model, tokenizer=tokenizer)
    answer = order(shuffled, num_permutations=8)
    draw_story(options.output, shuffled, answer["order"], answer.get("confidence"), story["storytitle"])
    print(f"wrote {options.output}: {story['storyid']}")


def median_story(model: Path) -> int:
    """Index in the test split of the model card's median example, from the results in the model's folder."""
    results = json.loads((model / "results.json").read_text(encoding="utf-8"))
    (chosen,) = (story for story in results["analysis"]["examples"]["stories"] if story["chosen"] == "median")
    return int(chosen["story"])


if __name__ == "__main__":
    main()
