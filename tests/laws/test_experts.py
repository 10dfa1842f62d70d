"""Laws that every expert keeps: the networks of all expert bundles, with fresh weights, and the bare U-Net."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
from monai.bundle import ConfigParser
from torch import nn

from monai_sasm.experts.unet import ResidualUNet
from monai_sasm.functional.noise import NoiseEstimator
from tests.bundle_cases import BUNDLES

SIZES = [(1, 1), (1, 7), (5, 3), (16, 17), (33, 47), (64, 64)]


def bundle_network(root: object) -> tuple[nn.Module, int]:
    """The network of a bundle with fresh weights, and its channels."""
    parser = ConfigParser()
    parser.read_config(str(root / "configs" / "inference.yaml"))
    parser["bundle_root"] = str(root)
    torch.manual_seed(0)
    metadata = json.loads((root / "configs" / "metadata.json").read_text())
    channels = metadata["network_data_format"]["inputs"]["image"]["num_channels"]
    return parser.get_parsed_content("network_def"), channels


def bare(noise: bool, image_channels: int) -> tuple[nn.Module, int]:
    """A small U-Net with or without noise map."""
    torch.manual_seed(0)
    estimator = NoiseEstimator() if noise else None
    return ResidualUNet(image_channels, channels=(8, 12, 16), noise_estimator=estimator), image_channels


EXPERTS: dict[str, Callable[[], tuple[nn.Module, int]]] = {
    path.name: lambda path=path: bundle_network(path)  # type: ignore[misc]
    for path in BUNDLES
    if json.loads((path / "configs" / "metadata.json").read_text())["sasm"]["role"] == "expert"
} | {"unet": lambda: bare(False, 1), "unet with noise map": lambda: bare(True, 3)}


@pytest.fixture(params=EXPERTS.values(), ids=EXPERTS.keys(), scope="module")
def expert(request: pytest.FixtureRequest) -> tuple[nn.Module, int]:
    """One network and its channels."""
    return request.param()


def images(channels: int, *size: int, count: int = 1) -> torch.Tensor:
    """Random images ``(count, channels, *size)``."""
    return torch.rand(count, channels, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_any_size_comes_back_in_shape(expert: tuple[nn.Module, int], size: tuple[int, int]) -> None:
    network, channels = expert
    image = images(channels, *size)
    with torch.inference_mode():
        restored = network(image)
    assert restored.shape == image.shape
    assert restored.dtype == torch.float32
    assert torch.isfinite(restored).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_dtype_is_kept(expert: tuple[nn.Module, int], dtype: torch.dtype) -> None:
    network, channels = expert
    try:
        with torch.inference_mode():
            assert network.to(dtype)(images(channels, 16, 24).to(dtype)).dtype == dtype
    finally:
        network.float()


def test_the_same_input_gives_the_same_output(expert: tuple[nn.Module, int]) -> None:
    network, channels = expert
    image = images(channels, 33, 40)
    before = image.clone()
    with torch.inference_mode():
        first, second = network(image), network(image)
    assert torch.equal(first, second)
    assert torch.equal(image, before), "the input is not written to"


def test_each_image_of_a_batch_stands_alone(expert: tuple[nn.Module, int]) -> None:
    network, channels = expert
    batch = images(channels, 32, 40, count=2)
    with torch.inference_mode():
        torch.testing.assert_close(network(batch)[1:], network(batch[1:]), atol=1e-5, rtol=1e-4)


def test_a_given_noise_map_replaces_the_estimate(expert: tuple[nn.Module, int]) -> None:
    network, channels = expert
    image = images(channels, 32, 40)
    estimate = NoiseEstimator()(image)
    with torch.inference_mode():
        torch.testing.assert_close(network(image, estimate), network(image))


def test_weights_survive_their_file(tmp_path, expert: tuple[nn.Module, int]) -> None:
    network, channels = expert
    image = images(channels, 24, 24)
    with torch.inference_mode():
        before = network(image)
        torch.save(network.state_dict(), tmp_path / "model.pt")
        kept = {key: value.clone() for key, value in network.state_dict().items()}
        for parameter in network.parameters():
            parameter.add_(0.01)
        assert not torch.equal(network(image), before)
        network.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True), strict=True)
        assert torch.equal(network(image), before)
    assert kept.keys() == network.state_dict().keys()


def test_one_step_lowers_the_loss(expert: tuple[nn.Module, int]) -> None:
    network, channels = expert
    clean = images(channels, 32, 32, count=2) * 0.1 + 0.4
    noisy = clean + 0.1 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(2))
    kept = {key: value.clone() for key, value in network.state_dict().items()}
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    before = (network(noisy) - clean).square().mean()
    before.backward()
    optimizer.step()
    with torch.inference_mode():
        after = (network(noisy) - clean).square().mean()
    network.load_state_dict(kept)
    assert float(after) < before.item()
