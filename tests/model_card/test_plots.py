"""The picture of a training run: what it shows, that it is the same each time, and that a half one is never seen."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from PIL import Image

from model_card.plots import plot_groups, plot_loss_curves, plot_position_heatmap

Rows = list[dict[str, float | None]]
Runs = Mapping[str, Sequence[Mapping[str, float | None]]]


def log(steps: int = 60, every: int = 20) -> Rows:
    rows: Rows = [{"step": 0, "epoch": 0.0, "loss": None, "eval_loss": 9.0, "eval_kendalls_tau": 0.0}]
    for step in range(1, steps + 1):
        row: dict[str, float | None] = {"step": step, "epoch": step / 30, "loss": 5 + 5 * math.exp(-step / 20)}
        if step % every == 0:
            row |= {"eval_loss": 6 + 3 * math.exp(-step / 20), "eval_kendalls_tau": step / 100}
        rows.append(row)
    return rows


NINE = {f"{framework}, {encoder}": log() for framework in ("trainer", "lightning", "poutyne") for encoder in "abc"}
LONG = {f"poutyne, organization-of-somebody/a-rather-long-name-of-an-encoder-v{i}": log() for i in range(9)}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were written, for a look at what is in them."""
    figures: list[Figure] = []
    print_png = FigureCanvasAgg.print_png

    def record(self: FigureCanvasAgg, *args: object, **kwargs: object) -> None:
        figures.append(self.figure)
        print_png(self, *args, **kwargs)

    monkeypatch.setattr(FigureCanvasAgg, "print_png", record)
    return figures


def curves(figure: Figure) -> list[dict[str, list[tuple[float, float]]]]:
    """Label and points of each curve, panel by panel."""
    return [
        {
            label: [(x, y) for x, y in np.asarray(line.get_xydata())]
            for line in axes.lines
            if ":" in (label := str(line.get_label()))
        }
        for axes in figure.axes
    ]


def test_the_curves_hold_every_logged_value_by_step(tmp_path: Path, drawn: list[Figure]) -> None:
    plot_loss_curves({"cnn": log()[::-1]}, tmp_path / "loss.png")
    loss, tau = curves(drawn[0])
    rows = log()
    assert loss == {
        "cnn: training": [(row["step"], row["loss"]) for row in rows[1:]],
        "cnn: evaluation": [(row["step"], row["eval_loss"]) for row in rows[::20]],
    }
    assert tau == {"cnn: evaluation": [(0, 0), (20, 0.2), (40, 0.4), (60, 0.6)]}
    assert [axes.get_ylabel() for axes in drawn[0].axes] == ["Loss", "Kendall's tau"]
    assert all(axes.get_title(loc="left") for axes in drawn[0].axes)
    assert drawn[0].axes[1].get_xlabel() == "Optimizer step"


def test_training_is_thin_and_evaluation_has_markers(tmp_path: Path, drawn: list[Figure]) -> None:
    plot_loss_curves({"cnn": log()}, tmp_path / "loss.png")
    training, evaluation = drawn[0].axes[0].lines
    assert training.get_linewidth() < evaluation.get_linewidth()
    assert training.get_marker() == "" and evaluation.get_marker() == "o"


def test_values_that_are_not_finite_are_left_out(tmp_path: Path, drawn: list[Figure]) -> None:
    rows: Rows = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": math.nan}, {"step": 3, "loss": math.inf}, {"loss": 1.0}]
    plot_loss_curves({"diverged": rows}, tmp_path / "loss.png")
    assert curves(drawn[0])[0] == {"diverged: training": [(1, 2)]}


@pytest.mark.parametrize(
    "runs",
    [
        pytest.param({"one": log()}, id="one"),
        pytest.param(NINE, id="nine"),
        pytest.param(LONG, id="nine with long names"),
        pytest.param({"point": [{"step": 1, "loss": 3.0, "eval_loss": 2.0, "eval_kendalls_tau": 0.1}]}, id="one point"),
        pytest.param({"untouched": []}, id="nothing logged"),
    ],
)
def test_nothing_is_cut_off_and_no_legend_hides_a_curve(runs: Runs, tmp_path: Path, drawn: list[Figure]) -> None:
    plot_loss_curves(runs, tmp_path / "loss.png")
    (figure,) = drawn
    panels = [axes.get_window_extent() for axes in figure.axes]
    legends = [*figure.legends, *(legend for axes in figure.axes if (legend := axes.get_legend()))]
    assert len(legends) == (2 if len(runs) > 1 else 1)
    for legend in legends:
        box = legend.get_window_extent()
        assert not any(Bbox.intersection(box, panel) for panel in panels)
        assert figure.bbox.contains(*box.min) and figure.bbox.contains(*box.max)
    assert all(panel.height > 0.25 * figure.bbox.height for panel in panels)
    if len(runs) > 1:
        assert [text.get_text() for text in figure.legends[0].get_texts()] == list(runs)
        lines = [line for line in figure.axes[1].lines if ":" in str(line.get_label())]
        assert len({line.get_color() for line in lines}) == len({line.get_marker() for line in lines}) == len(runs)


def test_a_lone_training_loss_is_a_dot(tmp_path: Path, drawn: list[Figure]) -> None:
    plot_loss_curves({"cnn": [{"step": 1, "loss": 1.0}]}, tmp_path / "loss.png")
    assert drawn[0].axes[0].lines[0].get_marker() == "."


