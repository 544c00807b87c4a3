"""The sections of a model card as Markdown. Unmeasured values are omitted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from .facts import METRICS, Example, ModelFacts
from .markdown import as_text, fenced, listed, number, table

SHOWN_TIES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
MAX_GROUPS = 12  # columns or rows of a table; more positions or story lengths are merged into ranges
_EXPLAINED = """\
*Kendall's tau* compares the predicted order with the true one, pair by pair: 1 is the same order, -1 the reverse. \
*Accuracy* is the share of a story's sentences at their true position, averaged over stories. *Perfect match ratio* is \
the share of stories with all sentences at their true position. *Random order* is the expected value by chance."""
_FRAMEWORKS = {"trainer": "transformers' `Trainer`", "lightning": "Lightning", "poutyne": "Poutyne"}


def results(facts: ModelFacts) -> str:
    """Metrics with confidence intervals and baselines, by position and by number of sentences."""
    split, found = facts.main_split, facts.results.get("analysis")
    if split is None or found is None:
        return "## Results\n\nNot measured: the data had no stories for evaluation."
    intervals = found["intervals"]
    certain = "kendalls_tau" in intervals
    metrics = facts.results[split]
    before = facts.results.get("before_training", {})
    rows = [["**This model**", *(_with_interval(metrics[name], intervals.get(name)) for name in METRICS)]]
    if before.get("split") == split:
        rows.append(["Before training", *_numbers(before)])
    rows.append(["Input order", *_numbers(found["baselines"]["input_order"])])
    rows.append(["Random order", *_numbers(found["baselines"]["random_order"])])
    confidence = (
        f" In parentheses: {intervals['level']:.0%} confidence intervals, percentiles of {intervals['resamples']:,} "
        "bootstrap resamples of the stories (Efron & Tibshirani 1993). They do not include the variation between "
        "training runs."
    )
    return "\n\n".join(
        [
            "## Results",
            f"On the {metrics['stories']:,} {_evaluated(facts)} of the {split} split ({metrics['sentences']:,} "
            "sentences), each shuffled once with a fixed seed:",
            table(["", *METRICS.values()], rows),
            f"{_EXPLAINED}{confidence if certain else ''}",
            *_remarks(facts, metrics, intervals),
            "### By position",
            _by_position(found["by_position"]),
            *_heatmap(facts),
            "### By number of sentences",
            _by_sentences(found["by_sentences"]),
            *_partial_orders(found.get("partial_orders", ())),
        ]
    )


def _remarks(facts: ModelFacts, metrics: Mapping[str, Any], intervals: Mapping[str, Any]) -> list[str]:
    remarks = []
    still = [_within(METRICS[name]) for name in METRICS if len(set(intervals.get(name, [0, 1]))) == 1]
    if still:
        remarks.append(f"All stories have the same {listed(still)}, so its interval has no width.")
    if metrics.get("dropped_sentences"):
        remarks.append(
            f"{metrics['dropped_sentences']:,} of these sentences exceeded the encoder's limit and were not ordered."
        )
    if facts.main_split == "test" and (validation := facts.results.get("validation")):
        recipe = facts.recipe
        best = recipe.get("load_best_model_at_end") and recipe.get("eval_strategy") != "no"
        values = listed([f"{_within(words)} {number(validation[name])}" for name, words in METRICS.items()])
        chosen = " The checkpoint was selected by these stories." if best else ""
        remarks.append(f"On the {validation['stories']:,} validation stories: {values}.{chosen}")
    return remarks


def _within(words: str) -> str:
    """A metric's name inside a sentence."""
    return words if words.startswith("Kendall") else words.lower()


def _numbers(metrics: Mapping[str, float]) -> list[str]:
    return [number(metrics[name]) for name in METRICS]


def _with_interval(value: float, interval: Sequence[float] | None) -> str:
    around = f"<br>({number(interval[0])} to {number(interval[1])})" if interval else ""
    return f"**{number(value)}**{around}"


def _merged(rows: Sequence[Mapping[str, Any]], key: str, weight: str) -> list[dict[str, Any]]:
    """At most `MAX_GROUPS` rows: neighbouring rows merged, their values averaged by `weight`, `key` as a range."""
    size = math.ceil(len(rows) / MAX_GROUPS)
    merged = []
    for start in range(0, len(rows), size):
        some = rows[start : start + size]
        total = sum(row[weight] for row in some)
        values = {name: sum(row[name] * row[weight] for row in some) / total
                  for name in some[0] if name not in (key, weight)}  # fmt: skip
        ends = dict.fromkeys(str(row[key]) for row in (some[0], some[-1]))
        merged.append({key: "–".join(ends), weight: total, **values})
    return merged


