"""Adapters: any size through blocks of pixels, diffusers' UNet with MONAI's call, and what is said without it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from monai.networks.nets import DiffusionModelUNet
from torch import Tensor, nn

from monai_sasm.diffusion.networks import DiffusersUNet, UnshuffledUNet
from monai_sasm.functional.tiling import pad_to_multiple
from monai_sasm.optional import MissingExtraError
from tests.diffusion.schedules import Affine, images

SMALL = {
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": [8, 8],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 4,
}


@pytest.mark.parametrize("patch", [1, 2, 4])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 3), (16, 17), (33, 47)])
def test_folding_is_lossless_and_sizes_come_back(patch: int, size: tuple[int, int]) -> None:
    x, t = images(2, 3, *size), torch.tensor([0, 500])
    network = Affine()
    found = UnshuffledUNet(network, patch, levels=3)(x, t)
    torch.testing.assert_close(found, 0.3 * x + torch.tensor([0.0, 0.5]).view(2, 1, 1, 1))
    (_, channels, height, width), *_ = network.calls[0]
    assert channels == 3 * patch**2
    assert height % 4 == width % 4 == 0, "three levels halve twice"


def test_a_small_image_is_extended_by_its_border() -> None:
    assert pad_to_multiple(torch.tensor([[[[1.0, 2.0]]]]), 4)[0, 0].tolist() == [[1, 2, 2, 2]] * 4
    assert pad_to_multiple(torch.tensor([[[[1.0, 2.0, 3.0]] * 4]]), 4)[0, 0, 0].tolist() == [1, 2, 3, 2]
    image = images(1, 1, 4, 8)
    assert pad_to_multiple(image, 4) is image


@pytest.mark.parametrize(("patch", "levels"), [(0, 3), (2, 0)])
def test_senseless_sizes_are_refused(patch: int, levels: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        UnshuffledUNet(Affine(), patch, levels)


def test_monais_network_fits() -> None:
    torch.manual_seed(0)
    network = DiffusionModelUNet(2, 12, 12, channels=(8, 8), attention_levels=(False, False), norm_num_groups=4,
                                 num_res_blocks=1, num_class_embeds=5)  # fmt: skip
    wrapped = UnshuffledUNet(network, 2, levels=2).eval()
    x, t = images(1, 3, 9, 13, dtype=torch.float32), torch.tensor([5])
    with torch.no_grad():
        for weight in network.parameters():
            nn.init.normal_(weight, std=0.1)  # MONAI starts many of them at zero
        first, second = (wrapped(x, t, class_labels=torch.tensor([label])) for label in (0, 3))
    assert first.shape == x.shape
    assert not torch.equal(first, second)


def small_unet(**config: object) -> DiffusersUNet:
    pytest.importorskip("diffusers")
    torch.manual_seed(0)
    return DiffusersUNet(**{**SMALL, **config}).eval()  # type: ignore[arg-type]


def test_diffusers_network_has_monais_call() -> None:
    network = small_unet()
    x, t = images(2, 3, 8, 12, dtype=torch.float32), torch.tensor([3, 700])
    with torch.no_grad():
        found = network(x, timesteps=t)
        torch.testing.assert_close(found, network.unet(x, t).sample)
        torch.testing.assert_close(network(x[1:], timesteps=t[1:]), found[1:], atol=1e-5, rtol=1e-4)


def test_labels_reach_a_diffusers_network() -> None:
    network = small_unet(num_class_embeds=4)
    x, t = images(1, 3, 8, 8, dtype=torch.float32), torch.tensor([3])
    with torch.no_grad():
        first, second = (network(x, t, class_labels=torch.tensor([label])) for label in (0, 3))
    assert not torch.equal(first, second)


def test_context_is_refused() -> None:
    with pytest.raises(ValueError, match="no cross-attention"):
        small_unet()(images(1, 3, 8, 8), torch.tensor([0]), context=images(1, 1, 4))


def test_a_published_model_is_read_from_its_folder(tmp_path: Path) -> None:
    network = small_unet()
    network.unet.save_pretrained(tmp_path / "model")  # type: ignore[operator]
    again = DiffusersUNet(str(tmp_path / "model")).eval()
    x, t = images(1, 3, 8, 8, dtype=torch.float32), torch.tensor([57])
    with torch.no_grad():
        torch.testing.assert_close(again(x, t), network(x, t))


def test_a_missing_model_is_named_with_the_way_to_get_it(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    with pytest.raises(FileNotFoundError, match=r"no UNet2DModel '.*/nothing' here.*hf download .*/nothing"):
        DiffusersUNet(str(tmp_path / "nothing"))


def test_a_published_model_brings_its_own_config() -> None:
    with pytest.raises(ValueError, match=r"drop \['in_channels'\] or pretrained='some/model'"):
        DiffusersUNet("some/model", in_channels=3)


def test_a_model_of_the_hub_is_read_at_one_commit_and_as_safetensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, asked = pytest.importorskip("diffusers").UNet2DModel, []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(model, "from_pretrained", lambda name, **how: asked.append((name, how)) or nn.Identity())
    with pytest.raises(ValueError, match="'some/model' is no folder, and a model of the hub is read at one commit"):
        DiffusersUNet("some/model")
    assert asked == []
    DiffusersUNet("some/model", revision="0123abc")
    (tmp_path / "some" / "model").mkdir(parents=True)
    DiffusersUNet("some/model")
    assert asked == [("some/model", {"revision": commit, "use_safetensors": True}) for commit in ("0123abc", None)]


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    network = small_unet()
    network.unet.save_pretrained(tmp_path / "model", safe_serialization=False)  # type: ignore[operator]
    with pytest.raises(FileNotFoundError, match="here as safetensors"):
        DiffusersUNet(str(tmp_path / "model"))


def test_without_diffusers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(MissingExtraError, match=r"needs 'diffusers'.*pip install 'monai-sasm\[diffusion\]'"):
        DiffusersUNet(**SMALL)  # type: ignore[arg-type]


def test_gradients_reach_every_weight() -> None:
    network = UnshuffledUNet(small_unet(in_channels=12, out_channels=12), 2, levels=2)
    result: Tensor = network(images(1, 3, 16, 16, dtype=torch.float32), torch.tensor([9]))
    result.square().mean().backward()
    assert [name for name, weight in network.named_parameters() if weight.grad is None] == []
