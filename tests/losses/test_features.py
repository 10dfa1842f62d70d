"""VGG19 features: both files of weights, read into the same layers; weights here are random, CI has none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from monai_sasm.losses import features
from monai_sasm.losses.features import (
    MEAN,
    STD,
    FeaturesAbsentError,
    Vgg19Features,
    feature_distance,
    find_weights,
    weights_root,
)
from tests.data import CHECKOUT

CHANNELS = ((3, 64), (64, 64), (64, 128), (128, 128), (128, 256))


def state(first: str, positions: tuple[int, ...]) -> dict[str, Tensor]:
    """Random convolutions under the names of a ``Sequential``."""
    random = torch.Generator().manual_seed(0)
    found = {}
    for position, (inputs, outputs) in zip(positions, CHANNELS, strict=True):
        spread = (2 / (9 * inputs)) ** 0.5
        found[f"{first}{position}.weight"] = spread * torch.randn(outputs, inputs, 3, 3, generator=random)
        found[f"{first}{position}.bias"] = 0.1 * torch.randn(outputs, generator=random)
    return found


@pytest.fixture
def torchvision_file(tmp_path: Path) -> Path:
    """Random weights in the layout of torchvision's ``vgg19``."""
    torch.save(state("features.", (0, 2, 5, 7, 10)), tmp_path / "vgg19-00000000.pth")
    return tmp_path / "vgg19-00000000.pth"


@pytest.fixture
def normalised_file(tmp_path: Path) -> Path:
    """The same weights in the layout of VGG19-n, whose first layer prepares the colours."""
    weights = state("", (2, 5, 9, 12, 16))
    weights["0.weight"] = torch.diag(1 / torch.tensor(STD)).view(3, 3, 1, 1)
    weights["0.bias"] = -torch.tensor(MEAN) / torch.tensor(STD)
    torch.save(weights, tmp_path / features.VGG_N_FILE)
    return tmp_path / features.VGG_N_FILE


def photo(*size: int) -> Tensor:
    return torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))


def test_features_are_those_of_vgg19_written_out(torchvision_file: Path) -> None:
    weights = torch.load(torchvision_file, weights_only=True)
    layers = nn.Sequential(
        *(nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(64, 128, 3, padding=1), nn.ReLU(), nn.Conv2d(128, 128, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(128, 256, 3, padding=1), nn.ReLU()),
    )
    layers.load_state_dict({key.removeprefix("features."): value for key, value in weights.items()})
    x = (photo(24, 32) - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    with torch.no_grad():
        expected = [layers[:2](x), layers[:7](x), layers[:12](x)]
        found = Vgg19Features(torchvision_file)(photo(24, 32))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_both_layouts_agree_away_from_the_border(torchvision_file: Path, normalised_file: Path) -> None:
    """They differ in padding: torchvision's VGG19 pads with zeros, VGG19-n by reflection."""
    plain, normalised = Vgg19Features(torchvision_file), Vgg19Features(normalised_file)
    assert (plain.name, normalised.name) == ("VGG19", "VGG19-n")
    with torch.no_grad():
        first, second = plain(photo(48, 64)), normalised(photo(48, 64))
    for border, ours, theirs in zip((1, 2, 3), first, second, strict=True):
        inner = (..., slice(border, -border), slice(border, -border))
        torch.testing.assert_close(ours[inner], theirs[inner], atol=1e-4, rtol=1e-4)
        assert not torch.allclose(ours[..., 0, :], theirs[..., 0, :], atol=1e-3)


def test_shapes_and_odd_sizes(normalised_file: Path) -> None:
    shapes = [tuple(taps.shape) for taps in Vgg19Features(normalised_file)(photo(21, 30))]
    assert shapes == [(2, 64, 21, 30), (2, 128, 11, 15), (2, 256, 6, 8)]


def test_weights_are_frozen_and_gradients_reach_the_image(normalised_file: Path) -> None:
    network, image = Vgg19Features(normalised_file), photo(16, 16).requires_grad_()
    network(image)[2].mean().backward()
    assert image.grad is not None
    assert float(image.grad.abs().sum()) > 0
    assert not any(weight.requires_grad for weight in network.parameters())
    assert not network.training


def test_distance_is_zero_for_equal_features_and_blind_to_their_scale() -> None:
    random = torch.Generator().manual_seed(0)
    maps = [torch.rand(2, channels, 4, 5, generator=random) for channels in (64, 128)]
    assert feature_distance(maps, maps).tolist() == [0, 0]
    assert feature_distance(maps, [3 * part for part in maps]).tolist() == pytest.approx([0, 0], abs=1e-6)


def test_distance_of_orthogonal_features_is_two_per_depth() -> None:
    first, second = torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 3)
    first[:, 0], second[:, 1] = 5.0, 0.2
    assert feature_distance([first, first], [second, second]).tolist() == pytest.approx([4.0])


def test_torchvisions_weights_come_first(
    torchvision_file: Path, normalised_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SASM_WEIGHTS", str(normalised_file.parent))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    assert find_weights() == normalised_file
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torchvision_file.rename(tmp_path / "hub" / "checkpoints" / torchvision_file.name)
    assert find_weights() == tmp_path / "hub" / "checkpoints" / torchvision_file.name


def test_missing_weights_are_named_with_their_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SASM_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    with pytest.raises(FeaturesAbsentError, match=r"vgg19-\*\.pth into .*hub/checkpoints.*SASM_WEIGHTS"):
        Vgg19Features()


def test_third_party_weights_are_looked_for_beside_the_checkout(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("SASM_WEIGHTS", raising=False)
    assert weights_root() == CHECKOUT.parent / "shared" / "weights"
    monkeypatch.setenv("SASM_WEIGHTS", str(tmp_path))
    assert weights_root() == tmp_path
