"""Projection against scikit-image and analysis; low-dose CT against Yu's formula and real quarter-dose noise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage.transform import iradon
from skimage.transform import radon as skimage_radon

from monai_sasm.degradations.low_dose_ct import KERNELS, MU_WATER, LowDoseCt, Scanner
from monai_sasm.degradations.projection import (
    FrequencyResponse,
    back_project,
    filter_sinogram,
    noise_gain,
    radon,
    view_angles,
)
from tests.data import DATA as SHARED

DATA = SHARED / "ct_ldct_pairs"
SIZE, SPACING = 64, 4.0  # a field of view of 256 mm
UPSAMPLING = 4  # of the detector before nearest-neighbour back projection: at most 1/8 element off


def filtered_back_projection(
    sinogram: torch.Tensor, spacing: float, kernel: FrequencyResponse | None = None
) -> torch.Tensor:
    """Image (B, 1, SIZE, SIZE) per mm from line integrals (B, V, D); ``spacing`` of pixels and detector, mm."""
    fine = filter_sinogram(sinogram, spacing, kernel, UPSAMPLING)
    return back_project(fine, view_angles(sinogram.shape[1]), SIZE, SIZE, UPSAMPLING)


def test_radon_equals_scikit_image() -> None:
    image = _phantom()
    ours = radon(image, view_angles(45), SIZE)[0].T.numpy()
    theirs = skimage_radon(image[0, 0].numpy(), theta=np.arange(0, 180, 4.0), circle=True)
    assert np.abs(ours - theirs).max() < 1e-3 * theirs.max()


def test_filtered_back_projection_recovers_the_phantom_as_well_as_scikit_image() -> None:
    image = _phantom()
    sinogram = radon(image, view_angles(180), SIZE)
    ours = filtered_back_projection(sinogram, 1.0)[0, 0].numpy()
    theirs = iradon(sinogram[0].T.double().numpy(), theta=np.arange(180.0), circle=True)
    inside = _radius() < 28
    truth = image[0, 0].numpy()[inside]
    assert np.sqrt(np.mean((ours[inside] - truth) ** 2)) <= np.sqrt(np.mean((theirs[inside] - truth) ** 2))
    assert np.mean(ours[inside]) == pytest.approx(truth.mean(), rel=0.01)
    flat = _radius() < 6
    assert np.mean(ours[flat]) == pytest.approx(np.mean(theirs[flat]), rel=0.01)


def test_projection_is_linear_and_back_projection_nearly_its_adjoint() -> None:
    angles = view_angles(60)
    x, y = _phantom(), _phantom().flip(-1).square()
    assert torch.allclose(radon(2 * x + y, angles, 96), 2 * radon(x, angles, 96) + radon(y, angles, 96), atol=1e-3)
    sinogram = radon(y, angles, 96)
    forward = (radon(x, angles, 96) * sinogram).sum() * math.pi / 60
    backward = (x * back_project(sinogram, angles, SIZE, SIZE)).sum()
    assert float(forward) == pytest.approx(float(backward), rel=0.01)


def test_variance_of_reconstructed_white_noise_is_that_of_theory() -> None:
    views, kernel = 180, KERNELS["soft"]
    noise = torch.randn(8, views, 96, generator=_generator())
    image = filtered_back_projection(noise, 0.7, kernel)
    expected = math.pi / math.sqrt(views) * math.sqrt(noise_gain(96, 0.7, kernel))
    assert float(image[..., 8:-8, 8:-8].std()) == pytest.approx(expected, rel=0.03)


def test_full_dose_is_the_exact_identity() -> None:
    model = LowDoseCt(SPACING, dose=(1.0, 1.0))
    params = model.draw((2, 1, SIZE, SIZE), _generator())
    water = _water().expand(2, -1, -1, -1)
    assert torch.equal(model.apply(water, params), water)
    assert float(params.sigma.max()) == float(params.mask.max()) == 0


@pytest.mark.parametrize("noise_free", [False, True])
def test_same_parameters_give_the_same_image(noise_free: bool) -> None:
    model = LowDoseCt(SPACING, dose=(0.1, 0.5), views=90, exposure=(0.5, 2.0), noise_free=noise_free)
    water = _water().expand(3, -1, -1, -1)
    params = model.draw(water.shape, _generator(1))
    once = model.apply(water, params)
    assert torch.equal(once, model.apply(water, params))
    assert not torch.equal(once, model.apply(water, model.draw(water.shape, _generator(2))))
    assert once.shape == water.shape
    assert once.dtype == water.dtype
    assert float(once.min()) >= -1024
    assert len(set(params.dose.tolist())) == len(set(params.exposure.tolist())) == 3


@pytest.mark.parametrize("kernel", ["soft", "sharp"])
def test_predicted_sigma_is_what_comes_out(kernel: str) -> None:
    model = LowDoseCt(SPACING / 2, dose=(0.25, 0.25), kernel=kernel, views=180)
    water = _water().expand(24, -1, -1, -1)
    params = model.draw(water.shape, _generator())
    sigma = model.sigma(water, params)[0, 0]
    measured = (model.apply(water, params) - water).std(0)[0]
    for region in (_radius() < 8, (_radius() > 14) & (_radius() < 18)):
        region = torch.from_numpy(region)
        assert float(measured[region].mean()) == pytest.approx(float(sigma[region].mean()), rel=0.05)
    assert float(sigma[32, 32]) > 1.2 * float(sigma[32, 12])  # the centre sees the longest paths


def test_variance_in_the_sinogram_follows_yu() -> None:
    scanner = Scanner(photons=1e5, electronic=20.0, exposure_control=0.0, bowtie=0.0, max_std=100.0)
    model = LowDoseCt(1.0, dose=(0.25, 0.25), scanner=scanner)
    water = torch.zeros(1, 1, SIZE, SIZE)
    params = model.draw(water.shape, _generator())
    variance, _ = model._coarse_variance(water, params)
    centre = variance.shape[-1] // 2
    e_p, ray = math.exp(64 * MU_WATER), 0.5  # the first view looks along 64 mm of water; rays are half a pixel wide
    n, ne = 1e5 * ray, 20.0 * ray
    expected = 3 * e_p / n * (1 + 5 * ne * e_p / n)
    assert float(variance[0, 0, centre]) == pytest.approx(expected, rel=0.01)


def test_noise_grows_as_the_dose_falls_and_does_not_depend_on_the_sampling() -> None:
    water = _water()
    sigmas = []
    for dose in (0.9, 0.5, 0.25, 0.1, 0.01):
        model = LowDoseCt(SPACING, dose=(dose, dose))
        sigmas.append(float(model.sigma(water, model.draw(water.shape, _generator()))[0, 0, 32, 32]))
    assert sigmas == sorted(sigmas)
    assert sigmas[3] / sigmas[1] == pytest.approx(3.0, rel=0.05)  # sqrt(9 / 1)
    fewer = LowDoseCt(SPACING, dose=(0.25, 0.25), views=360)
    centre = fewer.sigma(water, fewer.draw(water.shape, _generator()))[0, 0, 32, 32]
    assert float(centre) == pytest.approx(sigmas[2], rel=0.02)


def test_starved_rays_stay_finite() -> None:
    metal = torch.full((1, 1, SIZE, SIZE), 30000.0)
    for noise_free in (False, True):
        model = LowDoseCt(SPACING, dose=(0.01, 0.01), noise_free=noise_free)
        params = model.draw(metal.shape, _generator())
        assert torch.isfinite(model.apply(metal, params)).all()
        assert torch.isfinite(model.sigma(metal, params)).all()


def test_counted_photons_agree_with_added_noise() -> None:
    water = _water().expand(24, -1, -1, -1)
    added, counted = (LowDoseCt(SPACING / 2, dose=(0.25, 0.25), views=180, noise_free=free) for free in (False, True))
    params = added.draw(water.shape, _generator())
    stds = [float((m.apply(water, params) - water).std(0)[0, 26:38, 26:38].mean()) for m in (added, counted)]
    assert stds[1] / stds[0] == pytest.approx(math.sqrt(4 / 3), rel=0.06)  # all the noise over the added part
    predicted = float(counted.sigma(water, params)[0, 0, 26:38, 26:38].mean())
    assert stds[1] == pytest.approx(predicted, rel=0.06)


def test_sigma_before_the_image_is_known_and_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="depends on the image"):
        _ = LowDoseCt(SPACING, dose=(0.5, 0.5)).draw((1, 1, 8, 8), _generator()).sigma
    with pytest.raises(ValueError, match="one channel"):
        LowDoseCt(SPACING).draw((1, 3, 8, 8), _generator())
    with pytest.raises(ValueError, match=r"\(0, 1\]"):
        LowDoseCt(SPACING, dose=(0.0, 0.5))
    with pytest.raises(ValueError, match="kernel"):
        LowDoseCt(SPACING, kernel="B99")


@pytest.mark.skipif(not DATA.is_dir(), reason=f"real CT pairs not found at {DATA}; set SASM_DATA")
@pytest.mark.parametrize(("name", "kernel"), [("L143_B30f_i146", "soft"), ("L192_D45f_i025", "sharp")])
def test_quarter_dose_noise_is_that_of_real_pairs(name: str, kernel: str) -> None:
    nibabel = pytest.importorskip("nibabel")
    folder = DATA / f"{name[:4]}_nifti"
    full, quarter = (nibabel.load(folder / dose / f"{name}.nii.gz") for dose in ("full", "quarter"))
    image = full.get_fdata()[..., 0].T
    model = LowDoseCt(float(full.header.get_zooms()[0]), dose=(0.25, 0.25), kernel=kernel)
    clean = torch.tensor(image, dtype=torch.float32)[None, None]
    sigma = model.sigma(clean, model.draw(clean.shape, _generator()))[0, 0].numpy()
    tissue = np.abs(image - 50) < 60
    real = np.std((quarter.get_fdata()[..., 0].T - image)[tissue])
    assert math.sqrt(np.mean(sigma[tissue] ** 2)) == pytest.approx(real, rel=0.15)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _radius() -> np.ndarray:
    rows, columns = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    return np.hypot(rows, columns)


def _phantom() -> torch.Tensor:
    """Smooth-edged off-centre discs, inside the reconstruction circle."""
    rows, columns = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    image = 1 / (1 + np.exp(_radius() - 22)) + 0.5 / (1 + np.exp(np.hypot(rows - 8, columns + 10) - 6))
    image[_radius() >= SIZE // 2 - 1] = 0
    return torch.tensor(image, dtype=torch.float32)[None, None]


def _water() -> torch.Tensor:
    """A water disc of 22 pixels radius in air, HU."""
    return torch.tensor(np.where(_radius() < 22, 0.0, -1000.0), dtype=torch.float32)[None, None]
