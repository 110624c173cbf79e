"""Weak scaling past this machine: computed from a step of one process and a model of the network.

Each process is on a machine of its own, with a link of bandwidth B to all others; a message takes
alpha more than its bytes do. Adding up n bytes over P processes takes

    ring                2 (P - 1) alpha + 2 (P - 1) / P n / B    Patarasuk and Yuan (2009)
    recursive doubling  log2(P) (alpha + n / B)                  Thakur et al. (2005)

whichever is less, message by message. Collecting m bytes from each process takes

    recursive doubling  log2(P) alpha + (P - 1) m / B            Thakur et al. (2005)

Of all that, the share that was measured as hidden hides behind the backward pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from common.plotting import BLACK, GREY, PALETTE, readable, save
from train.benchmark.workloads import Sizes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["ASSUMPTIONS", "PROCESSES", "Network", "Plan", "Traffic", "draw"]

PROCESSES = (2, 4, 8, 16, 32, 64)
BACKWARD = 2 / 3  # of a step: two of its three products of each weight

ASSUMPTIONS = (
    "computed: a step of one process here + what adding up takes over a network, by the faster of "
    "a ring, 2 (P - 1) α + 2 (P - 1) / P · n / B (Patarasuk and Yuan 2009), and recursive "
    "doubling, log2(P) (α + n / B) (Thakur et al. 2005), for each message of n bytes; rows of the "
    "embedding, m bytes from each process: log2(P) α + (P - 1) m / B. The share that was measured "
    "here as hidden, if any, hides there too, at most 2/3 of the step. Bandwidth B and latency α "
    "are assumed; each process is on a machine of its own"
)

Quartiles = tuple[float, float, float]  # lower quartile, median, upper quartile


@dataclass(frozen=True)
class Network:
    """What connects the machines.

    Args:
        gbit: 10^9 bits a second from each machine.
        latency: alpha, seconds that a message takes beside its bytes.
    """

    gbit: float
    latency: float

    @property
    def bandwidth(self) -> float:
        """B, bytes a second."""
        return self.gbit * 1e9 / 8

    def sum_seconds(self, P: int, n: int) -> float:
        """Time to add up ``n`` bytes over P processes, 2 or more."""
        ring = 2 * (P - 1) * self.latency + 2 * (P - 1) / P * n / self.bandwidth
        return min(ring, math.log2(P) * (self.latency + n / self.bandwidth))

    def gather_seconds(self, P: int, m: int) -> float:
        """Time until each of P processes has the ``m`` bytes of every other."""
        return math.log2(P) * self.latency + (P - 1) * m / self.bandwidth

    def __str__(self) -> str:
        return f"{self.gbit:g} Gbit/s, α = {1e6 * self.latency:g} µs"


@dataclass(frozen=True)
class Traffic:
    """What a process sends in a training step, in bytes.

    Args:
        sums: of each array that is added up.
        rows: of the rows of an embedding's gradient and their ids; 0 where the table is added up.
        table: of the embedding's gradient, added up in place of the rows where they are more; 0
            where ``sums`` has it already, since the output layer writes it too.
    """

    sums: tuple[int, ...]
    rows: int
    table: int

    def seconds(self, P: int, network: Network, as_rows: bool) -> float:
        """Time on ``network`` if nothing is hidden; ``as_rows``: whether rows travel."""
        seconds = sum(network.sum_seconds(P, n) for n in self.sums)
        if self.rows and as_rows:
            return seconds + network.gather_seconds(P, self.rows)
        return seconds + (network.sum_seconds(P, self.table) if self.table else 0)


@dataclass(frozen=True)
class Plan:
    """Weak scaling of one model: every process has the N streams of ``sizes``.

    Args:
        sizes: of the step of one process.
        compute: seconds of that step.
        traffic: of a process.
        hidden: share of the traffic that the backward pass hides.
    """

    sizes: Sizes
    compute: float
    traffic: Traffic
    hidden: float

    def seconds(self, P: int, network: Network) -> float:
        """Time of a step on P processes, 2 or more."""
        as_rows = P * self.sizes.N * self.sizes.T < self.sizes.V
        adding_up = self.traffic.seconds(P, network, as_rows)
        return self.compute + adding_up - min(self.hidden * adding_up, BACKWARD * self.compute)

    def efficiency(self, P: int, network: Network) -> float:
        """Time of a step of one process, divided by that of P."""
        return self.compute / self.seconds(P, network)


def draw(
    path: Path,
    plans: Sequence[Plan],
    efficiencies: Sequence[Quartiles],
    sums: dict[int, Quartiles],
    networks: Sequence[Network],
    P: int,
) -> None:
    """Save a figure: lines are computed, markers measured here on P processes.

    Args:
        path: of the figure.
        plans: one for each model and size.
        efficiencies: weak scaling as measured, for each plan.
        sums: bytes that were added up, and the seconds it took.
        networks: what the plans are computed for.
        P: number of processes that were measured.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    with readable():
        figure = Figure(figsize=(6 * (len(networks) + 1), 12), layout="constrained")
        axes = figure.subplots(2, len(networks) + 1)
        for column, network in enumerate(networks):
            above, below = axes[:, column]
            above.set_title(f"Computed:\n{network}")
            for k, (plan, measured) in enumerate(zip(plans, efficiencies, strict=True)):
                low, efficiency, high = measured
                color = PALETTE[k % len(PALETTE)]
                _draw_plan(above, below, plan, network, color)
                error = [[efficiency - low], [high - efficiency]]
                beside = P * 1.05 ** (k - (len(plans) - 1) / 2)  # or one would hide the others
                above.errorbar([beside], [efficiency], error, fmt="D", color=color, mec=BLACK)
                ms = 1e3 * plan.compute / efficiency
                below.plot([P], [ms], "D", color=color, mec=BLACK)
            above.axhline(1, color=BLACK, linewidth=1)
            above.set_ylim(0, 1.15)
            below.sharey(axes[1, 0])
            below.set_yscale("log")
            below.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            below.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            below.yaxis.set_minor_formatter(NullFormatter())
            for panel in (above, below):
                panel.set_xscale("log", base=2)
                panel.set_xticks(PROCESSES, map(str, PROCESSES))
                panel.set_xlabel("processes P")
                panel.grid(which="both")
        axes[0, 0].set_ylabel("weak scaling: time of one / time of P")
        axes[1, 0].set_ylabel("ms of a step, weak scaling")
        _draw_sums(axes[0, -1], sums, networks, P)
        axes[1, -1].axis("off")
        handles, labels = axes[1, 0].get_legend_handles_labels()
        (diamond,) = axes[1, -1].plot([], [], "D", color="white", mec=BLACK)
        axes[1, -1].legend(
            [*handles, diamond],
            [*labels, f"measured: {P} processes on\nthis machine, no network"],
            loc="upper left",
        )
        figure.supxlabel(ASSUMPTIONS, wrap=True)
        save(figure, path, dpi=100)


