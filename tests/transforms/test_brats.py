"""What brain tumour images need: background found by the corner, and labels that survive the way through regions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import ConvertToMultiChannelBasedOnBratsClasses

from monai_sasm.transforms.brats import BratsRegionsToLabelsd, ZeroBackgroundd, brats_labels


def test_each_channel_has_its_own_background() -> None:
    image = torch.tensor([[[-3.6, 1.0], [0.0, -3.6]], [[0.0, 2.0], [3.0, 0.0]]])
    affine = torch.diag(torch.tensor([2.0, 1.0, 1.0, 1.0]))
    result = ZeroBackgroundd("image")({"image": MetaTensor(image, affine=affine)})["image"]
    assert result.tolist() == [[[0, 1], [0, 0]], [[0, 2], [3, 0]]]
    torch.testing.assert_close(result.affine, affine.double(), check_dtype=False)


def test_labels_come_back_from_monais_regions() -> None:
    labels = torch.from_numpy(np.random.default_rng(0).choice([0, 1, 2, 4], (1, 4, 5, 6)))
    regions = ConvertToMultiChannelBasedOnBratsClasses()(labels).float()
    assert torch.equal(BratsRegionsToLabelsd("pred")({"pred": regions})["pred"], labels.float())


def test_the_smaller_region_wins_and_two_regions_are_refused() -> None:
    enhancing_outside = torch.tensor([0.0, 0.0, 1.0]).reshape(3, 1, 1, 1)
    assert brats_labels(enhancing_outside).item() == 4
    with pytest.raises(ValueError, match="3 channels, got 2"):
        brats_labels(torch.zeros(2, 1, 1, 1))
