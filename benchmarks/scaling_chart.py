"""The chart of the scaling benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.soak_chart import COLOURS, FAINT, INK
from benchmarks.work import BARE

COLOUR = dict(zip(("asyncio", "trio"), COLOURS, strict=True))

Lines = Mapping[tuple[str, str], Sequence[float]]
"""By way and backend."""


def draw(sizes: Sequence[int], panels: Mapping[str, Lines], file: Path) -> None:
    """Draw what a task costs by the size of the crowd, one panel for each kind of cost."""
    with mpl.rc_context({"text.color": INK, "font.size": 9}):
        figure = Figure(figsize=(10, 3.8), layout="constrained", facecolor="white")
        figure.suptitle("What a task costs", x=0.01, ha="left", fontsize=11, weight="bold")
        axes = figure.subplots(1, len(panels))
        for each, (label, lines) in zip(axes, panels.items(), strict=True):
            _draw_panel(each, label, sizes, lines)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
        figure.savefig(file, dpi=150)


def _draw_panel(axes: Axes, label: str, sizes: Sequence[int], lines: Lines) -> None:
    for (way, backend), figures in lines.items():
        style = "--" if way == BARE else "-"
        name = f"{way}, {backend.replace('trio', 'Trio')}"
        axes.plot(
            sizes, figures, style, color=COLOUR[backend], marker="o", ms=3, lw=1.3, label=name
        )
    axes.set_title(label, loc="left", fontsize=9)
    axes.set(xscale="log", ylim=(0, 1.1 * axes.dataLim.y1), xlabel="unfinished tasks")
    axes.grid(axis="y", color=FAINT, lw=0.6)
    axes.tick_params(color=FAINT, labelcolor=INK)
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
