"""The uncertainty of an expert that draws samples: saved beside the image, on its grid, in its unit."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image
from pydicom.data import get_testdata_file

from monai_sasm import bundles
from monai_sasm.bundles import Bundle
from monai_sasm.cli.main import main
from monai_sasm.errors import RefusedError
from monai_sasm.functional.intensity import scaling_for
from monai_sasm.functional.noise import NoiseEstimator
from monai_sasm.functional.tiling import tiled, tiles
from monai_sasm.io.formats import open_images
from monai_sasm.io.volume import Volume
from monai_sasm.restoration.maps import write_maps
from monai_sasm.restoration.on_demand import OnDemand
from monai_sasm.restoration.options import Options
from monai_sasm.restoration.restorer import Restorer
from monai_sasm.restoration.told_noise import noise_maps, told_noise, told_slices
from monai_sasm.types import Modality

EXPERT = "superres_mri_sit"


class Unsure(torch.nn.Module):
    """As unsure as the image is bright, and as the noise map is loud."""

    def forward(self, image: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return image + 0.1

    def uncertainty(self, image: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return image.mean(1, keepdim=True) / 10 + sigma


def restorer(modality: Modality, network: torch.nn.Module | None = None) -> Restorer:
    """An expert ``one`` and nothing else."""
    expert = Bundle(
        "one", Path("nowhere"), "expert", modality, "noise", True, "1", "0" * 64, network or Unsure(),
        {"sasm": {}},
    )  # fmt: skip
    return Restorer.of({"one": expert})


@pytest.fixture
def volume() -> Volume:
    """MR magnitudes, slices along the second axis."""
    array = np.random.default_rng(0).uniform(0, 500, (1, 12, 3, 20)).astype(np.float32)
    return Volume(array, Modality.MR, affine=np.diag([1.0, 2.0, 3.0, 1.0]), slice_axis=1)


def as_unsure(volume: Volume, sigma: float) -> np.ndarray:
    """What :class:`Unsure` says of the slices when told a noise, in the unit of the volume."""
    told, scaling = told_noise(volume, sigma, NoiseEstimator()), scaling_for(volume)
    assert told is not None
    working = torch.from_numpy(np.stack([scaling.forward(np.array(one)) for one in volume.each_slice()]))
    return scaling.scale * (working / 10 + told.map(working))[:, 0].numpy()


def test_it_is_in_the_unit_of_the_image(volume: Volume) -> None:
    sigma = 25.0  # of the image
    result = restorer(Modality.MR)(volume, Options(expert="one", keep_maps=True, sigma=sigma))
    assert result.uncertainty is not None
    np.testing.assert_allclose(result.uncertainty, as_unsure(volume, sigma), rtol=1e-5)
    half = restorer(Modality.MR)(volume, Options(expert="one", keep_maps=True, sigma=sigma, strength=0.5))
    np.testing.assert_allclose(half.uncertainty, result.uncertainty / 2, rtol=1e-5)


def test_it_is_worked_out_only_when_asked_for_and_possible(volume: Volume) -> None:
    assert restorer(Modality.MR)(volume, Options(expert="one")).uncertainty is None

    class Sure(torch.nn.Module):
        def forward(self, image: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            return image

    assert restorer(Modality.MR, Sure())(volume, Options(expert="one", keep_maps=True)).uncertainty is None


def test_in_place_it_is_that_of_the_input(volume: Volume) -> None:
    options = Options(expert="one", keep_maps=True, sigma=0.01, passes=2)
    expected = as_unsure(volume, 0.01)
    np.testing.assert_allclose(restorer(Modality.MR)(volume, options, in_place=True).uncertainty, expected, rtol=1e-5)


def test_tiles_join() -> None:
    image = torch.rand(1, 1, 100, 70, generator=torch.Generator().manual_seed(0))
    spread = tiled(Unsure().uncertainty, image, torch.zeros_like(image), tiling=partial(tiles, tile=32, halo=32))
    torch.testing.assert_close(spread, image / 10)


@pytest.mark.parametrize("sigma", [None, 1.5])
def test_time_points_are_restored_each_as_it_would_be_alone(volume: Volume, sigma: float | None) -> None:
    """One white for all, and one told noise over it, would make the darker of them look like background."""
    both = replace(volume, array=np.concatenate([volume.array, volume.array[:, ::-1] / 50]))
    options = Options(expert="one", keep_maps=True, sigma=sigma)
    whole, alone = (restorer(Modality.MR)(one, options) for one in (both, both.stacks()[0]))
    dark = restorer(Modality.MR)(both.stacks()[1], options)
    assert np.abs(dark.volume.array - both.array[1:]).max() > 0.5, "a tenth of the white of 10"
    np.testing.assert_array_equal(whole.volume.array, np.concatenate([alone.volume.array, dark.volume.array]))
    for name in ("uncertainty", "change"):
        parts = [getattr(one, name) for one in (alone, dark)]
        np.testing.assert_array_equal(getattr(whole, name), np.concatenate(parts))
    one = OnDemand(both, restorer(Modality.MR).plan(Modality.MR, options))
    for index in reversed(range(len(one))):
        one.restore(index)
    np.testing.assert_array_equal(one.restored(1.0).volume.array, whole.volume.array)
    np.testing.assert_array_equal(np.stack([one.uncertainty(i) for i in range(len(one))]), whole.uncertainty)


def test_a_time_point_too_dark_for_the_told_noise_is_told_what_there_can_be(volume: Volume) -> None:
    """A dark or empty time point is no reason to refuse the others."""
    both = replace(volume, array=np.concatenate([volume.array, volume.array / 50, 0 * volume.array]))
    told = told_slices(both, 25.0, NoiseEstimator())
    assert told is not None
    assert [one.sigma for one in told] == pytest.approx([25 / scaling_for(volume).scale] * 3 + [0.5] * 6)
    with pytest.raises(RefusedError, match="a noise of 400 would leave nothing"):
        told_slices(both, 400.0, NoiseEstimator())
    maps = noise_maps(told[2:4], torch.ones(2, 1, 16, 16))
    torch.testing.assert_close(maps, torch.cat([one.map(torch.ones(1, 1, 16, 16)) for one in told[2:4]]))
    assert float(maps[1].mean()) > 5 * float(maps[0].mean())


def test_photos_show_it_ten_times_as_large(tmp_path: Path) -> None:
    array = np.full((1, 8, 9), 0.25, np.float32)
    photo = Volume(array, Modality.PHOTO)
    result = restorer(Modality.PHOTO)(photo, Options(expert="one", keep_maps=True, sigma=0.01))
    written = write_maps(result, tmp_path / "photo.png")
    (shown,) = [path for path in written if path.name == "photo_uncertainty.png"]
    assert np.unique(np.asarray(Image.open(shown))).tolist() == [round(255 * 10 * (0.025 + 0.01))]


def _own(volume: Volume) -> np.ndarray:
    """What the shipped expert itself says, in the unit and order of the volume."""
    scaling = scaling_for(volume)
    expert = bundles.load(EXPERT)
    spreads = [expert.uncertainty(torch.from_numpy(scaling.forward(part[None]))) for part in volume.as_slices()]
    return volume.from_slices(scaling.scale * torch.cat(spreads).numpy()).array[0]


def _restore(source: Path, output: Path) -> None:
    arguments = ["--expert", EXPERT, "--modality", "MR", "--save-maps", "--device", "cpu", "-q"]
    with pytest.raises(SystemExit) as ended:
        main(["restore", str(source), "-o", str(output), *arguments])
    assert not ended.value.code


def test_nifti_beside_nifti(tmp_path: Path) -> None:
    affine = np.array([[0.0, -1.1, 0.0, 5.0], [0.9, 0.0, 0.0, -3.0], [0.0, 0.0, 2.5, 7.0], [0.0, 0.0, 0.0, 1.0]])
    array = np.random.default_rng(1).uniform(0, 900, (32, 32, 2)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(array, affine), tmp_path / "brain.nii.gz")
    _restore(tmp_path / "brain.nii.gz", tmp_path / "out.nii.gz")
    saved = nibabel.load(tmp_path / "out_uncertainty.nii.gz")
    np.testing.assert_allclose(saved.affine, affine, atol=1e-5)
    np.testing.assert_allclose(
        saved.get_fdata(), _own(next(open_images(tmp_path / "brain.nii.gz", Modality.MR))), rtol=1e-4
    )
    assert float(saved.get_fdata().max()) > 1, "in the unit of the image"


def test_nifti_beside_dicom(tmp_path: Path) -> None:
    source = Path(str(get_testdata_file("MR_small.dcm", download=False)))
    _restore(source, tmp_path / "out")
    (saved,) = (tmp_path / "out").glob("*_uncertainty.nii.gz")
    (change,) = (tmp_path / "out").glob("*_change.nii.gz")
    image, other = nibabel.load(saved), nibabel.load(change)
    assert image.shape == other.shape
    np.testing.assert_array_equal(image.affine, other.affine)
    volume = next(open_images(source))
    np.testing.assert_allclose(np.sort(image.get_fdata(), None), np.sort(_own(volume), None), rtol=1e-4)
    assert list((tmp_path / "out").glob("*/*.dcm"))
