"""The sections of a model card, each from the model's facts to Markdown. What was not measured is not spoken of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from .facts import METRICS, Example, ModelFacts
from .markdown import as_text, fenced, listed, number, table

MOST_COLUMNS = 12  # of positions, and rows of numbers of sentences; beyond, neighbours are joined
_EXPLAINED = """\
*Kendall's tau* compares the order given with the true one, pair by pair: 1 is the same order, -1 the reverse. \
*Accuracy* is the share of a story's sentences that are at their true place, *perfect match ratio* the share of \
stories wholly in order. *Random order* is what chance gets on average."""
_FRAMEWORKS = {"trainer": "transformers' `Trainer`", "lightning": "Lightning", "poutyne": "Poutyne"}


def title(facts: ModelFacts) -> str:
    """The part that a person may write anew."""
    return f"# {as_text(facts.name.rpartition('/')[2])}\n\nPuts the shuffled sentences of a story back in order."


def results(facts: ModelFacts) -> str:
    """How good it is, how sure that is, and where the errors are."""
    split, found = facts.judged_split, facts.results.get("analysis")
    if split is None or found is None:
        return "## Results\n\nNot measured: there were no stories to evaluate the model on."
    intervals = found["intervals"]
    certain = "kendalls_tau" in intervals
    metrics = facts.results[split]
    before = facts.results.get("before_training", {})
    rows = [["**This model**", *(_with_interval(metrics[name], intervals.get(name)) for name in METRICS)]]
    if before.get("split") == split:
        rows.append(["Before training", *_numbers(before)])
    rows.append(["Sentences left as shown", *_numbers(found["baselines"]["input_order"])])
    rows.append(["Random order", *_numbers(found["baselines"]["random_order"])])
    confidence = (
        f" In brackets are {intervals['level']:.0%} confidence intervals: percentiles of {intervals['resamples']:,} "
        "bootstrap resamples of the stories (Efron & Tibshirani 1993). They tell what other stories of this kind would "
        "change, not what another training run would."
    )
    return "\n\n".join(
        [
            "## Results",
            f"On the {metrics['stories']:,} stories of the {split} split ({metrics['sentences']:,} sentences), each "
            "shuffled once, by a fixed seed:",
            table(["", *METRICS.values()], rows),
            f"{_EXPLAINED}{confidence if certain else ''}",
            *_remarks(facts, metrics, intervals),
            "### By position",
            _by_position(found["by_position"]),
            *_heatmap(facts),
            "### By number of sentences",
            _by_sentences(found["by_sentences"]),
        ]
    )


def _remarks(facts: ModelFacts, metrics: Mapping[str, Any], intervals: Mapping[str, Any]) -> list[str]:
    remarks = []
    still = [_within(METRICS[name]) for name in METRICS if len(set(intervals.get(name, [0, 1]))) == 1]
    if still:
        remarks.append(f"All stories have the same {listed(still)}, so its interval says nothing of other stories.")
    if metrics.get("dropped_sentences"):
        remarks.append(
            f"{metrics['dropped_sentences']:,} of these sentences were beyond the encoder's limit and were not ordered."
        )
    if facts.judged_split == "test" and (validation := facts.results.get("validation")):
        recipe = facts.recipe
        best = recipe.get("load_best_model_at_end") and recipe.get("eval_strategy") != "no"
        chosen = ", by which the checkpoint was chosen," if best else ""
        values = listed(
            [f"{words[0].lower()}{words[1:]} {number(validation[name])}" for name, words in METRICS.items()]
        )
        values = values.replace("kendall", "Kendall")
        remarks.append(f"On the {validation['stories']:,} validation stories{chosen} it reaches {values}.")
    return remarks


def _within(words: str) -> str:
    """A metric's name inside of a sentence."""
    return words if words.startswith("Kendall") else words.lower()


def _numbers(metrics: Mapping[str, float]) -> list[str]:
    return [number(metrics[name]) for name in METRICS]


def _with_interval(value: float, interval: Sequence[float] | None) -> str:
    around = f"<br>({number(interval[0])} to {number(interval[1])})" if interval else ""
    return f"**{number(value)}**{around}"


