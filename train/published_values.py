"""The published outputs of the step-by-step functions.

``STEP_BY_STEP`` has the outputs that a programming assignment on recurrent networks prints. The
arguments come from NumPy's legacy generator: seed 1 for each function, then ``randn`` of every
shape in ``draws``, in that order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy

__all__ = ["STEP_BY_STEP", "TOLERANCE", "Case"]

TOLERANCE = 1e-7

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Case:
    """One function: the shapes of its drawn arguments, and the printed elements of its results."""

    draws: Shapes
    values: Mapping[str, str]
    """``{"dx[1, 2]": "-2.07101689 ..."}``: the row ``dx[1][2]`` of the result, as printed."""
    zeros: Shapes = field(default_factory=dict)
    """Shapes of the arguments that are zero instead of drawn."""

    def arguments(self) -> dict[str, numpy.ndarray]:
        """The arrays, by name."""
        stream = numpy.random.RandomState(1)
        drawn = {name: stream.randn(*shape) for name, shape in self.draws.items()}
        return drawn | {name: numpy.zeros(shape) for name, shape in self.zeros.items()}


_STEP = {"xt": (3, 10), "a_prev": (5, 10)}
_SEQUENCE = {"x": (3, 10, 4), "a0": (5, 10)}
_LONGER = {"x": (3, 10, 7), "a0": (5, 10)}
_STATE_FIRST = {"Waa": (5, 5), "Wax": (5, 3), "Wya": (2, 5), "ba": (5, 1), "by": (2, 1)}
_INPUT_FIRST = {"Wax": (5, 3), "Waa": (5, 5), "Wya": (2, 5), "ba": (5, 1), "by": (2, 1)}
_GATES = {f"{kind}{gate}": (5, 8 if kind == "W" else 1) for gate in "fioc" for kind in "Wb"}
_OUTPUT = {"Wy": (2, 5), "by": (2, 1)}
_CELL_STATE = {"c_prev": (5, 10)}
_GRADIENTS = {"da_next": (5, 10), "dc_next": (5, 10)}

STEP_BY_STEP = {
    "rnn_cell_forward": Case(
        draws=_STEP | _STATE_FIRST,
        values={
            "a_next[4]": (
                "0.59584544 0.18141802 0.61311866 0.99808218 0.85016201 "
                "0.99980978 -0.18887155 0.99815551 0.65311510 0.82872037"
            ),
            "yt[1]": (
                "0.98881610 0.01682021 0.21140899 0.36817467 0.98988387 "
                "0.88945212 0.36920224 0.99663120 0.99825590 0.17746526"
            ),
        },
    ),
    "rnn_forward": Case(
        draws=_SEQUENCE | _STATE_FIRST,
        values={
            "a[4, 1]": "-0.99999375 0.77911235 -0.99861469 -0.99833267",
            "y_pred[1, 3]": "0.79560373 0.86224861 0.11118257 0.81515947",
            "x[1, 3]": "-1.14251820 -0.34934272 -0.20889423 0.58662319",
        },
    ),
    "lstm_cell_forward": Case(
        draws=_STEP | _CELL_STATE | _GATES | _OUTPUT,
        values={
            "a_next[4]": (
                "-0.66408471 0.00369210 0.02088357 0.22834167 -0.85575339 "
                "0.00138482 0.76566531 0.34631421 -0.00215674 0.43827275"
            ),
            "c_next[2]": (
                "0.63267805 1.00570849 0.35504474 0.20690913 -1.64566718 "
                "0.11832942 0.76449811 -0.09815610 -0.74348425 -0.26810932"
            ),
            "yt[1]": (
                "0.79913913 0.15986619 0.22412122 0.15606108 0.97057211 "
                "0.31146381 0.00943007 0.12666353 0.39380172 0.07828381"
            ),
            "c_next[3]": (
                "-0.16263996 1.03729328 0.72938082 -0.54101719 0.02752074 "
                "-0.30821874 0.07651101 -1.03752894 1.41219977 -0.37647422"
            ),
        },
    ),
    "lstm_forward": Case(
        draws=_LONGER | _GATES | _OUTPUT,
        values={
            "a[4, 3, 6]": "0.17211777",
            "y[1, 4, 3]": "0.95087346",
            "x[1, 1]": (
                "0.82797464 0.23009474 0.76201118 -0.22232814 -0.20075807 0.18656139 0.41005165"
            ),
            "c[1, 2, 1]": "-0.85554492",
        },
    ),
    "rnn_cell_backward": Case(
        draws=_STEP | _INPUT_FIRST | {"da_next": (5, 10)},
        values={
            "dxt[1, 2]": "-1.38721305",
            "da_prev[2, 3]": "-0.15239949",
            "dWax[3, 1]": "0.41077282",
            "dWaa[1, 2]": "1.15034507",
            "dba[4]": "0.20023491",
        },
    ),
    "rnn_backward": Case(
        draws=_SEQUENCE | _INPUT_FIRST | {"da": (5, 10, 4)},
        values={
            "dx[1, 2]": "-2.07101689 -0.59255627 0.02466855 0.01483317",
            "da0[2, 3]": "-0.31494238",
            "dWax[3, 1]": "11.26410450",
            "dWaa[1, 2]": "2.30333313",
            "dba[4]": "-0.74747722",
        },
    ),
    "lstm_cell_backward": Case(
        draws=_STEP | _CELL_STATE | _GATES | _OUTPUT | _GRADIENTS,
        values={
            "dxt[1, 2]": "3.23055912",
            "da_prev[2, 3]": "-0.06396214",
            "dc_prev[2, 3]": "0.79752204",
            "dWf[3, 1]": "-0.14795484",
            "dWi[1, 2]": "1.05749806",
            "dWc[3, 1]": "2.30456216",
            "dWo[1, 2]": "0.33131160",
            "dbf[4]": "0.18864637",
            "dbi[4]": "-0.40142491",
            "dbc[4]": "0.25587763",
            "dbo[4]": "0.13893342",
        },
    ),
    "lstm_backward": Case(
        draws=_LONGER | _GATES | {"da": (5, 10, 4)},
        zeros=_OUTPUT,
        values={
            "dx[1, 2]": "0.00218254 0.28205375 -0.48292508 -0.43281115",
            "da0[2, 3]": "0.31277031",
            "dWf[3, 1]": "-0.08098023",
            "dWi[1, 2]": "0.40512433",
            "dWc[3, 1]": "-0.07937467",
            "dWo[1, 2]": "0.03894878",
            "dbf[4]": "-0.15745657",
            "dbi[4]": "-0.50848333",
            "dbc[4]": "-0.42510818",
            "dbo[4]": "-0.17958196",
        },
    ),
}
