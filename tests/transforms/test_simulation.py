"""Simulated acquisitions as dictionary transforms: the models behind them, seeds, grids and units."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import LoadImaged

from monai_sasm.degradations.gaussian import GaussianNoise
from monai_sasm.degradations.kspace import KspaceNoise, KspaceTruncation
from monai_sasm.degradations.lesions import Lesions
from monai_sasm.degradations.low_dose_ct import LowDoseCt
from monai_sasm.degradations.masked_background import MaskedBackground
from monai_sasm.degradations.regions import InRegions
from monai_sasm.degradations.slice_profile import SliceProfile
from monai_sasm.transforms.degradation import DegradeSlicesd, LowDoseCtd, LowResolutionMrd
from monai_sasm.transforms.thick_slices import ThickSlicesd
from tests.bundle_cases import ROOT
from tests.data import mr_volume
from tests.transforms.phantoms import head, oblique, tensor


def test_each_slice_is_truncated_in_its_plane() -> None:
    clean = head() / 700
    degraded = LowResolutionMrd("image", factor=2, slice_axis=1)({"image": tensor(clean, oblique((2, 2, 4)))})["image"]
    model = KspaceTruncation((2.0, 2.0))
    params = model.draw((1, 1, 40, 20), torch.Generator())
    for number in (0, 21, 43):
        expected = model.apply(torch.from_numpy(clean[None, None, :, number]), params)
        np.testing.assert_allclose(degraded[0, :, number].numpy(), expected[0, 0].numpy(), atol=1e-5)
    assert degraded.affine.equal(tensor(clean, oblique((2, 2, 4))).affine)


def test_the_seed_decides_and_every_slice_has_its_own_noise() -> None:
    image = MetaTensor(torch.full((1, 16, 16, 3), 5.0))
    step = LowResolutionMrd("image", factor=1, sigma=(0.1, 0.1))
    first = step.set_random_state(3)({"image": image})["image"]
    again = step.set_random_state(3)({"image": image})["image"]
    other = step.set_random_state(4)({"image": image})["image"]
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    noise = (first - 5).numpy()[0]
    assert noise.std() == pytest.approx(0.1, rel=0.1)
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.2


def test_any_model_fits_and_the_record_is_taken_back() -> None:
    step = DegradeSlicesd("image", GaussianNoise(sigma=(10.0, 10.0)))
    for shape in ((1, 20, 24), (1, 20, 24, 4)):
        data = step({"image": MetaTensor(torch.zeros(shape))})
        assert float(data["image"].std()) == pytest.approx(10, rel=0.15)
        assert len(data["image"].applied_operations) == 1
        assert not step.inverse(data)["image"].applied_operations
    with pytest.raises(ValueError, match="expected one channel, got 2"):
        step({"image": MetaTensor(torch.zeros(2, 20, 24))})


def test_a_model_within_another_and_one_without_noise_fit() -> None:
    clean = np.where(np.mgrid[:32, :32].min(0) > 4, np.float32(1), np.float32(0))[None, ..., None].repeat(3, -1)
    masked = DegradeSlicesd("image", MaskedBackground(KspaceNoise((0.1, 0.1)), share=1.0))
    noise = (masked({"image": MetaTensor(torch.from_numpy(clean))})["image"].numpy() - clean)[0]
    assert noise[16:].std() == pytest.approx(0.1, rel=0.1)
    assert abs(np.corrcoef(noise[16:, 8:, 0].ravel(), noise[16:, 8:, 1].ravel())[0, 1]) < 0.2
    lesions = DegradeSlicesd("image", Lesions(contrast=(0.1, 0.1)))({"image": MetaTensor(torch.from_numpy(clean))})
    field = (lesions["image"].numpy() - clean)[0]
    np.testing.assert_array_equal(field[..., 0], field[..., 2])
    assert np.abs(field).max() > 0.05


def test_models_side_by_side_have_noise_of_their_own_in_each_slice() -> None:
    step = DegradeSlicesd("image", InRegions([GaussianNoise((0.1, 0.1)), GaussianNoise((0.1, 0.1))]))
    noise = step.set_random_state(0)({"image": MetaTensor(torch.zeros(1, 48, 48, 2))})["image"].numpy()[0]
    assert noise.std() > 0.02
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.2


def test_low_dose_knows_the_size_of_a_pixel() -> None:
    water = torch.full((1, 48, 48), -1000.0)
    water[:, 8:40, 8:40] = 0
    step = LowDoseCtd("image", dose=0.25)
    for spacing in (0.7, 5.0):
        image = MetaTensor(water, affine=torch.diag(torch.tensor([spacing, spacing, 1.0, 1.0])))
        degraded = step.set_random_state(0)({"image": image})["image"]
        model = LowDoseCt(spacing, dose=(0.25, 0.25))
        seed = int(np.random.RandomState(0).randint(2**31))
        params = model.draw((1, 1, 48, 48), torch.Generator().manual_seed(seed))
        np.testing.assert_allclose(degraded.numpy(), model.apply(water[None], params)[0].numpy(), atol=1e-3)
        assert float((degraded - water)[:, 16:32, 16:32].std()) > 1
    with pytest.raises(ValueError, match="square pixels"):
        step({"image": MetaTensor(water, affine=torch.diag(torch.tensor([1.0, 2.0, 1.0, 1.0])))})
    with pytest.raises(ValueError, match="dose must be"):
        LowDoseCtd("image", dose=1.5)


@pytest.mark.parametrize("profile", ["slab", "sinc"])
def test_thick_slices_have_their_place_and_thin_ones_come_back_on_theirs(profile: str) -> None:
    affine = oblique((2, 2, 4))
    volume = tensor(head(), affine)
    step = ThickSlicesd("image", factor=4, profile=profile)
    data = step({"image": volume})
    assert data["image"].shape == (1, 40, 44, 5)
    moved = data["image"].affine.numpy()
    np.testing.assert_allclose(moved @ [1, 2, -0.5, 1], affine @ [1, 2, -0.5, 1], atol=1e-9)
    np.testing.assert_allclose(moved @ [1, 2, 4.5, 1], affine @ [1, 2, 19.5, 1], atol=1e-9)
    expected = SliceProfile(5, 20, profile).measure(np.moveaxis(head(), 2, 0))
    np.testing.assert_allclose(data["image"][0].numpy(), np.moveaxis(expected, 0, 2), rtol=1e-5, atol=1e-3)
    back = step.inverse(data)["image"]
    assert back.shape == volume.shape
    np.testing.assert_array_equal(back.affine.numpy(), affine)
    again = step({"image": back})["image"]
    np.testing.assert_allclose(again.numpy(), data["image"].numpy(), atol=0.05)


def test_stacks_too_short_and_unknown_profiles_are_refused() -> None:
    with pytest.raises(ValueError, match="20 slices leave fewer than 2"):
        ThickSlicesd("image", factor=16)({"image": tensor(head(), np.eye(4))})
    with pytest.raises(ValueError, match="above 1"):
        ThickSlicesd("image", factor=1)
    with pytest.raises(ValueError, match="one of"):
        ThickSlicesd("image", profile="box")


def test_the_chain_of_the_config_is_undone_exactly_in_geometry() -> None:
    parser = ConfigParser()
    parser.read_config(ROOT / "configs" / "preprocessing.yaml")
    parser["voxel_mm"], parser["shrink"] = [1.5, 1.0, 1.8], 2
    prepared, restored = (parser.get_parsed_content(name) for name in ("prepared", "restored"))
    loaded = LoadImaged("image", ensure_channel_first=True)({"image": str(mr_volume())})
    original = loaded["image"].clone()
    data = prepared(loaded)
    np.testing.assert_allclose(data["image"].pixdim.numpy(), [1.5, 1.0, 1.8], atol=1e-5)
    assert data["image"].shape != original.shape
    data["pred"] = data["image"].clone()
    back = restored(data)["pred"]
    assert back.shape == original.shape
    np.testing.assert_allclose(back.affine.numpy(), original.affine.numpy(), atol=1e-9)
    assert np.corrcoef(back.numpy().ravel(), original.numpy().ravel())[0, 1] > 0.95, (
        "two interpolations smooth it a little"
    )
    assert float(back.max()) == pytest.approx(float(original.max()), rel=0.2)
    for name in ("low_resolution", "thick_slices", "low_dose"):
        assert parser.get_parsed_content(f"simulated::{name}").keys == ("image",)
