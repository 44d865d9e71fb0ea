from __future__ import annotations

import subprocess
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from scipy import stats

from ppgrad.analysis.plots.distributions import density
from ppgrad.analysis.plots.labels import wrapped

MANY = {f"layer_{i}.weight": np.arange(6.0).reshape(3, 2) for i in range(5)} | {"log_scale": np.array(0.25)}
LONG = "a program with a rather long name: " + "that goes on and on, " * 6


@pytest.fixture(params=["few", "many", "shifted", "unreferenced", "constant", "alone", "crowd"])
def comparison(request: pytest.FixtureRequest, make):
    crowd = {f"score+loo=episodes@{i}": 1 + 0.01 * i for i in range(9)}
    return {
        "few": lambda: make(),
        "many": lambda: make(truth=MANY, name=LONG),
        "shifted": lambda: make(shift=100.0, biased=True),
        "unreferenced": lambda: make(reference=False, name=""),
        "constant": lambda: make(deviations={"enumerate": 0.0, "exact": 0.0}),
        "alone": lambda: make(deviations={"score": 1.0}),
        "crowd": lambda: make(deviations=crowd, name=LONG),
    }[request.param]()


def words(figure: Figure, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, np.ndarray]]:
    """Every text that is drawn, and its box in pixels."""
    drawn: list[Text] = []
    draw = Text.draw

    def record(self: Text, *args: object, **kwargs: object) -> None:
        drawn.append(self)
        draw(self, *args, **kwargs)

    FigureCanvasAgg(figure)
    with monkeypatch.context() as patch:
        patch.setattr(Text, "draw", record)
        figure.canvas.draw()
    texts = [text for text in dict.fromkeys(drawn) if text.get_text() and text.get_visible()]
    # Not an annotation's own extent, which holds its arrow.
    return [(text.get_text(), Text.get_window_extent(text, figure.canvas.get_renderer()).extents) for text in texts]


@pytest.mark.parametrize("plot", ["plot_bias", "plot_distributions", "plot_variance_cost"])
def test_no_text_lies_on_another_or_outside(comparison, plot: str, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = getattr(comparison, plot)()
    texts = words(figure, monkeypatch)
    assert len(texts) > 5
    width, height = figure.get_size_inches() * figure.dpi
    for (one, a), (other, b) in combinations(texts, 2):
        across, up = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        assert across < 1 or up < 1, f"{one!r} lies on {other!r}"  # a pixel
    for text, box in texts:
        assert min(box) > -1, f"{text!r} is cut off"
        assert max(box[2] - width, box[3] - height) < 1, f"{text!r} is cut off"


def test_bias_bands_are_those_of_the_statistics(make) -> None:
    comparison = make(shift=0.3)
    axes = comparison.plot_bias().axes[0]
    unit = comparison.statistics["score"].mcse  # the largest
    for container, (label, found) in zip(axes.containers, comparison.statistics.items(), strict=True):
        assert container.get_label() == label
        points, _, (bars,) = container.lines
        np.testing.assert_allclose(points.get_xdata(), found.bias / unit)
        ends = np.array([segment[:, 0] for segment in bars.get_segments()])
        np.testing.assert_allclose(ends, np.column_stack([found.bias_low, found.bias_high]) / unit[:, None], atol=1e-12)


def test_many_components_are_said_to_be_left_out(make) -> None:
    figure = make(truth=MANY).plot_bias()
    assert "20 of 31 components" in figure._suptitle.get_text().replace("\n", " ")
    assert len(figure.axes[0].get_yticks()) == 20


def test_distributions_of_chosen_components(make) -> None:
    comparison = make()
    figure = comparison.plot_distributions(["log_scale"])
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["log_scale"]
    with pytest.raises(ValueError, match=r"\['other'\]"):
        comparison.plot_distributions(["other"])


def test_density_of_normal_draws() -> None:
    values = np.random.default_rng(0).normal(size=100_000)
    points = np.linspace(-4, 4, 801)
    found = density(values, points)
    width = 0.9 * len(values) ** -0.2 * min(values.std(), np.subtract(*np.quantile(values, (0.75, 0.25))) / 1.349)
    # A kernel estimate's mean is the density blurred by the kernel; its largest value is 1.
    expected = stats.norm.pdf(points, scale=np.hypot(1, width))
    count = len(values) * found / found.sum() * 1.0
    blurred = len(values) * expected / expected.sum()
    # Counts under the kernel: variance = blurred counts * kernel's mean square, at most one count a bin.
    z = (count - blurred) / np.sqrt(np.maximum(blurred, 1) * 0.01 / (2 * np.sqrt(np.pi) * width))
    assert 801 * 2 * stats.norm.sf(np.abs(z).max()) > 1e-6


def test_density_of_one_value_is_a_spike_in_its_place() -> None:
    points = np.linspace(-1, 1, 801)
    assert abs(points[np.argmax(density(np.full(50, 0.3), points))] - 0.3) < 0.0025
    assert density(np.full(50, 7.0), points).max() == 0


def test_variance_against_evaluations(make) -> None:
    comparison = make()
    axes = comparison.plot_variance_cost(cost="evaluations").axes[0]
    points = [container.lines[0] for container in axes.containers]
    assert [float(point.get_xdata()[0]) for point in points] == [1, 2, 3]
    np.testing.assert_allclose([point.get_ydata()[0] for point in points], comparison.totals()["variance"])
    for label in comparison.estimators:
        assert label in [text.get_text() for text in axes.texts]
    with pytest.raises(ValueError, match="'dollars'"):
        comparison.plot_variance_cost(cost="dollars")


def test_axes_of_ones_own(make) -> None:
    figure = Figure(figsize=(12, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    assert make().plot_bias(left) is figure
    assert make().plot_variance_cost(right) is figure
    FigureCanvasAgg(figure).draw()


def test_pyplot_is_not_needed(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np\n"
        "from ppgrad.analysis import Comparison, EstimatorDraws\n"
        "draws = {'x': np.random.default_rng(0).normal(size=(50, 2))}\n"
        "c = Comparison({'a': EstimatorDraws(draws, 1, 1.0)}, None, None, 'none', 0)\n"
        "for plot in (c.plot_bias, c.plot_distributions, c.plot_variance_cost): plot().savefig(sys.argv[1])\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(tmp_path / "picture.png")]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2])


def test_wrapped_text() -> None:
    assert wrapped("short", 10) == "short"
    assert wrapped("costs $1", 10) == r"costs \$1"
    assert max(map(len, wrapped("x" * 100, 10).splitlines())) <= 10
