"""The cells of the package with random parameters, by name."""

from common.cells.layer_norm_lstm import LayerNormLSTM
from common.cells.min_gru import MinGRU
from common.cells.mogrifier_lstm import MogrifierLSTM
from common.cells.peephole_lstm import PeepholeLSTM
from tests.builders import D, H, N, floats, generator

KINDS = {
    "LayerNormLSTM": (LayerNormLSTM, {}),
    "PeepholeLSTM": (PeepholeLSTM, {}),
    "MinGRU": (MinGRU, {}),
    "MogrifierLSTM": (MogrifierLSTM, {}),
    "MogrifierLSTM of 4 rounds": (MogrifierLSTM, {"rounds": 4}),
    "MogrifierLSTM of rank 2": (MogrifierLSTM, {"rounds": 3, "rank": 2}),
}


def build(name, dtype="float64", seed=0):
    """The cell as it begins."""
    cls, options = KINDS[name]
    return cls.build(D, H, generator(seed), dtype, **options)


def random_cell(name, dtype="float64"):
    """The cell with no parameter at zero or one."""
    cell, rng = build(name, dtype), generator(1)
    for param in cell.params:
        param[...] = 0.5 * floats(rng, *param.shape, dtype=dtype)
    return cell


def inputs_for(cell, dtype="float64", seed=2):
    """x and the states of one step."""
    rng = generator(seed)
    return [floats(rng, N, width, dtype=dtype) for width in (D, *cell.state_sizes)]
