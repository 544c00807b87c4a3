"""Writes the generated parts of README.md and docs/: `python benchmarks/readme_tables.py` (`--check` only compares).

A part is between `<!-- generated: NAME -->` and `<!-- end -->`. The table of recipe fields is made from the code,
those of results from what `sentence-ordering compare` and the benchmarks wrote (`benchmarks/results/`). A part whose
results are not there is left as it is.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean, pstdev
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # it is run as a file, too

from benchmarks import sample_tables, speed_tables  # noqa: E402

PAGES = (
    ROOT / "README.md",
    ROOT / "dataset_builder" / "sample" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
)
RESULTS = ROOT / "benchmarks" / "results"
COMPARISON = RESULTS / "comparison_sample.json"
OBJECTIVES, OTHER_WAYS = RESULTS / "objectives_rocstories.json", RESULTS / "other_ways_rocstories.json"
ABSTRACTS, LONG_TEXTS = RESULTS / "nips.json", RESULTS / "long_texts_rocstories.json"
COHERENCE = RESULTS / "coherence_sample.json"
SOURCES = {"nips": "abstracts", "stories": "stories", "both": "abstracts and stories"}
WAYS = {
    "pairs": "pairs of sentences, topological sort",
    "centre_chain": "embeddings, chain from the centre",
    "best_chain": "embeddings, best chain",
}


def recipe_fields() -> str:
    """Every field of the recipe with its default, allowed values, help, and the frameworks that refuse it."""
    from training.frameworks.protocol import load_framework
    from training.recipe.recipe import FRAMEWORKS, Recipe
    from training.recipe.settings import settings_of
    from training.runs.comparison_tables import FRAMEWORK_NAMES

    refused = {FRAMEWORK_NAMES[name]: load_framework(name).REFUSED for name in FRAMEWORKS}
    lines = ["| field | default | allowed | meaning |", "|---|---|---|---|"]
    for name, setting in settings_of(Recipe).items():
        default = "" if setting.default in (None, "", []) else f"`{setting.default}`"
        choices = "" if callable(setting.choices) else ", ".join(f"`{choice}`" for choice in setting.choices)
        notes = [f"Not in {framework}: {fields[name]}." for framework, fields in refused.items() if name in fields]
        meaning = " ".join([setting.help, *notes])
        meaning = re.sub(r"--\w+(?: (?:steps|pairs|pairwise)\b)?", r"`\g<0>`", meaning)
        lines.append(f"| `{name}` | {default} | {choices or setting.limits} | {meaning} |")
    return "\n".join(lines)


def comparison() -> str:
    """The guide's table on the bundled sample."""
    from training.runs.comparison_tables import markdown_table

    values = json.loads(COMPARISON.read_text(encoding="utf-8"))
    versions = ", ".join(f"{name} {values['environment'][name]}" for name in ("torch", "transformers"))
    versions += ", pytorch-lightning {pytorch-lightning}, poutyne {poutyne}".format(**values["environment"])
    stories = values["runs"][0]["stories"]
    return (
        f"{markdown_table(values['runs'])}\n\n"
        f"{stories} stories of the test split of {values.get('sample', 'the sample')}, "
        f"{values['environment']['device']}; {versions}." + (f" {values['note']}" if "note" in values else "")
    )


def objectives() -> str | None:
    """Every objective, the guide's recipe and the other ways, with intervals; None without results."""
    if not OBJECTIVES.is_file():
        return None
    values = json.loads(OBJECTIVES.read_text(encoding="utf-8"))
    others = json.loads(OTHER_WAYS.read_text(encoding="utf-8"))["runs"] if OTHER_WAYS.is_file() else {}
    header = ["", "arrangements", "seeds", "tau", "accuracy", "pmr", "calibration error", "training"]
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|", *_lines(values["runs"], others)]
    recipe, run = values["recipe"], run_of(values["runs"])
    judged = next(iter(run["judged"]["validation"].values()))
    environment = run["environment"]
    return "\n".join(lines) + (
        f"\n\n{judged['stories']:,} validation stories, {run['training']['stories']:,} to train on; encoder "
        f"{recipe['encoder']}, {recipe['num_train_epochs']:g} epochs, batches of "
        f"{recipe['per_device_train_batch_size']}, learning rate {recipe['learning_rate']:g}; in brackets "
        f"{judged['intervals']['level']:.0%} bootstrap intervals over stories (averaged over seeds where there are "
        f"several), ± the standard deviation over seeds. {environment['hardware']}; torch {environment['torch']}, "
        f"transformers {environment['transformers']}."
    )


