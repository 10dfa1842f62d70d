"""Networks of somebody's own that break the contract: each way through says so, and none writes a result."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from monai_sasm.bundles import Bundle, load
from monai_sasm.bundles.exporting import export
from monai_sasm.errors import BundleError
from monai_sasm.io.volume import Volume
from monai_sasm.recipes.inference import slice_inferer
from monai_sasm.restoration.restorer import Restorer
from monai_sasm.types import Modality
from tests.toy_bundles import bundle, write_gain_expert


class Doing(nn.Module):
    """A network that does one thing to the image."""

    def __init__(self, run: Callable[..., object]) -> None:
        super().__init__()
        self.run = run
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, image: Tensor) -> object:
        return self.run(image)


def failing(image: Tensor) -> Tensor:
    raise AttributeError("'Doing' has no 'head'")


LARGER = "(1, 1, 128, 144)"
WRONG = {
    "larger": (lambda image: nn.functional.interpolate(image, scale_factor=2), f"shape (1, 1, 64, 72), got {LARGER}"),
    "smaller": (lambda image: image[..., 1:-1, :], "got (1, 1, 62, 72)"),
    "more channels": (lambda image: image.expand(-1, 3, -1, -1), "got (1, 3, 64, 72)"),
    "one image for all": (lambda image: image[0], "got (1, 64, 72)"),
    "a tuple": (lambda image: (image, image), "got a tuple"),
    "NaN": (lambda image: image * float("nan"), "makes NaN or infinite values of a finite image"),
    "infinite": (lambda image: image / 0, "makes NaN or infinite values of a finite image"),
    "failing": (failing, "fails on an image (1, 1, 64, 72) (AttributeError): 'Doing' has no 'head'"),
    "other channels in": (nn.Conv2d(3, 3, 1), "fails on an image (1, 1, 64, 72) (RuntimeError): Given groups=1"),
}
wrong = pytest.mark.parametrize("name", WRONG)


def own(name: str) -> Bundle:
    return bundle("own", "expert", Modality.CT, Doing(WRONG[name][0]).eval())


@wrong
def test_what_is_no_restored_image_is_refused_by_name(name: str) -> None:
    with pytest.raises(BundleError, match=f"^own .*{re.escape(WRONG[name][1])}"):
        own(name).restore(torch.rand(1, 1, 64, 72) + 0.1)


@wrong
def test_no_volume_is_restored_by_it(name: str) -> None:
    restorer = Restorer.of({"own": own(name)})
    volume = Volume.from_array(np.random.default_rng(0).uniform(-1000, 1000, (64, 72)), np.eye(4), "CT")
    with pytest.raises(BundleError, match=r"^own "):
        restorer(volume, expert="own")


def test_a_network_without_noise_map_is_told_how_it_is_called() -> None:
    one = replace(own("larger"), network=Doing(lambda image: image).eval(), noise_map=True)
    with pytest.raises(BundleError, match=r"\(TypeError\).*2 positional .* 3 were given; .*\(image, sigma\)"):
        one.restore(torch.rand(1, 1, 64, 72), torch.full((1, 1, 64, 72), 0.1))


def test_too_little_memory_is_no_fault_of_the_network() -> None:
    def greedy(image: Tensor) -> Tensor:
        raise RuntimeError("CUDA out of memory")

    with pytest.raises(RuntimeError, match=r"^CUDA out of memory"):
        replace(own("larger"), network=Doing(greedy)).restore(torch.rand(1, 1, 64, 72))


def test_values_that_came_so_are_no_fault_of_the_network() -> None:
    image = torch.full((1, 1, 64, 72), float("nan"))
    same = replace(own("larger"), network=Doing(lambda image: image))
    assert torch.isnan(same.restore(image)).all()


def test_weights_that_are_no_state_dict_are_named(tmp_path: Path) -> None:
    folder = write_gain_expert(tmp_path / "own", 0.5)
    torch.save([1.0, 2.0], folder / "models" / "model.pt")
    with pytest.raises(BundleError, match=r"model\.pt must hold a network's state_dict, got a list"):
        load(folder)


@wrong
def test_it_is_not_exported(name: str, tmp_path: Path) -> None:
    one = replace(own(name), metadata={"sasm": {}})
    with pytest.raises(BundleError, match=r"^own "):
        export(one, tmp_path / "own.ts", kind="torchscript")
    assert not (tmp_path / "own.ts").exists()


@pytest.mark.parametrize("shape", [(1, 1, 64, 72, 2), (1, 1, 1100, 40, 1)], ids=["whole", "tiled"])
@pytest.mark.parametrize("name", ["larger", "smaller", "more channels"])
def test_monais_way_refuses_it(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"the network must give .*, got "):
        slice_inferer("CT")(torch.rand(shape), own(name).network)


@pytest.mark.parametrize("flag", ["noise_map", "bfloat16", "label", "default"])
def test_a_word_is_no_flag_of_the_metadata(flag: str, tmp_path: Path) -> None:
    folder = write_gain_expert(tmp_path / "own", 0.5)
    path = folder / "configs" / "metadata.json"
    metadata = json.loads(path.read_text())
    metadata["sasm"][flag] = "no"
    path.write_text(json.dumps(metadata))
    with pytest.raises(BundleError, match=rf"sasm\.{flag} must be true or false, got 'no'"):
        load(folder)


def test_an_image_that_is_rounded_itself_is_refused() -> None:
    network = nn.Conv2d(1, 1, 1).eval()
    image = torch.rand(1, 1, 64, 72)
    one = replace(own("larger"), network=network, precision="bfloat16", metadata={"sasm": {"bfloat16": True}})
    with pytest.raises(BundleError, match=r"^own gives its image back in torch\.bfloat16, which rounds it"):
        one.restore(image)
    with pytest.raises(ValueError, match=r"back in torch\.bfloat16, .* set precision to float32"):
        slice_inferer("CT", precision="bfloat16")(image, network)
    residual = Doing(lambda image: image + network(image)).eval()
    assert replace(one, network=residual).restore(image).dtype == torch.float32
    assert slice_inferer("CT", precision="bfloat16")(image, residual).dtype == torch.float32
