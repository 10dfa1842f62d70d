"""The gate keeps its spatial layout and its pretrained statistics."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from monai_sasm.functional.noise import NoiseEstimator
from monai_sasm.gate.display import to_display
from monai_sasm.gate.mobilenet import STRIDE, SpatialGate, load_trunk
from monai_sasm.gate.trunk import mobilenet_v2
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


def test_the_trunk_is_torchvisions(tmp_path: Path) -> None:
    """The same weights by the same names, and the same answers to the last bit."""
    torch.manual_seed(1)
    source = torchvision().models.mobilenet_v2(weights=None).eval()
    for module in source.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 2)
            torch.nn.init.normal_(module.bias, std=0.1)
    torch.save(source.state_dict(), tmp_path / "mobilenet_v2.pth")
    loaded = load_trunk(SpatialGate(["clean", "a"], width=8), str(tmp_path / "mobilenet_v2.pth")).eval()
    assert list(loaded.trunk.state_dict()) == list(source.features.state_dict())
    image = torch.rand(2, 3, 65, 96, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        for index, (own, theirs) in enumerate(zip(loaded.trunk, source.features, strict=True)):
            result = own(image)
            assert torch.equal(result, theirs(image)), index
            image = result
    assert image.std() > 0.01


def test_a_new_trunk_is_drawn_as_torchvisions() -> None:
    torch.manual_seed(0)
    own, theirs = mobilenet_v2(), torchvision().models.mobilenet_v2(weights=None).features
    for (name, one), other in zip(own.state_dict().items(), theirs.state_dict().values(), strict=True):
        if one.numel() > 1000:
            assert float(one.std()) == pytest.approx(float(other.std()), rel=0.15), name
        elif one.is_floating_point() and one.ndim == 1:
            assert torch.equal(one, other), name


def test_a_gate_needs_no_torchvision() -> None:
    """Its import takes a second of processor time before the first image."""
    program = (
        "import sys; from monai_sasm.restoration.restorer import Restorer; assert Restorer().gate is not None; "
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'torchvision', 'matplotlib', 'diffusers'}))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


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