def _joined(rows: Sequence[Mapping[str, Any]], key: str, weight: str) -> list[dict[str, Any]]:
    """At most `MOST_COLUMNS` rows: neighbours joined, their values averaged by weight, `key` a range in words."""
    size = math.ceil(len(rows) / MOST_COLUMNS)
    joined = []
    for start in range(0, len(rows), size):
        some = rows[start : start + size]
        total = sum(row[weight] for row in some)
        values = {name: sum(row[name] * row[weight] for row in some) / total
                  for name in some[0] if name not in (key, weight)}  # fmt: skip
        ends = dict.fromkeys(str(row[key]) for row in (some[0], some[-1]))
        joined.append({key: "–".join(ends), weight: total, **values})
    return joined


def _by_position(rows: Sequence[Mapping[str, Any]]) -> str:
    shown = _joined(rows, "position", "sentences")
    return table(
        ["True position", *(row["position"] for row in shown)],
        [
            ["Accuracy", *(number(row["accuracy"]) for row in shown)],
            ["Sentences", *(f"{row['sentences']:,}" for row in shown)],
        ],
    )


def _by_sentences(rows: Sequence[Mapping[str, Any]]) -> str:
    if len(rows) == 1:
        return f"All of these stories have {rows[0]['sentences']} sentences."
    return table(
        ["Sentences", "Stories", *METRICS.values()],
        [
            [row["sentences"], f"{row['stories']:,}", *_numbers(row)]
            for row in _joined(rows, "sentences", "stories")
        ],
    )  # fmt: skip


def _heatmap(facts: ModelFacts) -> list[str]:
    if facts.heatmap is None:
        return []
    return [
        f"![Where the sentences of each true position were put]({facts.heatmap})",
        "Each row is a true position, each column a position given; the diagonal is the accuracy above.",
    ]


def examples(facts: ModelFacts) -> str:
    """Stories that it put in order, and what went wrong in them; empty where none may be quoted."""
    if not facts.examples or facts.judged_split is None:
        return ""
    draw = facts.results["analysis"]["examples"]
    these = "this is" if len(facts.examples) == 1 else "these are"
    names = listed([f"the {example.chosen}" for example in facts.examples])
    metrics, longest = facts.results[facts.judged_split], facts.results["analysis"]["by_sentences"][-1]["sentences"]
    which = f"{draw['drawn']:,} stories"
    if longest > draw["longest"]:
        which += f" with at most {draw['longest']} sentences"
    if metrics.get("dropped_sentences"):
        which += " that the model could read whole"
    if draw["drawn"] < draw["candidates"]:
        chosen_from = f"{which}, drawn at random (seed {draw['seed']}) from the {facts.judged_split} split"
    else:
        chosen_from = f"the {which} in the {facts.judged_split} split"
    return "\n\n".join(
        [
            "## Examples",
            f"Not picked by hand: of {chosen_from}, {these} {names} by Kendall's tau. The licence of the stories is "
            f"`{facts.quoted_under}`. *Given* is the place that the model gave a sentence, *true* its own.",
            *(_example(example) for example in facts.examples),
        ]
    )


def _example(example: Example) -> str:
    rows = [
        [str(place + 1), f"{true + 1}" if true == place else f"**{true + 1}**", as_text(example.sentences[true])]
        for place, true in enumerate(example.order)
    ]
    lines = ["| Given | True | Sentence |", "|---:|---:|:---|", *(f"| {' | '.join(row)} |" for row in rows)]
    heading = f"### The {example.chosen}: tau {number(example.kendalls_tau)}"
    return "\n\n".join([heading, _what_went_wrong(example.order), "\n".join(lines)])


