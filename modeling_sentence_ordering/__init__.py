"""The model that puts shuffled sentences in order: everything that travels with a model to the Hub.

This package imports nothing but torch, transformers and the standard library, so that its files work on their
own when `AutoModel.from_pretrained(repo, trust_remote_code=True)` copies them out of a repository.
"""

from transformers import AutoConfig, AutoModel

from .configuration_sentence_ordering import SentenceOrderingConfig
from .decoding_sentence_ordering import (
    FIXED_POINT_NAMES,
    FixedPoints,
    average_scores,
    best_order,
    best_orders,
    combine_groups,
    confidence,
    decoded_ranks,
    in_order,
    number_of_rounds,
    order_by_scores,
)
from .modeling_sentence_ordering import SentenceOrderingModel, SentenceOrderingOutput
from .objectives_sentence_ordering import OBJECTIVES, compute_metrics, objective_loss, story_metrics
from .pipeline_sentence_ordering import (
    AnswerOptions,
    SentenceOrderingPipeline,
    StoryScores,
    answer_of,
    coherence,
    moved,
    score_long_text,
    score_stories,
    weakest_across,
)
from .repository_sentence_ordering import load_tokenizer, save_tokenizer
from .tokenization_sentence_ordering import (
    DataCollatorForSentenceOrdering,
    StoryTokenizer,
    TokenizedStory,
    arrangements,
    batches_by_length,
)

__all__ = [
    "AnswerOptions",
    "DataCollatorForSentenceOrdering",
    "FIXED_POINT_NAMES",
    "FixedPoints",
    "OBJECTIVES",
    "SentenceOrderingConfig",
    "SentenceOrderingModel",
    "SentenceOrderingOutput",
    "SentenceOrderingPipeline",
    "StoryScores",
    "StoryTokenizer",
    "TokenizedStory",
    "answer_of",
    "arrangements",
    "average_scores",
    "batches_by_length",
    "best_order",
    "best_orders",
    "coherence",
    "combine_groups",
    "compute_metrics",
    "confidence",
    "decoded_ranks",
    "in_order",
    "load_tokenizer",
    "moved",
    "number_of_rounds",
    "objective_loss",
    "order_by_scores",
    "save_tokenizer",
    "score_long_text",
    "score_stories",
    "story_metrics",
    "weakest_across",
]

# Where this package is installed, saved models need no `trust_remote_code`. The pipeline's file registers its own task.
AutoConfig.register(SentenceOrderingConfig.model_type, SentenceOrderingConfig, exist_ok=True)
AutoModel.register(SentenceOrderingConfig, SentenceOrderingModel, exist_ok=True)
