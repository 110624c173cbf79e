"""The command must fail when a gradient is wrong, or it proves nothing."""

import numpy as np
import pytest

from common import layers
from common.base_layer import Layer
from common.cells.peephole_lstm import PeepholeLSTM
from common.time_layers import cell_names
from train import check_gradients


def test_a_wrong_gradient_fails_the_command_and_is_named(monkeypatch, capsys):
    right = layers.Sigmoid.backward
    monkeypatch.setattr(layers.Sigmoid, "backward", lambda self, dy: 1.001 * right(self, dy))
    with pytest.raises(SystemExit) as stop:
        check_gradients.main(check_gradients.Options(only="Sigmoid"))
    assert stop.value.code == 1
    printed = capsys.readouterr().out
    assert "Sigmoid: WRONG, worst relative error 1.0e-03" in printed
    assert "input0[" in printed and "by hand" in printed


def test_every_public_layer_has_a_check():
    public = {
        name
        for module in (check_gradients.layers, check_gradients.time_layers)
        for name in module.__all__
        if isinstance(getattr(module, name), type)
    }
    assert public <= {name.split()[0] for name in check_gradients.CASES}


class WrongPeephole(PeepholeLSTM):
    """The gradient of its bias is a tenth too long."""

    def backward(self, *dstates):
        returned = super().backward(*dstates)
        self.grads[self.param_names.index("b")][...] *= 1.1
        return returned


class Decay(Layer):
    """h = p h_prev + the sum of x, without a matrix."""

    param_names, state_names = ("p",), ("h",)

    def __init__(self, p):
        super().__init__(p)
        self.state_sizes = (len(p),)

    @classmethod
    def build(cls, D, H, rng, dtype):
        return cls(rng.standard_normal(H).astype(dtype))

    def forward(self, x, h_prev):
        self.cache = h_prev, x.shape[1]
        return self.params[0] * h_prev + x.sum(axis=1, keepdims=True)

    def backward(self, dh):
        h_prev, D = self.saved()
        self.grads[0][...] = (dh * h_prev).sum(axis=0)
        return np.repeat(dh.sum(axis=1, keepdims=True), D, axis=1), dh * self.params[0]


class Single(PeepholeLSTM):
    """Its weights are float32, whatever is asked for."""

    @classmethod
    def build(cls, D, H, rng, dtype):
        return super().build(D, H, rng, "float32")


def checked(capsys, **options):
    """What the command prints, line by line."""
    check_gradients.main(check_gradients.Options(**options))
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("cell", ["peephole_lstm", "common.cells.peephole_lstm:PeepholeLSTM"])
def test_a_cell_is_checked_alone_over_two_windows_and_wherever_a_cell_goes(cell, capsys):
    *lines, last = checked(capsys, cell=cell)
    names = [line.partition(": ok, ")[0].removesuffix(", second window") for line in lines]
    assert names == [
        *(f"cell {cell}", f"TimeCell {cell}", f"TimeBidirectional {cell}"),
        *(f"TimeWeightDrop {cell}", f"TimeStack {cell}", f"BetterRnnlm of {cell}"),
    ]
    assert last.startswith("6 of 6 right, worst relative error ")


def test_a_wrong_cell_of_ones_own_fails_the_command_and_shows_the_worst_element(capsys):
    with pytest.raises(SystemExit) as stop:
        checked(capsys, cell=f"{__name__}:WrongPeephole")
    assert stop.value.code == 1
    lines = capsys.readouterr().out.splitlines()
    for check in ("cell", "TimeCell"):
        assert any(line.startswith(f"{check} {__name__}:WrongPeephole") for line in lines)
    assert sum("WRONG, worst relative error 9.1e-02" in line for line in lines) == 6
    assert any(line.startswith("  b[") and "relative error 9.1e-02" in line for line in lines)
    assert lines[-1].startswith("0 of 6 right, worst relative error 9.1e-02 (")


def test_a_cell_without_a_matrix_is_checked_but_for_weight_drop(capsys):
    lines = checked(capsys, cell=f"{__name__}:Decay")
    assert lines[-1].startswith("5 of 5 right")
    assert not any("TimeWeightDrop" in line for line in lines)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("lstn", "cell 'lstn': expected rnn, lstm, gru"),
        ("common.layers:Affine", "cell 'common.layers:Affine': .*positional arguments"),
        ("common.time_layers:TimeLSTM", "TimeCell: expected a cell, a layer of one step"),
        (f"{__name__}:Single", "expected build to give weights of its dtype, float64, got float32"),
    ],
)
def test_what_cannot_be_checked_as_a_cell_is_refused(cell, message):
    with pytest.raises(ValueError, match=message):
        check_gradients.checks_of(cell)


def test_every_cell_of_the_box_has_every_check_of_a_cell():
    names = {f"{check} {cell}" for check in check_gradients.CELL_CASES for cell in cell_names()}
    assert names <= set(check_gradients.CASES)


def test_the_last_line_has_the_worst_of_all_also_where_it_is_no_number(monkeypatch, capsys):
    right = layers.SigmoidWithLoss.backward

    def spoilt(self, *dout):
        dx = right(self, *dout).copy()
        dx[0, 0] = np.nan
        return dx

    monkeypatch.setattr(layers.SigmoidWithLoss, "backward", spoilt)
    with pytest.raises(SystemExit):
        checked(capsys, only="Sigmoid")
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith("right, worst relative error nan (SigmoidWithLoss)")


def test_an_unknown_part_of_a_name_is_answered_by_the_count_and_the_nearest():
    count = len(check_gradients.CASES)
    with pytest.raises(
        ValueError, match=f"^--only lstn: .* one of {count} checks; nearest are lstm, "
    ) as e:
        check_gradients.main(check_gradients.Options(only="lstn"))
    assert len(str(e.value)) < 150