def objectives_in_short() -> str | None:
    """The table of objectives with one arrangement and without intervals; None without results."""
    if not OBJECTIVES.is_file():
        return None
    metrics = {"kendalls_tau": "Kendall's tau", "accuracy": "accuracy", "pmr": "perfect stories"}
    lines = [f"| | {' | '.join(metrics.values())} |", "|---" + "|---:" * len(metrics) + "|"]
    values = json.loads(OBJECTIVES.read_text(encoding="utf-8"))
    others = json.loads(OTHER_WAYS.read_text(encoding="utf-8"))["runs"] if OTHER_WAYS.is_file() else {}
    rows: list[tuple[str, list[Any]]] = [
        (_shown(name), [next(iter(run["judged"]["validation"].values())) for run in by_seed.values()])
        for name, by_seed in values["runs"].items()
    ]
    rows += [(WAYS[name], list(by_seed.values())) for name, by_seed in others.items()]
    for name, judged in rows:
        cells = [name, *(f"{mean(run[metric] for run in judged):.3f}" for metric in metrics)]
        lines.append(f"| {' | '.join(cells)} |")
    recipe, stories = values["recipe"], next(iter(run_of(values["runs"])["judged"]["validation"].values()))["stories"]
    return "\n".join(lines) + (
        f"\n\n{stories:,} stories; encoder {recipe['encoder']}, {recipe['num_train_epochs']:g} epochs; "
        "means over the seeds."
    )


def abstracts() -> str | None:
    """What models trained on abstracts, on stories and on both make of either; None without results."""
    if not ABSTRACTS.is_file():
        return None
    runs = json.loads(ABSTRACTS.read_text(encoding="utf-8"))["runs"]
    header = ["trained on", "judged on", "arrangements", "tau", "accuracy", "pmr"]
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for source, by_seed in ((source, runs[source]) for source in SOURCES if source in runs):
        shown = SOURCES[source]
        for kind, by_count in next(iter(by_seed.values()))["judged"].items():
            for count in by_count:
                judged = [run["judged"][kind][count] for run in by_seed.values()]
                cells = [_with_interval(judged, metric) for metric in ("kendalls_tau", "accuracy", "pmr")]
                lines.append(f"| {' | '.join([shown, SOURCES[kind], count, *cells])} |")
                shown = ""
    told = {kind: next(iter(by_count.values())) for kind, by_count in run_of(runs)["judged"].items()}
    counts = " and ".join(f"{judged['stories']:,} {SOURCES[kind]}" for kind, judged in told.items())
    level = next(iter(told.values()))["intervals"]["level"]
    return "\n".join(lines) + f"\n\n{counts} to judge on; in brackets {level:.0%} bootstrap intervals over them."


