"""A bundle may hold variants: a configuration laid over its own, with weights of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from monai_sasm.bundles import load
from monai_sasm.errors import BundleError
from tests.toy_bundles import write_gain_expert


def test_overlays_of_a_bundle_have_their_own_configuration_and_weights(tmp_path: Path) -> None:
    folder = write_gain_expert(tmp_path / "gain", 2.0)
    (folder / "configs" / "wide.yaml").write_text("network_def#kernel_size: 3\nnetwork_def#padding: 1\n")
    with pytest.raises(BundleError, match=r"wide_model\.pt is missing"):
        load(folder, overlay="wide")
    weight = F.pad(3 * torch.eye(3)[..., None, None], (1, 1, 1, 1))
    torch.save({"weight": weight, "bias": torch.zeros(3)}, folder / "models" / "wide_model.pt")
    image = torch.rand(1, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(load(folder, overlay="wide").restore(image), 3 * image)
    assert torch.allclose(load(folder).restore(image), 2 * image)
    with pytest.raises(BundleError, match="no variant 'narrow'"):
        load(folder, overlay="narrow")