def _by_position(rows: Sequence[Mapping[str, Any]]) -> str:
    shown = _merged(rows, "position", "sentences")
    return table(
        ["True position", *(row["position"] for row in shown)],
        [
            ["Accuracy", *(number(row["accuracy"]) for row in shown)],
            ["Sentences", *(f"{row['sentences']:,}" for row in shown)],
        ],
    )


def _by_sentences(rows: Sequence[Mapping[str, Any]]) -> str:
    if len(rows) == 1:
        return f"All stories have {rows[0]['sentences']} sentences."
    return table(
        ["Sentences", "Stories", *METRICS.values()],
        [
            [row["sentences"], f"{row['stories']:,}", *_numbers(row)]
            for row in _merged(rows, "sentences", "stories")
        ],
    )  # fmt: skip


def _partial_orders(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if not rows:
        return []
    cells = [
        ["whole order" if row["ties"] == 0.5 else f"{row['ties']:.2f}", *map(_percent, (row["asserted"],
         row["precision"], row["recall"])), number(row["kendalls_tau_b"])]
        for row in rows
        if row["ties"] in SHOWN_TIES
    ]  # fmt: skip
    return [
        "### Partial orders",
        "With `ties=p` the pipeline groups sentences into layers and asserts only precedences of which the model is at "
        "least `p` sure. *Precision* is the share of asserted precedences that are right, *recall* the share of true "
        "ones that are asserted, *tau-b* Kendall's tau with ties, averaged over stories.",
        table(["`ties`", "Asserted pairs", "Precision", "Recall", "Tau-b"], cells),
    ]


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def _heatmap(facts: ModelFacts) -> list[str]:
    if facts.heatmap is None:
        return []
    return [
        f"![Predicted positions of the sentences of each true position]({facts.heatmap})",
        "Rows are true positions, columns predicted positions; the diagonal is the accuracy above.",
    ]


def examples(facts: ModelFacts) -> str:
    """Ordered stories and their errors; empty if no story may be quoted."""
    if not facts.examples or facts.main_split is None:
        return ""
    draw = facts.results["analysis"]["examples"]
    these = "This is" if len(facts.examples) == 1 else "These are"
    names = listed([f"the {example.chosen}" for example in facts.examples])
    metrics, longest = facts.results[facts.main_split], facts.results["analysis"]["by_sentences"][-1]["sentences"]
    which = f"{draw['drawn']:,} stories"
    if longest > draw["longest"]:
        which += f" with at most {draw['longest']} sentences"
    if metrics.get("dropped_sentences"):
        which += " that fit in the encoder"
    if draw["drawn"] < draw["candidates"]:
        chosen_from = f"{which}, drawn at random (seed {draw['seed']}) from the {facts.main_split} split"
    else:
        chosen_from = f"the {which} in the {facts.main_split} split"
    return "\n\n".join(
        [
            "## Examples",
            f"{these} {names} by Kendall's tau of {chosen_from}. The licence of the stories is "
            f"`{facts.quoted_under}`. *Predicted* is the position by the model, *true* the position in the story.",
            *(_example(example) for example in facts.examples),
        ]
    )


def _example(example: Example) -> str:
    rows = [
        [f"{rank + 1}", f"{true + 1}" if true == rank else f"**{true + 1}**", as_text(example.sentences[true])]
        for rank, true in enumerate(example.order)
    ]
    lines = ["| Predicted | True | Sentence |", "|---:|---:|:---|", *(f"| {' | '.join(row)} |" for row in rows)]
    heading = f"### The {example.chosen}: tau {number(example.kendalls_tau)}"
    return "\n\n".join([heading, _errors(example.order), "\n".join(lines)])


def _errors(order: Sequence[int]) -> str:
    pairs = [(first, second) for rank, first in enumerate(order) for second in order[rank + 1 :]]
    wrong = sum(first > second for first, second in pairs)
    if not wrong:
        return "Every sentence is at its true position."
    off = {true: rank - true for rank, true in enumerate(order)}
    furthest = max(sorted(off), key=lambda true: abs(off[true]))  # the first in the story, if there are several
    positions = f"{abs(off[furthest])} position{'s' * (abs(off[furthest]) > 1)}"
    direction = "late" if off[furthest] > 0 else "early"
    return (
        f"{wrong} of {len(pairs)} pairs of sentences {'is' if wrong == 1 else 'are'} in the wrong order. Sentence "
        f"{furthest + 1} is furthest from its true position: {positions} too {direction}."
    )


_HEADS = {
    "score": "A linear head gives each sentence a score, and the sentences are sorted by score.",
    "pairs": "The head gives each pair of sentences the log-odds of their order. The result is the order with the "
    "highest sum of log-probabilities over all pairs.",
}


def training(facts: ModelFacts) -> str:
    """Encoder, data, time, hardware, loss curve, recipe and versions."""
    recipe, run, environment = facts.recipe, facts.results["training"], dict(facts.results["environment"])
    encoder = f"[{facts.base_model}](https://huggingface.co/{facts.base_model})" if facts.base_model else None
    device = environment.pop("device", None)
    hardware = environment.pop("hardware", device)
    versions = [f"{as_text(name)} {as_text(str(value))}" for name, value in environment.items()]
    rows = [
        ["Encoder", encoder or as_text(recipe["encoder"])],
        ["Parameters", f"{facts.parameters:,}"],
        ["Objective", f"`{recipe['objective']}`"],
        ["Data", listed([_data_link(facts, source) for source in facts.data_names])],
        ["Training stories", f"{run['stories']:,}, {_sentences(facts)}"],
        ["Framework", _FRAMEWORKS.get(recipe.get("framework", ""), str(recipe.get("framework", "")))],
        ["Hardware", as_text(str(hardware))],
        ["Training time", _duration(run["seconds"])],
    ]
    return "\n\n".join(
        [
            f"The encoder reads all sentences of a story at once, each after a marker token. {_HEADS[facts.head]}",
            "\n".join(["| | |", "|---|---|", *(f"| {' | '.join(row)} |" for row in rows)]),
            *([f"![Loss and Kendall's tau during training]({facts.curves})"] if facts.curves else []),
            "The complete recipe. With the same data, `sentence-ordering train --config recipe.yaml --output_dir DIR` "
            "repeats the training:",
            fenced(yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True), "yaml"),
            f"Versions: {', '.join(versions)}.",
        ]
    )


