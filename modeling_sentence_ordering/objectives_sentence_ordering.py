"""Training objectives and metrics: how scores are compared with the true order.

A new objective is one function and one entry in `OBJECTIVES`. This file imports only torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, groupby
from math import factorial, prod
from typing import Any

import torch
from torch import Tensor, nn

Objective = Callable[[Tensor, Tensor, Tensor, str], Tensor]

PADDING = -100
"""The label of padding, and the score of padding and of sentences without a score."""


def mean_squared_error(scores: Tensor, labels: Tensor, valid: Tensor, target_scale: str) -> Tensor:
    """Squared error between each sentence's score and its original index, summed over the story.

    The objective of the 2021 guide. Not divided by the number of sentences: as there, longer stories weigh more.

    Args:
        scores: `(batch, max_sentences)`, float32 or float64.
        labels: `(batch, max_sentences)`, int64, original index or -100.
        valid: `(batch, max_sentences)`, bool, the sentences that have both a score and a label.
        target_scale: `"index"` for the raw index, `"unit"` for index / (N - 1), where N counts all labelled
            sentences of the story, those that were cut off included.

    Returns:
        `(batch,)`, one loss per story, 0 where nothing is valid.
    """
    targets = labels.to(scores.dtype)
    if target_scale == "unit":
        sentences = (labels != PADDING).sum(dim=1, keepdim=True)
        targets = targets / (sentences - 1).clamp(min=1)
    return torch.where(valid, (scores - targets) ** 2, torch.zeros_like(scores)).sum(dim=1)


def pairwise_logistic(scores: Tensor, labels: Tensor, valid: Tensor, target_scale: str) -> Tensor:  # noqa: ARG001
    """RankNet: -log of the probability σ(s_later - s_earlier) of each pair of sentences of a story.

    Burges et al., 2005, "Learning to Rank using Gradient Descent", doi:10.1145/1102351.1102363.

    The sum over the N (N - 1) / 2 pairs is divided by N - 1, the number of pairs that each sentence is in. So a story
    weighs as much as it has sentences, as with `mse` and `listmle`. With the sum, a story of 10 would weigh 45 times
    one of 2; with the mean over pairs, a sentence of a story of 2 five times one of a story of 10.

    Args and returns are those of `mean_squared_error`; `target_scale` and the distance between two labels are not used.
    """
    labels, scores = _zero_invalid(labels, scores, valid)
    return pair_logistic(scores.unsqueeze(1) - scores.unsqueeze(2), labels, valid)


def pair_logistic(pair_logits: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
    """The loss of `pairwise_logistic` for logits of pairs.

    Args:
        pair_logits: `(batch, max_sentences, max_sentences)`, [b, i, j] the logit of «i before j».
        labels: `(batch, max_sentences)`, int64, original index or -100.
        valid: `(batch, max_sentences)`, bool, the sentences that have both logits and a label.

    Returns:
        `(batch,)`, one loss per story.
    """
    in_order = _earlier(labels, valid)
    # A NaN in a pair that does not count would reach every gradient: it is replaced before the logarithm, too.
    counted = torch.where(in_order, pair_logits, torch.zeros_like(pair_logits))
    losses = torch.where(in_order, -nn.functional.logsigmoid(counted), torch.zeros_like(counted))
    return losses.sum(dim=(1, 2)) / (valid.sum(dim=1) - 1).clamp(min=1)


def list_mle(scores: Tensor, labels: Tensor, valid: Tensor, target_scale: str) -> Tensor:  # noqa: ARG001
    """ListMLE: -log of the probability of the true order under a Plackett-Luce model with strengths exp(-score).

    Xia et al., 2008, "Listwise Approach to Learning to Rank: Theory and Algorithm", doi:10.1145/1390156.1390306. The
    sentences are drawn one by one, each with a probability proportional to its strength among the remaining ones;
    lower scores come first, hence the minus.

    Args and returns are those of `mean_squared_error`; `target_scale` is not used.
    """
    return _plackett_luce_steps(scores, labels, valid).sum(dim=1)


def position_list_mle(scores: Tensor, labels: Tensor, valid: Tensor, target_scale: str) -> Tensor:  # noqa: ARG001
    """Position-aware ListMLE: as `list_mle`, but mistakes near the beginning weigh more.

    Lan et al., 2014, "Position-Aware ListMLE: A Sequential Learning Process for Ranking" (UAI), with their weights
    2^(N - k) - 1 for the k-th of N draws. They are scaled to a sum of N - 1 (the draws in which there is a choice):
    otherwise a story of 10 would weigh a thousand times one of 2.

    Args and returns are those of `mean_squared_error`; `target_scale` is not used.
    """
    count = valid.sum(dim=1, keepdim=True)
    rank = _earlier(labels, valid).sum(dim=1)
    # Divided by 2^N: the paper's own weights of more than 127 sentences are beyond float32.
    weights = torch.exp2(-(rank + 1).to(scores.dtype)) - torch.exp2(-count.to(scores.dtype))
    weights = torch.where(valid, weights, torch.zeros_like(weights))
    total = weights.sum(dim=1, keepdim=True)
    weights = weights * (count - 1) / torch.where(total > 0, total, torch.ones_like(total))
    return (weights * _plackett_luce_steps(scores, labels, valid)).sum(dim=1)


def _plackett_luce_steps(scores: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
    """`(batch, max_sentences)`: -log of each sentence's probability to be drawn when it was its turn."""
    labels, scores = _zero_invalid(labels, scores, valid)
    # Over all pairs, not sorted and summed up from the end: equal to the last digits for any order of the input. Each
    # sentence counts among its own remaining ones, so that no row is empty and no gradient NaN.
    drawn_before = _earlier(labels, valid).transpose(1, 2)  # [b, i, j]: j was drawn before i
    exists = valid.unsqueeze(1) | torch.eye(valid.shape[1], dtype=torch.bool, device=valid.device)
    remaining = exists & ~drawn_before
    strengths = torch.where(remaining, -scores.unsqueeze(1), torch.full_like(scores, -torch.inf).unsqueeze(1))
    steps = strengths.logsumexp(dim=2) + scores
    return torch.where(valid, steps, torch.zeros_like(steps))