def run_of(runs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Any run of a results file."""
    found: Mapping[str, Any] = next(iter(next(iter(runs.values())).values()))
    return found


def long_texts() -> str | None:
    """How well and how fast texts beyond the encoder's length are ordered; None without results."""
    if not LONG_TEXTS.is_file():
        return None
    header = ["sentences", "in a group", "pairs of a story right", "tau within stories", "encoder calls", "seconds"]
    lines = [f"| {' | '.join(header)} |", "|---:" * len(header) + "|"]
    for row in json.loads(LONG_TEXTS.read_text(encoding="utf-8"))["model"]:
        group = f"{row['group_size']}" if row["encoder_calls_of_a_text"] > 1 else "all"
        cells = [f"{row['sentences']:,.0f}", group, f"{row['pairs_right']:.3f}"]
        cells += [f"{row['kendalls_tau_within_stories']:.3f}"]
        cells += [f"{row['encoder_calls_of_a_text']:,.0f}", f"{row['seconds_for_a_text']:,.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def coherence() -> str | None:
    """How often originals score higher than disturbed copies, by number of sentences."""
    if not COHERENCE.exists():
        return None
    values = json.loads(COHERENCE.read_text(encoding="utf-8"))
    lines = ["| sentences | texts | against shuffled | against one swapped pair |", "|---:|---:|---|---|"]
    for row in [*values["by_sentences"], {"sentences": "all", **values["all"]}]:
        cells = [f"{row['sentences']}", f"{row['shuffled']['texts']:,}"]
        for kind in ("shuffled", "swapped"):
            found = row[kind]
            around = f" [{found['interval'][0]:.3f}, {found['interval'][1]:.3f}]" if found["interval"] else ""
            cells.append(f"{found['accuracy']:.3f}{around}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(
        [
            *lines,
            "",
            f"{values['texts']:,} texts of the sample's {values['split']} split, {values['copies']} copies of each "
            f"kind of each text; a model with `--encoder {values['encoder']} --head {values['head']}` "
            f"({values['parameters'] / 1e6:.1f} M parameters).",
        ]
    )


def _lines(runs: Mapping[str, Any], others: Mapping[str, Any]) -> Iterator[str]:
    for name, by_seed in runs.items():
        shown = _shown(name)
        for count in next(iter(by_seed.values()))["judged"]["validation"]:
            judged = [run["judged"]["validation"][count] for run in by_seed.values()]
            yield _line(shown, count, list(by_seed.values()), judged)
            shown = ""
    for name, by_seed in others.items():
        yield _line(WAYS[name], "", list(by_seed.values()), list(by_seed.values()))


def _shown(name: str) -> str:
    """What a run of the objectives' results is called in a table."""
    return f"the guide's recipe, {name.partition(', ')[2]}" if name.startswith("guide") else f"`{name}`"


def _line(name: str, arrangements: str, runs: Sequence[Mapping[str, Any]], judged: Sequence[Mapping[str, Any]]) -> str:
    error = [found["calibration_error_cross_fitted"] for found in judged if "calibration_error_cross_fitted" in found]
    seconds = [run["training"]["seconds"] for run in runs if "training" in run]
    cells = [name, arrangements, str(len(runs)) if seconds else ""]
    cells += [_with_interval(judged, metric) for metric in ("kendalls_tau", "accuracy", "pmr")]
    cells += [f"{mean(error):.3f}" if error else "", f"{mean(seconds) / 60:.0f} min" if seconds else "none"]
    return f"| {' | '.join(cells)} |"


def _with_interval(judged: Sequence[Mapping[str, Any]], metric: str) -> str:
    values = [found[metric] for found in judged]
    low, high = (mean(found["intervals"][metric][end] for found in judged) for end in (0, 1))
    spread = f" ± {pstdev(values):.3f}" if len(values) > 1 else ""
    return f"{mean(values):.3f}{spread} [{low:.3f}, {high:.3f}]"


PARTS = {
    "recipe_fields": recipe_fields,
    "comparison": comparison,
    "objectives": objectives,
    "objectives_in_short": objectives_in_short,
    "abstracts": abstracts,
    "long_texts": long_texts,
    "coherence": coherence,
    **sample_tables.PARTS_OF_CARD,
    **speed_tables.PARTS_OF_PAGES,
}


def with_generated_parts(text: str) -> str:
    """A page with each generated part made anew; parts without results are kept.

    Raises:
        KeyError: if the page names an unknown part.
    """

    def renewed(part: re.Match[str]) -> str:
        generated = PARTS[part[2]]()
        return part[0] if generated is None else f"{part[1]}\n{generated}\n\n{part[4]}"

    return re.sub(r"(<!-- generated: (\w+) -->\n)(.*?)(<!-- end -->)", renewed, text, flags=re.DOTALL)


def outdated() -> dict[Path, str]:
    """The pages whose generated parts differ from the code and the results, with the new text of each."""
    texts = {page: page.read_text(encoding="utf-8") for page in PAGES}
    renewed = {page: with_generated_parts(text) for page, text in texts.items()}
    return {page: text for page, text in renewed.items() if text != texts[page]}


def main() -> int:
    """Rewrites the pages; with `--check`, prints the pages that are out of date and returns 1 if there are any."""
    pages = outdated()
    if "--check" in sys.argv[1:]:
        for page in pages:
            print(f"{page.relative_to(ROOT)} is out of date")
        return int(bool(pages))
    for page, text in pages.items():
        page.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
