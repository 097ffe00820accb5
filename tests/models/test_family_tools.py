"""The measuring tools of the foundation models."""

import numpy as np
import pytest
from golden import GOLDEN
from helpers.tools import load_tool
from safetensors.numpy import save_file


def test_quantiles_are_the_columns_with_a_level():
    """The mean would be scored as a quantile, and every other column as its neighbour."""
    reported = np.arange(2 * 2 * 3 * 3).reshape(2, 2, 3, 3)
    found, levels = load_tool("family_on_series").quantiles_of(reported, ("mean", 0.1, 0.9), 5)
    assert levels == (0.1, 0.9)
    assert found.shape == (2, 5, 2)
    np.testing.assert_array_equal(found[0], np.arange(18).reshape(6, 3)[:5, 1:])


def test_a_model_of_any_context_needs_a_length(tmp_path, monkeypatch, capsys):
    """Windows of no step would be cut, and the model fail inside the measurement."""
    with np.load(GOLDEN / "timer.npz") as file:
        arrays = {k.removeprefix("timer/"): file[k] for k in file.files if k.startswith("timer/")}
    save_file(arrays, tmp_path / "model.safetensors")
    script = load_tool("family_on_series")
    monkeypatch.setattr("sys.argv", ["tool", str(tmp_path / "model.safetensors")])
    with pytest.raises(SystemExit):
        script.main()
    assert "give --context-len" in capsys.readouterr().err
