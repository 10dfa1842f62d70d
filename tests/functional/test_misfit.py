"""What is said of weights that do not fit a network: short, with names and counts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from monai_sasm.bundles import load
from monai_sasm.errors import BundleError, RefusedError
from monai_sasm.functional.misfit import misfit
from monai_sasm.recipes.inference import _Weights
from monai_sasm.training.checkpoints import starting_from
from tests.toy_bundles import write_gain_expert


def network(layers: int = 3) -> nn.Module:
    return nn.Sequential(*(nn.Conv2d(2, 2, 1) for _ in range(layers)))


OTHER = {"0.weight": torch.zeros(2, 3, 1, 1), **{f"body.{number}": torch.zeros(1) for number in range(500)}}


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (network(2).state_dict(), "it lacks 2 of 6 weights (2.weight, 2.bias)"),
        (network(5).state_dict(), "4 of its 10 belong to another network (3.weight, 3.bias, 4.weight, ...)"),
        (
            {**network().state_dict(), "0.bias": torch.zeros(5)},
            "1 have another shape (0.bias is (5,), not (2,))",
        ),
        (
            OTHER,
            "it lacks 5 of 6 weights (0.bias, 1.weight, 1.bias, ...), 500 of its 501 belong to another network "
            "(body.0, body.1, body.2, ...), 1 have another shape (0.weight is (2, 3, 1, 1), not (2, 2, 1, 1))",
        ),
        (
            {"network": network().state_dict(), "optimizer": {}, "trainer": {}},
            "the file holds network, optimizer, trainer: a checkpoint; give the model.pt that lies beside it",
        ),
        ([1.0], "the file holds a list, no weights by name"),
    ],
)
def test_it_names_a_few(state: Any, said: str) -> None:
    assert misfit(network(), state) == said


def test_wherever_weights_are_loaded(tmp_path: Path) -> None:
    """torch would list all 500 names, and so would the traceback."""
    file = tmp_path / "other.pt"
    torch.save(OTHER, file)
    bundle = write_gain_expert(tmp_path / "toy", gain=2.0)
    torch.save(OTHER, bundle / "models" / "model.pt")
    loader = _Weights(str(file), {"model": network()})
    engine: Any = SimpleNamespace(state=SimpleNamespace(max_epochs=1, epoch=0))
    ways: list[tuple[type[Exception], Any]] = [
        (RefusedError, lambda: starting_from(network(), file, "cpu")),
        (RefusedError, lambda: loader(engine)),
        (BundleError, lambda: load(bundle)),
    ]
    for kind, way in ways:
        with pytest.raises(kind, match=r"50[01] of its 501 belong to another network .*network_def") as raised:
            way()
        assert len(str(raised.value)) < 600
        assert raised.value.__suppress_context__
