"""The picture of robustness curves: several runs in one figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from touchstone.attacks.core.eps import write_number

from ..records.curves_file import Curves
from ..records.report_files import STAGES, interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def curves_picture(runs: Sequence[Curves], levels: Sequence[float] = ()) -> Figure:
    """Draws the curves of runs over one another, the first one being the run whose figure it is.

    Bands are 95 % intervals, dotted lines the accuracy before any attack, dashed ones chance. What another run was
    measured with, where it is not what the first one was, stands in the legend.

    Args:
        runs: what is drawn, at least one.
        levels: accuracies whose eps is named on the curve of the first run, where it passes them.
    """
    from matplotlib.figure import Figure

    first = runs[0]
    has_steps = any(len(run.steps) > 1 for run in runs)
    figure = Figure(figsize=(14.5 if has_steps else 6.5, 5), dpi=100, layout="constrained")
    panels = figure.subplots(1, 3 if has_steps else 1, squeeze=False)[0]
    for number, (run, label) in enumerate(zip(runs, _labels(runs), strict=True)):
        color = f"C{number % 10}"
        _draw_accuracy(panels[0], run, run.eps, run.accuracy_at_eps, color, label)
        if len(run.steps) > 1:
            _draw_accuracy(panels[1], run, run.steps, run.accuracy_after_steps, color, None)
            if run.loss_after_steps:
                panels[2].plot(run.steps, run.loss_after_steps, marker="o", markersize=4, color=color)
    panels[0].set(
        title="right inside every eps up to this one", xlabel=f"eps ({first.threat})", ylabel="robust accuracy"
    )
    panels[0].plot([], [], color="grey", linestyle=":", label="before any attack")
    for level in levels:
        if (eps := first.eps_at(level)) is not None:
            panels[0].plot([eps], [level], marker="o", markersize=9, color="none", markeredgecolor="black")
            panels[0].annotate(f" {level:.2%} at {eps:.4g}", (eps, level), xytext=(8, 8), textcoords="offset points")
    for panel in panels[:2]:
        _finish_accuracy(panel, runs)
    if has_steps:
        panels[0].axvline(first.threat_eps, color="grey", linewidth=0.8, zorder=0)
        where = {"x": first.threat_eps, "y": 0.5, "ha": "right", "va": "center", "rotation": 90}
        panels[0].text(s="eps of the steps ", fontsize=8, color="grey", **where)
        inside = f"inside {first.threat} {write_number(first.threat_eps, digits=3)}"
        panels[1].set(title=f"right within these steps, {inside}", ylabel="robust accuracy")
        panels[2].set(title=f"mean loss after these steps, {inside}", ylabel="cross-entropy")
        panels[2].set_ylim(0, 1.05 * max((loss for run in runs for loss in run.loss_after_steps), default=1.0))
        for panel in panels[1:]:
            _finish_steps(panel, runs)
    for panel in panels:
        panel.grid(alpha=0.25)
    stage = STAGES.get(first.stage, first.stage)
    figure.suptitle(f"{first.attack.split('(')[0]}, {first.num_samples} {stage} samples (bands: 95 % intervals)")
    figure.legend(loc="outside lower center", ncols=min(len(runs) + 1, 4), frameon=False)
    return figure


def _draw_accuracy(
    panel: Axes, run: Curves, places: Sequence[float], accuracy: Sequence[float], color: str, label: str | None
) -> None:
    bounds = [interval(round(share * run.num_samples), run.num_samples) for share in accuracy]
    low, high = zip(*bounds, strict=True)
    panel.plot(places, accuracy, marker="o", markersize=4, color=color, label=label)
    panel.fill_between(places, low, high, color=color, alpha=0.15, linewidth=0)
    panel.axhline(accuracy[0], color=color, linestyle=":", linewidth=1)


def _finish_accuracy(panel: Axes, runs: Sequence[Curves]) -> None:
    from matplotlib.ticker import PercentFormatter

    panel.set_ylim(-0.02, 1.02)
    panel.yaxis.set_major_formatter(PercentFormatter(1.0))
    for num_classes in sorted({run.num_classes for run in runs}):
        panel.axhline(1 / num_classes, color="dimgrey", linestyle="--", linewidth=1)
        panel.text(
            0.99, 1 / num_classes, f"chance, {num_classes} classes", transform=panel.get_yaxis_transform(),
            ha="right", va="bottom", fontsize=8, color="dimgrey",
        )  # fmt: skip


def _finish_steps(panel: Axes, runs: Sequence[Curves]) -> None:
    from matplotlib.ticker import NullLocator

    ticks = sorted({number for run in runs for number in run.steps})
    panel.set_xscale("symlog", linthresh=1, linscale=0.3)
    panel.set_xticks(ticks, [str(number) for number in ticks])
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_xlim(-0.3, 1.2 * ticks[-1])
    panel.set_xlabel("steps")


def _labels(runs: Sequence[Curves]) -> list[str]:
    """The experiment of each run, its version too where one experiment has several, and how it was measured unlike."""
    experiments = [run.run.split("/")[0] for run in runs]
    labels = []
    for run, experiment in zip(runs, experiments, strict=True):
        label = experiment if experiments.count(experiment) == 1 else run.run
        unlike = [name for name in ("attack", "stage", "num_samples") if getattr(run, name) != getattr(runs[0], name)]
        labels.append(label[:60] + (f" (other {', '.join(unlike)})" if unlike else ""))
    return labels