def _data_link(facts: ModelFacts, source: str) -> str:
    return f"[{source}](https://huggingface.co/datasets/{source})" if source in facts.datasets else as_text(source)


def _sentences(facts: ModelFacts) -> str:
    """What the model was trained on: stories of so many sentences, or passages of them."""
    fewest, most = facts.training_sentences
    in_passages = "in passages " if facts.recipe.get("passage_sentences") else ""
    return f"{in_passages}of {fewest if fewest == most else f'{fewest} to {most}'} sentences"


def _evaluated(facts: ModelFacts) -> str:
    return "passages of stories" if facts.recipe.get("passage_sentences") else "stories"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def limits(facts: ModelFacts) -> str:
    """Intended use and limits, as far as they follow from the training."""
    points = [
        "Intended for the sentences of one text whose order was lost, and for research on coherence.",
        "The model always returns an order, even for sentences that do not belong together. Scores can be compared "
        "within one story only; they do not measure how well a text is written.",
        f"Trained on {facts.results['training']['stories']:,} stories {_sentences(facts)}. Texts of other kinds "
        "or lengths were not tested.",
        f"Language of the stories: {listed([f'`{code}`' for code in facts.language])}. Other languages were not tested."
        if facts.language
        else "The language of the stories was not stated.",
        f"The results are from a single training run (seed {facts.recipe['seed']}).",
    ]
    if facts.max_input_tokens is not None:
        points.append(
            f"The encoder reads at most {facts.max_input_tokens:,} tokens at once. Longer texts are ordered in groups "
            "of sentences; the quality of this was not measured."
        )
    if facts.base_model is not None:
        points.append("The model inherits the biases of its encoder.")
    return "\n".join(f"- {point}" for point in points)


def citation(facts: ModelFacts) -> str:
    """How to cite the program, the encoder and the data."""
    version = facts.results["environment"].get("sentence-ordering")
    entry = [
        "@software{sentence_ordering,",
        "  title = {sentence-ordering: train, share and run models that put shuffled sentences back in order},",
        *([f"  version = {{{version}}},"] if version else []),
        "}",
    ]
    also = [f"the encoder [{facts.base_model}](https://huggingface.co/{facts.base_model})"] if facts.base_model else []
    also += [f"the data {_data_link(facts, source)}" for source in facts.datasets]
    return fenced("\n".join(entry), "bibtex") + (f"\n\nPlease cite {listed(also)} as well." if also else "")