def test_a_panel_without_values_says_so(tmp_path: Path, drawn: list[Figure]) -> None:
    plot_loss_curves({"cnn": [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}]}, tmp_path / "loss.png")
    assert [[text.get_text() for text in axes.texts] for axes in drawn[0].axes] == [[], ["not logged"]]


def test_the_same_values_give_the_same_bytes_and_name_no_software(tmp_path: Path) -> None:
    for name in ("first.png", "second.png"):
        plot_loss_curves({"cnn": log()}, str(tmp_path / name))
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()
    with Image.open(tmp_path / "first.png") as image:
        assert image.format == "PNG"
        assert set(image.info) <= {"dpi"}
    assert np.ptp(matplotlib.image.imread(tmp_path / "first.png")) > 0.5


def test_a_picture_that_cannot_be_finished_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "loss.png"
    plot_loss_curves({"cnn": log()}, target)
    before = target.read_bytes()

    def fail(self: FigureCanvasAgg, file: object, **_: object) -> None:
        file.write(b"half a picture")  # type: ignore[attr-defined]
        raise OSError("disk full")

    monkeypatch.setattr(FigureCanvasAgg, "print_png", fail)
    with pytest.raises(OSError, match="disk full"):
        plot_loss_curves({"cnn": log(40)}, target)
    assert target.read_bytes() == before
    assert os.listdir(tmp_path) == ["loss.png"]


def test_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no runs to plot"):
        plot_loss_curves({}, tmp_path / "loss.png")
    assert os.listdir(tmp_path) == []


def test_pyplot_is_never_touched(tmp_path: Path) -> None:
    code = (
        "import sys; from model_card.plots import plot_loss_curves, plot_position_heatmap; "
        f"plot_loss_curves({{'cnn': [{{'step': 1, 'loss': 1.0}}]}}, {str(tmp_path / 'loss.png')!r}); "
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True)


def heatmap(path: Path, positions: Sequence[Sequence[float]]) -> np.ndarray:
    plot_position_heatmap(positions, path)
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def test_a_heatmap_shows_the_shares_of_each_true_position(tmp_path: Path, drawn: list[Figure]) -> None:
    heatmap(tmp_path / "map.png", [[3, 1], [50, 150]])
    axes = drawn[0].axes[0]
    shown = {(int(text.get_position()[1]), int(text.get_position()[0])): text.get_text() for text in axes.texts}
    assert shown == {(0, 0): "75%", (0, 1): "25%", (1, 0): "25%", (1, 1): "75%"}
    assert np.asarray(axes.images[0].get_array()).tolist() == [[0.75, 0.25], [0.25, 0.75]]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("True position", "Predicted position")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2"]


def test_more_is_darker_also_without_colour(tmp_path: Path, drawn: list[Figure]) -> None:
    heatmap(tmp_path / "map.png", [[3, 1], [1, 3]])
    image = drawn[0].axes[0].images[0]
    shades = np.asarray(image.to_rgba(np.linspace(0, 1, 21)[None]))[0, :, :3] @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(shades) < 0).all()
    assert [text.get_color() == "white" for text in drawn[0].axes[0].texts] == [True, False, False, True]


@pytest.mark.parametrize("size", [1, 5, 12, 13, 60])
def test_heatmaps_of_any_size_fit(size: int, tmp_path: Path, drawn: list[Figure]) -> None:
    pixels = heatmap(tmp_path / "map.png", (np.eye(size) + 0.5).tolist())
    edge = np.concatenate([pixels[:3].ravel(), pixels[-3:].ravel(), pixels[:, :3].ravel(), pixels[:, -3:].ravel()])
    assert edge.min() == 255 and pixels.shape[1] <= 1300
    axes = drawn[0].axes[0]
    assert len(axes.texts) == (size**2 if size <= 12 else 0)
    assert 1 <= len(axes.get_xticks()) <= 12


def test_the_same_heatmap_is_the_same_file_and_nothing_unfinished_is_left(tmp_path: Path) -> None:
    for name in ("one.png", "other.png"):
        heatmap(tmp_path / name, [[3, 1], [1, 3]])
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "other.png").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["one.png", "other.png"]


@pytest.mark.parametrize("positions", [[], [[1, 0], [0, 0]]])
def test_a_heatmap_of_nothing_is_refused(positions: list[list[float]], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one sentence"):
        plot_position_heatmap(positions, tmp_path / "map.png")
    assert not os.listdir(tmp_path)


def test_groups_with_and_without_intervals(tmp_path: Path) -> None:
    measures = {"texts": 3, "log_probability": -0.3, "kendalls_tau": 0.5}
    certain = {**measures, "intervals": {"log_probability": [-0.4, -0.2], "kendalls_tau": [0.4, 0.7]}}
    groups = {"fable $x": certain, "": {**measures, "intervals": {}}}
    groups |= {f"group {number}": {**certain, "texts": 1} for number in range(60)}
    for name in ("one.png", "other.png"):
        plot_groups(groups, tmp_path / name, name="genre")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "other.png").read_bytes()
    with pytest.raises(ValueError, match="no groups"):
        plot_groups({}, tmp_path / "none.png", name="genre")
