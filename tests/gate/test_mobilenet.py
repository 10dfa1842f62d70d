"""The gate keeps its spatial layout and its pretrained statistics."""

from __future__ import annotations

import pytest
import torch

from monai_sasm.functional.noise import NoiseEstimator
from monai_sasm.gate.display import to_display
from monai_sasm.gate.mobilenet import STRIDE, SpatialGate, load_trunk
from monai_sasm.optional import torchvision
from monai_sasm.types import Modality


@pytest.fixture(scope="module")
def gate() -> SpatialGate:
    torch.manual_seed(0)
    return SpatialGate(["clean", "a", "b"], width=8, noise_estimator=NoiseEstimator()).eval()


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (64, 72), (65, 71)])
def test_logits_have_one_value_per_block(gate: SpatialGate, size: tuple[int, int]) -> None:
    with torch.inference_mode():
        logits = gate(torch.rand(1, 3, *size))
    assert logits.shape == (1, 3, -(-size[0] // STRIDE), -(-size[1] // STRIDE))
    assert torch.isfinite(logits).all()


def test_a_sliver_of_pixels_is_judged_by_what_is_beside_it(gate: SpatialGate) -> None:
    image = torch.rand(1, 3, 96, 128, generator=torch.Generator().manual_seed(3))
    image[..., 65:96] = image[..., 33:64].flip(-1)  # what reflection at column 64 shows
    sigma = torch.full_like(image[:, :1], 0.1)
    cut, whole = gate(image[..., :64, :65], sigma[..., :64, :65]), gate(image[..., :64, :96], sigma[..., :64, :96])
    assert cut.shape[2:] == (8, 9)
    torch.testing.assert_close(cut, whole[..., :9])


def test_the_noise_map_reaches_the_head(gate: SpatialGate) -> None:
    image = torch.full((1, 3, 64, 64), 0.5)
    with torch.inference_mode():
        quiet, loud = (gate(image, torch.full((1, 1, 64, 64), sigma)) for sigma in (0.0, 0.2))
    assert float((quiet - loud).abs().max()) > 1e-3


def test_batch_norm_statistics_stay(gate: SpatialGate) -> None:
    norms = [module for module in gate.trunk.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    before = [norm.running_mean.clone() for norm in norms]
    gate.train()(torch.rand(2, 3, 32, 32))
    gate.eval()
    assert len(norms) == 52
    assert all(torch.equal(old, norm.running_mean) for old, norm in zip(before, norms, strict=True))


def test_trunk_is_loaded_from_a_torchvision_state_dict(tmp_path) -> None:
    source = torchvision().models.mobilenet_v2(weights=None)
    torch.save(source.state_dict(), tmp_path / "mobilenet_v2.pth")
    loaded = load_trunk(SpatialGate(["clean", "a"], width=8), str(tmp_path / "mobilenet_v2.pth"))
    assert torch.equal(loaded.trunk[0][0].weight, source.features[0][0].weight)


def test_classes_must_differ() -> None:
    with pytest.raises(ValueError, match="all different"):
        SpatialGate(["clean", "clean"])


@pytest.mark.parametrize(
    ("modality", "value", "shown"), [(Modality.CT, 0.05, 0.5), (Modality.MR, 0.6, 0.5), (Modality.PHOTO, 0.5, 0.5)]
)
def test_display_range(modality: Modality, value: float, shown: float) -> None:
    image, sigma = to_display(torch.full((1, 1, 4, 4), value), torch.full((1, 1, 4, 4), 0.01), modality)
    assert image.shape == (1, 3, 4, 4)
    assert float(image[0, 0, 0, 0]) == pytest.approx(shown)
    width = {Modality.CT: 0.5, Modality.MR: 1.2, Modality.PHOTO: 1.0}[modality]
    assert float(sigma[0, 0, 0, 0]) == pytest.approx(0.01 / width)
