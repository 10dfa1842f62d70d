"""Devices without float64 are asked for none."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from monai_sasm.functional import precision
from monai_sasm.gate.pixel_weights import PixelWeights


class WithoutFloat64(TorchDispatchMode):
    """Refuses float64 as a device of Apple does."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64")
        return result


def test_widest_is_what_a_device_has() -> None:
    assert precision.widest("mps") is torch.float32
    assert precision.widest(torch.device("mps:0")) is torch.float32
    assert precision.widest("cpu") is precision.widest("cuda:1") is torch.float64


def test_mean_weights_need_no_float64_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = PixelWeights.of(torch.tensor([0.25, 0.75]).view(1, 2, 1, 1).expand(1, 2, 40, 56))
    with WithoutFloat64(), pytest.raises(TypeError, match="MPS"):
        weights.mean()
    monkeypatch.setattr(precision, "_WITHOUT_FLOAT64", ("mps", "cpu"))
    with WithoutFloat64():
        assert weights.mean().tolist() == [[0.25, 0.75]]
        assert weights.present().tolist() == [[False, True]]
