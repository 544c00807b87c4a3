"""Draws how a model puts a story of the bundled sample in order: the picture at the top of README.md.

    python examples/picture_of_a_story.py --model my-first-model --output examples/pictures/story.svg

`my-first-model` is what the first command of README.md makes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from dataset_builder import load_stories, shuffled_labels
from model_card.story_picture import draw_story
from modeling_sentence_ordering import SentenceOrderingPipeline
from training import load_trained_model


def main(arguments: Sequence[str] | None = None) -> None:
    """Orders one story of the test split, in its one shuffle, and draws it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, metavar="DIR", help="a trained model")
    parser.add_argument("--output", required=True, metavar="FILE.svg", help="the picture")
    parser.add_argument("--storyid", default="sample-0306", help="which story of the test split (default: sample-0306)")
    options = parser.parse_args(arguments)

    found = [story for story in load_stories(["sample"])["test"] if story["storyid"] == options.storyid]
    if not found:
        parser.error(f"there is no story {options.storyid} in the test split of the sample")
    story = found[0]
    shuffled = [story["sentences"][label] for label in shuffled_labels(story["storyid"], story["sentences"], 42)]

    model, tokenizer = load_trained_model(options.model)
    order = SentenceOrderingPipeline(model=model, tokenizer=tokenizer)
    answer = order(shuffled, num_permutations=8)
    draw_story(options.output, shuffled, answer["order"], answer.get("confidence"), story["storytitle"])
    print(f"wrote {options.output}")


if __name__ == "__main__":
    main()