def _draw_plan(above: Axes, below: Axes, plan: Plan, network: Network, color: str) -> None:
    style = "--" if plan.sizes.model == "Rnnlm" else ":"
    label = f"{plan.sizes.model}, H = {plan.sizes.H}, computed"
    efficiencies = [plan.efficiency(P, network) for P in PROCESSES]
    above.plot(PROCESSES, efficiencies, style, color=color)
    ms = [1e3 * plan.seconds(P, network) for P in PROCESSES]
    below.plot(PROCESSES, ms, style, color=color, label=label)


def _draw_sums(axes: Axes, sums: dict[int, Quartiles], networks: Sequence[Network], P: int) -> None:
    """Seconds to add up an array against its bytes."""
    kib = [size / 1024 for size in sums]
    ms = [1e3 * median for _, median, _ in sums.values()]
    axes.loglog(kib, ms, "D", color=GREY, mec=BLACK)
    for network, style in zip(networks, ("--", ":"), strict=True):
        computed = [1e3 * network.sum_seconds(P, size) for size in sums]
        axes.plot(kib, computed, style, color=GREY, label=f"computed: {network}")
    axes.set_title(f"Adding up over {P} processes\n(diamonds: measured here)")
    axes.set_xticks(kib, [f"{size:g}" for size in kib], rotation=45)
    axes.minorticks_off()
    axes.set_xlabel("KiB")
    axes.set_ylabel("ms")
    axes.legend()
    axes.grid()