def _what_went_wrong(order: Sequence[int]) -> str:
    pairs = [(first, second) for place, first in enumerate(order) for second in order[place + 1 :]]
    wrong = sum(first > second for first, second in pairs)
    if not wrong:
        return "Every sentence is at its true place."
    place_of = {true: place for place, true in enumerate(order)}
    # The one that is furthest away; of several the first in the story.
    true = max(range(len(order)), key=lambda sentence: (abs(place_of[sentence] - sentence), -sentence))
    off = place_of[true] - true
    places = "1 place" if abs(off) == 1 else f"{abs(off)} places"
    return (
        f"{wrong} of {len(pairs)} pairs of sentences stand{'s' * (wrong == 1)} the wrong way round. Furthest from its "
        f"place is sentence {true + 1}, {places} too {'late' if off > 0 else 'early'}."
    )


_HEADS = {
    "score": "A linear head turns what it makes of each sentence into one number, and the sentences are sorted by it.",
    "pairs": "The head gives each pair of sentences the log-odds of their order, and the answer is the order with the "
    "highest sum of log-probabilities over all pairs.",
}


def training(facts: ModelFacts) -> str:
    """Encoder, data, time, hardware, the loss curve, the recipe in full and the versions."""
    recipe, run, environment = facts.recipe, facts.results["training"], dict(facts.results["environment"])
    encoder = f"[{facts.base_model}](https://huggingface.co/{facts.base_model})" if facts.base_model else None
    device = environment.pop("device", None)
    hardware = environment.pop("hardware", device)
    versions = [f"{as_text(name)} {as_text(str(value))}" for name, value in environment.items()]
    fewest, most = facts.training_sentences
    rows = [
        ["Encoder", encoder or f"{as_text(recipe['encoder'])}"],
        ["Parameters", f"{facts.parameters:,}"],
        ["Objective", f"`{recipe['objective']}`"],
        ["Data", listed([_data_link(facts, source) for source in facts.data_names])],
        ["Training stories", f"{run['stories']:,}, of {fewest if fewest == most else f'{fewest} to {most}'} sentences"],
        ["Framework", _FRAMEWORKS.get(recipe.get("framework", ""), str(recipe.get("framework", "")))],
        ["Hardware", as_text(str(hardware))],
        ["Training time", _duration(run["seconds"])],
    ]
    return "\n\n".join(
        [
            f"The encoder reads all sentences of a story at once, each behind a marker. {_HEADS[facts.head]}",
            "\n".join(["| | |", "|---|---|", *(f"| {' | '.join(row)} |" for row in rows)]),
            *([f"![Loss and Kendall's tau during training]({facts.curves})"] if facts.curves else []),
            "The recipe in full; with the same data, `sentence-ordering train --config recipe.yaml --output_dir DIR` "
            "follows it again:",
            fenced(yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True), "yaml"),
            f"Versions: {', '.join(versions)}.",
        ]
    )


def _data_link(facts: ModelFacts, source: str) -> str:
    return f"[{source}](https://huggingface.co/datasets/{source})" if source in facts.datasets else as_text(source)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def limits(facts: ModelFacts) -> str:
    """What it is for and what it is not, as far as that follows from how it was made."""
    fewest, most = facts.training_sentences
    sentences = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    points = [
        "It is meant for sentences that belong to one text and whose order was lost, and for research on coherence.",
        "It always gives an order, also to sentences that do not belong together. A score has a meaning only beside "
        "the other scores of its story: it is no measure of how well a text is written.",
        f"It was trained on {facts.results['training']['stories']:,} stories of {sentences} sentences. How well it "
        "orders texts of other kinds or lengths was not measured.",
        f"The language of the stories is {listed([f'`{code}`' for code in facts.language])}; others were not tried."
        if facts.language
        else "The language of the stories was not stated.",
        f"The results are those of a single training run (seed {facts.recipe['seed']}).",
    ]
    if facts.max_input_tokens is not None:
        points.append(
            f"It reads at most {facts.max_input_tokens:,} tokens of a story at once. Longer texts are ordered by "
            "groups of their sentences; how well was not measured."
        )
    if facts.base_model is not None:
        points.append("What its encoder learned from other texts, prejudices included, is in it as well.")
    return "\n".join(f"- {point}" for point in points)


def citation(facts: ModelFacts) -> str:
    """How to cite the program; what it builds on cites itself in its own card."""
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
