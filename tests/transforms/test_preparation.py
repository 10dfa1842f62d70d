"""Normalisation and N4: tissue becomes even, and the inverse gives the image back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd

from monai_sasm.functional.intensity import scaling_for
from monai_sasm.io.volume import Volume
from monai_sasm.transforms.bias_field import CorrectBiasFieldd
from monai_sasm.transforms.normalisation import ToWorkingScaleInvertibled
from monai_sasm.types import Modality
from tests.transforms.phantoms import head, oblique, tensor


def field_of(shape: tuple[int, ...]) -> np.ndarray:
    """A smooth coil sensitivity from 1.6 to 0.6 along the first axis."""
    place = np.linspace(0, 1, shape[0], dtype=np.float32).reshape(-1, *[1] * (len(shape) - 1))
    return np.exp(0.5 * np.cos(np.pi * place)) * np.ones(shape, np.float32)


def tissues() -> np.ndarray:
    """Three tissues of one level each, with a little noise, on an empty background."""
    smooth = head()
    levels = np.select([smooth > 620, smooth > 350, smooth > 100], [700.0, 500.0, 200.0], 0.0)
    noise = np.random.default_rng(0).normal(0, 10, levels.shape)
    return np.asarray(np.where(levels > 0, levels + noise, 0), np.float32)


@pytest.mark.parametrize(("modality", "offset"), [("MR", 0.0), ("CT", -1000.0), ("PHOTO", 0.0)])
def test_intensities_are_normalised_and_come_back(modality: str, offset: float) -> None:
    array = head() / (700 if modality == "PHOTO" else 1) + offset
    image = tensor(array, oblique((2, 2, 4)))
    step = ToWorkingScaleInvertibled("image", modality)
    forward = step({"image": image})
    expected = scaling_for(Volume(array[None], Modality(modality))).forward(array)
    np.testing.assert_allclose(forward["image"][0].numpy(), expected, atol=1e-6)
    assert not image.applied_operations, "the input is left alone"
    back = step.inverse(forward)["image"]
    np.testing.assert_allclose(back[0].numpy(), array, atol=1e-3)
    assert back.affine.equal(image.affine)
    assert not back.applied_operations


def test_what_a_network_made_is_scaled_back_by_the_input() -> None:
    image = tensor(head(), oblique((2, 2, 4)))
    step = Compose([ToWorkingScaleInvertibled("image", "MR")])
    data = step({"image": image})
    data["pred"] = MetaTensor(2 * data["image"].as_tensor())
    restored = Invertd("pred", step, orig_keys="image", nearest_interp=False)(data)["pred"]
    np.testing.assert_allclose(restored[0].numpy(), 2 * head(), rtol=1e-5, atol=1e-3)


def test_channels_are_normalised_each_by_itself_and_come_back() -> None:
    image = MetaTensor(torch.stack([torch.as_tensor(head()), torch.as_tensor(head()) / 32]), oblique((2, 2, 4)))
    step = Compose([ToWorkingScaleInvertibled("image", "MR")])
    data = step({"image": image})
    np.testing.assert_allclose(data["image"][0].numpy(), data["image"][1].numpy(), rtol=1e-6)
    data["pred"] = MetaTensor(data["image"].as_tensor())
    restored = Invertd("pred", step, orig_keys="image", nearest_interp=False)(data)["pred"]
    np.testing.assert_allclose(restored.numpy(), image.numpy(), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("masked", [False, True])
def test_n4_evens_the_tissue(masked: bool) -> None:
    clean = tissues()
    biased = clean * field_of(clean.shape)
    tissue = np.abs(clean - 500) < 60
    mask = tensor((clean > 0).astype(np.float32), oblique((2, 2, 4)))
    step = CorrectBiasFieldd("image", mask_key="mask" if masked else None, shrink=2)
    data = step({"image": tensor(biased, oblique((2, 2, 4))), "mask": mask})
    corrected = data["image"][0].numpy()

    def unevenness(image: np.ndarray) -> float:
        return float(image[tissue].std() / image[tissue].mean())

    assert unevenness(biased) > 0.15
    assert unevenness(corrected) < 1.2 * unevenness(clean)
    assert corrected[tissue].mean() == pytest.approx(biased[tissue].mean(), rel=0.1)
    back = step.inverse(data)["image"]
    np.testing.assert_allclose(back[0].numpy(), biased, rtol=1e-5, atol=1e-3)
    assert back.affine.equal(data["mask"].affine)


def test_n4_takes_slices_channels_and_empty_images() -> None:
    clean = tissues()[..., 10]
    image = MetaTensor(torch.from_numpy(np.stack([clean * field_of(clean.shape), np.zeros_like(clean)])))
    step = CorrectBiasFieldd("image", shrink=2)
    data = step({"image": image})
    assert data["image"].shape == (2, 40, 44)
    assert not data["image"][1].any()
    np.testing.assert_allclose(step.inverse(data)["image"].numpy(), image.numpy(), rtol=1e-5, atol=1e-3)


def test_n4_refuses_what_it_cannot_fit() -> None:
    image = tensor(head(), np.eye(4))
    with pytest.raises(ValueError, match="whole numbers from 1 on"):
        CorrectBiasFieldd("image", shrink=0)
    with pytest.raises(ValueError, match="the mask must have tissue"):
        CorrectBiasFieldd("image", "mask")({"image": image, "mask": torch.zeros(1, 40, 44, 20)})
    with pytest.raises(ValueError, match="must be finite"):
        CorrectBiasFieldd("image")({"image": image * float("nan")})
