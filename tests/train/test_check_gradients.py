"""The command must fail when a gradient is wrong, or it proves nothing."""

import pytest

from common import layers
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
