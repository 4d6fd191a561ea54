"""The chart of the soak test."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.soak_verdict import WARM_UP, Sample, slope

PANELS: dict[str, Callable[[Sample], float]] = {
    "memory, MiB": lambda each: each.memory / 1024,
    "open files": lambda each: each.files,
    "threads": lambda each: each.threads,
}
COLOURS = ("#0072b2", "#d55e00")  # told apart by colour-blind people too
INK, FAINT, SHADE = "#333333", "#dddddd", "#f0f0f0"


def draw(title: str, samples: Mapping[str, Sequence[Sample]], file: Path) -> None:
    """Draw the samples of each server, one panel for each thing that was sampled."""
    with mpl.rc_context({"text.color": INK, "font.size": 9}):
        figure = Figure(figsize=(8, 6.8), layout="constrained", facecolor="white")
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, weight="bold")
        panels = figure.subplots(len(PANELS), sharex=True, height_ratios=(2, 1, 1))
        for axes, (label, value) in zip(panels, PANELS.items(), strict=True):
            _draw_panel(axes, label, value, samples)
        panels[0].legend(loc="lower right", frameon=False)
        panels[0].text(0, 0, "  warm-up, not judged", va="bottom", color="#777777")
        panels[-1].set_xlabel("minutes")
        figure.savefig(file, dpi=150)


def _draw_panel(
    axes: Axes,
    label: str,
    value: Callable[[Sample], float],
    samples: Mapping[str, Sequence[Sample]],
) -> None:
    for colour, (name, line) in zip(COLOURS, samples.items(), strict=True):
        legend = f"{name}: {slope(line):+.0f} KiB/min after the warm-up"
        minutes = [each.minute for each in line]
        axes.plot(minutes, [value(each) for each in line], color=colour, lw=1.3, label=legend)
    end = max(line[-1].minute for line in samples.values())
    axes.axvspan(0, WARM_UP * end, color=SHADE, lw=0, zorder=0)
    axes.set_title(label, loc="left", fontsize=9)
    axes.set(xlim=(0, end), ylim=(0, 1.1 * axes.dataLim.y1))
    axes.grid(axis="y", color=FAINT, lw=0.6)
    axes.tick_params(color=FAINT, labelcolor=INK)
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