def _earlier(labels: Tensor, valid: Tensor) -> Tensor:
    """`(batch, max_sentences, max_sentences)`, bool: sentence i truly comes before sentence j, both are valid."""
    return (labels.unsqueeze(2) < labels.unsqueeze(1)) & valid.unsqueeze(2) & valid.unsqueeze(1)


def _zero_invalid(labels: Tensor, scores: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Labels and scores with zeros where they are not valid: a NaN there would reach every gradient."""
    return torch.where(valid, labels, torch.zeros_like(labels)), torch.where(valid, scores, torch.zeros_like(scores))


OBJECTIVES: dict[str, Objective] = {
    "mse": mean_squared_error,
    "pairwise": pairwise_logistic,
    "listmle": list_mle,
    "position_listmle": position_list_mle,
}


def pair_consistency(pair_logits: Tensor, labels: Tensor, valid: Tensor, is_twin: Tensor) -> Tensor:
    """How much two shuffles of a story disagree about its pairs: R-Drop, with a second shuffle added to the dropout.

    Liang et al., 2021, "R-Drop: Regularized Dropout for Neural Networks", arXiv:2106.14448. For each pair of sentences
    it is the mean of the two Kullback-Leibler divergences between the probabilities that both rows give to «i before
    j», (σ(a) - σ(b)) (a - b) / 2 for the logits a and b. Like `pair_logistic`, the sum over pairs is divided by N - 1.

    Args:
        pair_logits: `(batch, max_sentences, max_sentences)`.
        labels: `(batch, max_sentences)`, int64, original index or -100.
        valid: `(batch, max_sentences)`, bool, the sentences that have both logits and a label.
        is_twin: `(batch,)`, bool, the row is another shuffle of the story in the row before it.

    Returns:
        `(batch,)`, the disagreement of each twin with the row before it, 0 for other rows.
    """
    # [b, k, i]: sentence i is the k-th of the story. As a product, which has a gradient that is the same in every run.
    at = (labels.unsqueeze(1) == torch.arange(labels.shape[1], device=labels.device).view(1, -1, 1)) & valid.unsqueeze(
        1
    )
    at = at.to(pair_logits.dtype)
    both = valid.unsqueeze(2) & valid.unsqueeze(1)
    in_story = at @ torch.where(both, pair_logits, torch.zeros_like(pair_logits)) @ at.transpose(1, 2)
    here, before = in_story, in_story.roll(1, dims=0)
    known = at.amax(dim=2) * at.amax(dim=2).roll(1, dims=0)  # in both rows
    known = (known.unsqueeze(2) * known.unsqueeze(1)).triu(1)
    divergence = 0.5 * (here.sigmoid() - before.sigmoid()) * (here - before) * known
    per_row = divergence.sum(dim=(1, 2)) / (valid.sum(dim=1) - 1).clamp(min=1)
    return torch.where(is_twin, per_row, torch.zeros_like(per_row))


def check_head(objective: str, head: str) -> None:
    """Raises ValueError for an unknown objective, and for `mse` with the head `pairs`, which it cannot train."""
    if objective not in OBJECTIVES:
        raise ValueError(f"unknown objective {objective!r}; choose from {', '.join(OBJECTIVES)}")
    if head == "pairs" and objective == "mse":
        raise ValueError(
            "the objective 'mse' cannot train the head 'pairs', which does not predict positions: use 'pairwise'"
        )


def objective_loss(
    scores: Tensor,
    labels: Tensor,
    sentence_mask: Tensor,
    *,
    objective: str = "mse",
    target_scale: str = "index",
    num_stories: Tensor | float | None = None,
    pair_logits: Tensor | None = None,
    consistency: float = 0.0,
    is_twin: Tensor | None = None,
) -> Tensor:
    """The model's loss: the objective of each story, averaged over the stories that have a label.

    Args:
        scores: `(batch, max_sentences)`, any float dtype; computed in float32 at least, autocast or not.
        labels: `(batch, max_sentences)`, int64: the original index (0 … N-1) of each sentence, -100 for padding.
        sentence_mask: `(batch, max_sentences)`, bool, false where there is no score.
        objective: a key of `OBJECTIVES`.
        target_scale: `"index"` or `"unit"`, see `SentenceOrderingConfig`.
        num_stories: what the sum over stories is divided by instead of this batch's own number of labelled
            stories. Under gradient accumulation the collator passes the step's stories divided by its micro-batches,
            so that k micro-batches of unequal size give the gradient of the one batch that they make up.
        pair_logits: `(batch, max_sentences, max_sentences)`, of a model with `head="pairs"`. `pairwise` is computed of
            them, `listmle` and `position_listmle` of the scores. `mse` is refused: these scores have a mean of 0.
        consistency: weight of `pair_consistency`, averaged over the stories that are in the batch twice.
        is_twin: see `pair_consistency`; no row is a twin if None.

    Returns:
        A scalar with a gradient, 0 if no sentence has a label.

    Raises:
        ValueError: if the objective does not exist, or labels and scores differ in shape.
    """
    check_head(objective, "score" if pair_logits is None else "pairs")
    if labels.shape != scores.shape:
        raise ValueError(f"labels are {tuple(labels.shape)} but scores are {tuple(scores.shape)}: one per sentence")
    valid = sentence_mask & (labels != PADDING)
    # Promoted, not cast: under float64 the loss stays float64. No op here is on autocast's lists for bf16 or fp16
    # inputs, since what comes in is float32 at least.
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if pair_logits is not None and objective == "pairwise":
        per_story = pair_logistic(pair_logits.to(scores.dtype), labels, valid)
    else:
        per_story = OBJECTIVES[objective](scores, labels, valid, target_scale)
    if consistency and is_twin is not None:
        logits = scores.unsqueeze(1) - scores.unsqueeze(2) if pair_logits is None else pair_logits.to(scores.dtype)
        # Twice, since the average below is over rows, and one row in two is a twin.
        per_story = per_story + 2 * consistency * pair_consistency(logits, labels, valid, is_twin)
    if num_stories is None:
        num_stories = valid.any(dim=1).sum().clamp(min=1)
    return per_story.sum() / num_stories


def compute_metrics(prediction: Any) -> dict[str, float]:
    """The metrics of an evaluation, for `Trainer(compute_metrics=…)`.

    Args:
        prediction: the `EvalPrediction` of `Trainer`, or a pair of predictions and labels. The predictions are the
            logits `(stories, max_sentences)`, or a tuple that begins with them. Where the tuple has `ranks` (of a model
            with `head="pairs"`), these order the sentences instead. Labels of -100 are padding, and so are logits of
            exactly -100, with which `Trainer` pads stories of unequal length.

    Returns:
        - `accuracy`: share of a story's sentences at their true position, averaged over stories.
        - `kendalls_tau`: (concordant - discordant) pairs over all pairs of a story, averaged over stories.
        - `pmr`: perfect match ratio, the share of stories that are entirely in order.
        - `mean_logits`, `std_logits`: mean and population standard deviation of the scores. A standard deviation close
          to 0 shows a model that has collapsed to a constant.

        Stories with fewer than two scored sentences have no order and are left out of the first three.

    Raises:
        ValueError: if a score is not finite, or no story has two sentences with a label and a score.
    """
    logits, labels = prediction[0], prediction[1]
    ranks = None
    if isinstance(logits, (tuple, list)):
        logits, *others = map(torch.as_tensor, logits)
        ranks = next((one for one in others if one.shape == logits.shape and one.dtype.is_floating_point), None)
    labels = labels[0] if isinstance(labels, tuple) else labels
    logits, labels = torch.as_tensor(logits).double(), torch.as_tensor(labels)
    valid = (labels != PADDING) & (logits != PADDING)
    if not logits[valid].isfinite().all():
        raise ValueError("the model's scores are not finite: training has diverged; lower the learning rate")
    per_story = story_metrics(logits if ranks is None else ranks, labels, valid)
    scored = valid.sum(dim=1) >= 2
    if not scored.any():
        raise ValueError(f"none of {len(labels)} stories has two sentences with a label and a score")
    return {
        **{name: values[scored].mean().item() for name, values in per_story.items()},
        "mean_logits": logits[valid].mean().item(),
        "std_logits": logits[valid].std(correction=0).item(),
    }


def story_metrics(
    scores: Any, labels: Any, valid: Any = None, copies: Mapping[int, Sequence[int]] | None = None
) -> dict[str, Tensor]:
    """Accuracy, Kendall's tau and perfect match of each story.

    Scores order a story's sentences, lowest first. Ranks are compared with ranks among the valid sentences, so that a
    story that was cut off is judged by the sentences that are left. Where scores tie, each metric is its expected value
    over all ways to break the ties: the order of the input does not matter, and a model that gives every sentence the
    same score gets tau 0, accuracy 1/N and pmr 1/N!.

    Identical sentences are interchangeable: a position is right if the text there is the true one, a story is in order
    if its texts are, and a pair of identical sentences is never discordant. For the other pairs, the copy with the
    lowest score counts as the first one of the story, and so on.

    Args:
        scores: `(stories, max_sentences)`, numbers.
        labels: `(stories, max_sentences)`, the original index of each sentence, -100 for padding.
        valid: `(stories, max_sentences)`, bool, the sentences that have both a score and a label; those with a label if
            None.
        copies: of each story in which a sentence occurs more than once, by its row: for each original index the lowest
            original index with the same text. None if no sentence does.

    Returns:
        `accuracy`, `kendalls_tau` and `pmr`, float64 `(stories,)`, NaN where fewer than two sentences are valid.
    """
    scores, labels = torch.as_tensor(scores, dtype=torch.float64), torch.as_tensor(labels)
    valid = labels != PADDING if valid is None else torch.as_tensor(valid)
    counts = valid.sum(dim=1)
    in_true_order = torch.where(valid, labels, torch.iinfo(torch.int32).max).argsort(dim=1)
    scores = torch.where(valid, scores, torch.inf).gather(1, in_true_order)[
        :, : int(counts.max()) if len(counts) else 0
    ]
    accuracy, pmr = _expected_matches(scores, counts)
    metrics = {"accuracy": accuracy, "kendalls_tau": _expected_tau(scores, counts), "pmr": pmr}
    for story, same in (copies or {}).items():
        places = in_true_order[story, : int(counts[story])]
        found = _with_copies(scores[story, : len(places)].tolist(), [same[i] for i in labels[story, places].tolist()])
        for name, value in zip(("accuracy", "kendalls_tau", "pmr"), found, strict=True):
            metrics[name][story] = value
    return {name: torch.where(counts >= 2, values, torch.nan) for name, values in metrics.items()}


def _with_copies(scores: list[float], texts: list[int]) -> tuple[float, float, float]:
    """Accuracy, Kendall's tau and perfect match of a story with identical sentences.

    Args:
        scores: in true order.
        texts: for each sentence a number that identical ones share.
    """
    count, matches, perfect, place = len(scores), 0.0, 1.0, 0
    for _, tied in groupby(sorted(range(count), key=scores.__getitem__), key=scores.__getitem__):
        block = Counter(texts[i] for i in tied)
        size = block.total()
        truth = Counter(texts[place : place + size])
        matches += sum(number * truth[text] for text, number in block.items()) / size
        perfect *= prod(map(factorial, block.values())) / factorial(size) if block == truth else 0.0
        place += size
    remaining: dict[int, list[float]] = {}
    for score, text in sorted(zip(scores, texts, strict=True), reverse=True):
        remaining.setdefault(text, []).append(score)
    ranked = [remaining[text].pop() for text in texts]  # the lowest score of a text to its first sentence
    signs = 0
    for (earlier, one), (later, other) in combinations(zip(ranked, texts, strict=True), 2):
        signs += 1 if one == other else (later > earlier) - (later < earlier)
    return matches / max(count, 1), signs / max(count * (count - 1) / 2, 1), perfect


def _expected_tau(scores: Tensor, counts: Tensor) -> Tensor:
    """Kendall's tau of each story. A tied pair is as often concordant as discordant and adds nothing.

    Args:
        scores: `(stories, n)`, in true order, infinite behind the `counts` sentences of each story.
        counts: `(stories,)`.
    """
    # One step for each distance in the true order: an array of all pairs would take n times the memory.
    difference = torch.zeros_like(counts)
    for distance in range(1, scores.shape[1]):
        earlier, later = scores[:, :-distance], scores[:, distance:]
        difference += ((later > earlier) & (later < torch.inf)).sum(dim=1) - (later < earlier).sum(dim=1)
    return difference / (counts * (counts - 1) / 2).clamp(min=1).double()


def _expected_matches(scores: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Accuracy and perfect match ratio of each story; arguments as for `_expected_tau`.

    Equal scores share the ranks first … last. Each of their sentences is equally likely to get each of these ranks, and
    one of their (last - first + 1)! arrangements is the true one if all of their true ranks are among them.
    """
    ordered, true_rank = scores.sort(dim=1)  # the true rank of the sentence at each predicted rank
    ranks = torch.arange(scores.shape[1]).expand_as(true_rank)
    differs = ordered[:, 1:] != ordered[:, :-1]
    edge = torch.ones(len(scores), min(1, scores.shape[1]), dtype=torch.bool)
    first = torch.where(torch.cat([edge, differs], dim=1), ranks, 0).cummax(dim=1).values
    ends = torch.where(torch.cat([differs, edge], dim=1), ranks, scores.shape[1])
    last = ends.flip(1).cummin(dim=1).values.flip(1)

    is_sentence = ranks < counts[:, None]
    possible = is_sentence & (first <= true_rank) & (true_rank <= last)
    shares = torch.where(possible, 1 / (last - first + 1).double(), 0.0)
    # 1 / size! is the product of 1 / (1st, 2nd, … position within its group).
    factors = torch.where(possible, 1 / (ranks - first + 1).double(), (~is_sentence).double())
    return shares.sum(dim=1) / counts.clamp(min=1), factors.prod(dim=1)
