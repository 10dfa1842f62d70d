"""Mixed precision of training."""

import pytest
import torch
from torch import nn

from monai_sasm.errors import RefusedError
from monai_sasm.training.precision import Autocast


def test_float16_is_refused_for_its_gradients():
    image = torch.rand(1, 1, 16, 16)
    half = image.half().requires_grad_()
    (half * 1e-8).float().sum().backward()
    assert half.grad.abs().max() == 0  # why

    with pytest.raises(RefusedError, match="one of \\['bfloat16', 'float32'\\], got 'float16', which loses small grad"):
        Autocast(nn.Conv2d(1, 1, 3), "float16")


def test_bfloat16_keeps_them():
    image = torch.rand(1, 1, 16, 16, requires_grad=True)
    result = Autocast(nn.Conv2d(1, 1, 3), "bfloat16")(image)
    assert result.dtype is torch.float32
    (1e-8 * result.sum()).backward()
    assert image.grad.abs().max() > 0
