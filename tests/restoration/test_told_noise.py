"""A told noise is what a circle in uniform tissue shows, whatever the grain; networks are told what they know."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from monai_sasm.bundles import Bundle
from monai_sasm.degradations.filtered_noise import FilteredNoise
from monai_sasm.errors import BundleError, RefusedError
from monai_sasm.functional.noise import NoiseEstimator
from monai_sasm.functional.uniform_tissue import WHITE
from monai_sasm.io.volume import Volume
from monai_sasm.restoration.installed import Installed
from monai_sasm.restoration.on_demand import OnDemand
from monai_sasm.restoration.operating_range import OUTSIDE
from monai_sasm.restoration.options import Options, Thinning
from monai_sasm.restoration.restorer import Restorer
from monai_sasm.restoration.thin import thin_volume
from monai_sasm.restoration.told_noise import told_noise, told_slices
from monai_sasm.types import Modality

ESTIMATOR = NoiseEstimator()


class Told(torch.nn.Module):
    """Returns the image, and remembers the noise map."""

    def __init__(self) -> None:
        super().__init__()
        self.maps: list[torch.Tensor] = []

    def forward(self, image: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        self.maps.append(sigma.clone())
        return image[:, image.shape[1] // 2][:, None] + 0.001


def restorer(modality: Modality, degradation: str = "noise") -> tuple[Restorer, Told]:
    network = Told()
    bundle = Bundle("told", Path(), "expert", modality, degradation, True, "1", "5" * 8, network,
                    {"sasm": {"degradation": degradation, "noise_map": True}})  # fmt: skip
    return Restorer.of({"told": bundle}), network


def ct(coarse: float, sigma: float = 30.0) -> Volume:
    """Water with noise of that grain, HU; ``(1, 160, 160, 3)``."""
    drawn = gaussian_filter(np.random.default_rng(0).standard_normal((160, 160, 3)), (coarse, coarse, 0))
    array = 40 + sigma * drawn / drawn.std()
    return Volume(array[None].astype(np.float32), Modality.CT, np.diag([1, 1, 5.0, 1]), slice_axis=2)


@pytest.mark.parametrize("coarse", [0.0, 0.6, 1.0])
def test_ct_is_told_what_the_estimate_reads_of_its_own_noise(coarse: float) -> None:
    """The right noise told is the same as none told; twice of it is twice the map."""
    volume = ct(coarse)
    estimated = float(ESTIMATOR(torch.from_numpy(volume.as_slices() / 1000)).median())
    for factor in (1.0, 2.0):
        house, network = restorer(Modality.CT)
        house(volume, Options(expert="told", sigma=factor * 30.0))
        (level,) = {round(float(one), 6) for sigma in network.maps for one in sigma.unique()}
        assert level == pytest.approx(factor * estimated, rel=0.2)


def test_the_gate_is_told_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from monai_sasm.restoration import restore

    seen: list[torch.Tensor] = []
    volume, original = ct(1.0), restore.gate_blocks

    def spied(image: torch.Tensor, sigma: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        seen.append(sigma)
        return original(image, sigma, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(restore, "gate_blocks", spied)
    Restorer()(volume, Options(sigma=30.0))
    told = told_noise(volume, 30.0, ESTIMATOR)
    assert told is not None
    assert seen
    assert all(float((sigma - told.reading).abs().max()) < 1e-7 for sigma in seen)
    assert told.reading < 0.2 * told.sigma


def test_mr_has_less_noise_where_it_is_dark() -> None:
    side, sigma = 224, 60.0
    y, x = np.mgrid[:side, :side] / side - 0.5
    clean = np.where(np.hypot(x, y) < 0.3, 700.0, 0.0)[..., None]
    real, imaginary = sigma * np.random.default_rng(1).standard_normal((2, side, side, 3))
    array = np.hypot(clean + real, imaginary)[None].astype(np.float32)
    volume = Volume(array, Modality.MR, np.diag([1, 1, 5.0, 1]), slice_axis=2)
    house, network = restorer(Modality.MR)
    house(volume, Options(expert="told", sigma=sigma))
    told = network.maps[0][0, 0]
    white = sigma / float(told_noise(volume, sigma, ESTIMATOR).sigma)  # type: ignore[union-attr]
    read = ESTIMATOR(torch.from_numpy(volume.as_slices()[:1] / white))[0, 0]
    centre, corner = (slice(96, 128),) * 2, (slice(0, 32),) * 2
    assert float(told[corner].mean() / told[centre].mean()) == pytest.approx(0.655, rel=0.03)
    for place in (centre, corner):
        assert float(told[place].mean()) == pytest.approx(float(read[place].mean()), rel=0.08)


@pytest.mark.parametrize(("coarse", "share"), [(0.0, 1.0), (1.0, 0.1)])
def test_photos_are_told_white_noise_as_it_is(coarse: float, share: float) -> None:
    drawn = gaussian_filter(np.random.default_rng(0).standard_normal((3, 160, 200)), (0, coarse, coarse))
    photo = Volume((0.5 + 0.05 * drawn / drawn.std()).astype(np.float32), Modality.PHOTO)
    told = told_noise(photo, 0.05, ESTIMATOR)
    assert told is not None
    assert told.reading == pytest.approx(share * 0.05, rel=0.2)
    torch.testing.assert_close(told.map(torch.zeros(1, 3, 20, 30)), torch.full((1, 1, 20, 30), told.reading))


def test_without_tissue_it_is_taken_for_white() -> None:
    told = told_noise(Volume(np.zeros((1, 64, 64), np.float32), Modality.CT), 20.0, ESTIMATOR)
    assert told is not None
    assert (told.sigma, told.reading) == pytest.approx((0.02, WHITE * 0.02))
    assert told_slices(ct(0.0), None, ESTIMATOR) is None


def test_thinning_is_told_the_reading_too() -> None:
    volume = ct(1.0)
    magnitudes = Volume(np.abs(volume.array) + 400, Modality.MR, np.diag([1, 1, 2.0, 1]), slice_axis=2)
    house, network = restorer(Modality.MR, "low-resolution")
    thin_volume(magnitudes, house, Thinning("told", factor=2.0, sigma=30.0))
    told = told_noise(magnitudes, 30.0, ESTIMATOR)
    assert told is not None
    assert {round(float(one), 6) for sigma in network.maps for one in sigma.unique()} == {round(told.reading, 6)}
    assert told.reading < 0.2 * told.sigma  # smeared over some pixels, as interpolation does


@pytest.mark.parametrize(("factor", "told_share"), [(1.0, WHITE), (1.5, 0.36), (2.0, 0.15)])
def test_mr_is_told_what_the_estimate_reads_of_noise_that_the_reconstruction_filtered(
    factor: float, told_share: float
) -> None:
    clean = torch.full((3, 1, 160, 160), 600.0)
    model = FilteredNoise((30.0, 30.0), (factor, factor), (0.0, 0.0))
    noisy = model.apply(clean, model.draw((3, 1, 160, 160), torch.Generator().manual_seed(0)))
    volume = Volume(noisy.permute(1, 2, 3, 0).contiguous().numpy(), Modality.MR, np.diag([1, 1, 5.0, 1]), slice_axis=2)
    told = told_noise(volume, 30.0, ESTIMATOR)
    assert told is not None
    assert told.reading / told.sigma == pytest.approx(told_share, rel=0.3)


def test_texture_is_not_taken_for_coarse_noise() -> None:
    """The deviation of grass is not its noise; what the estimate reads of the photo is told, but no more than said."""
    draw = np.random.default_rng(0)
    grass = 0.1 * gaussian_filter(draw.standard_normal((3, 160, 200)), (0, 2, 2)) * 7
    photo = Volume((0.5 + grass + 0.04 * draw.standard_normal(grass.shape)).astype(np.float32), Modality.PHOTO)
    for sigma, reading in ((0.04, 0.04), (0.02, 0.02), (0.08, 0.045)):
        told = told_noise(photo, sigma, ESTIMATOR)
        assert told is not None
        assert told.reading == pytest.approx(reading, rel=0.15)


def ranged(low: float, high: float, modality: Modality = Modality.CT) -> tuple[Restorer, Told]:
    """Its expert was trained for this noise, HU or share of white."""
    network = Told()
    metadata = {"sasm": {"degradation": "noise", "range": {"noise": [low, high]}}}
    bundle = Bundle("told", Path(), "expert", modality, "noise", True, "1", "5" * 8, network, metadata)
    return Restorer.of({"told": bundle}), network


def level_of(network: Told) -> float:
    """The one reading that was told, HU."""
    (level,) = {round(1000 * float(one), 2) for sigma in network.maps for one in sigma.unique()}
    return level


@pytest.mark.parametrize(
    ("sigma", "level", "told"),
    [
        (1.0, 5.0, "told noise that reads as 0.9[0-9]* HU \\(5 to 60 HU; 5 was taken\\)"),
        (30.0, 28.0, None),
        (90.0, 60.0, "told noise that reads as 8[0-9.]* HU \\(5 to 60 HU; 60 was taken\\)"),
    ],
)
def test_what_is_told_stays_within_the_range_of_the_expert(sigma: float, level: float, told: str | None) -> None:
    """Told a hundredth of the noise, a network smoothed more than told what there is, and nothing was said."""
    house, network = ranged(5, 60)
    result = house(ct(0.0), Options(expert="told", sigma=sigma))
    assert result.summary["noise"] == pytest.approx(0.93 * 30, rel=0.05)
    assert level_of(network) == pytest.approx(level, rel=0.05)
    notes = [note for note in result.volume.notes if note.startswith(OUTSIDE)]
    assert len(notes) == (told is not None)
    if told is not None:
        assert re.search(told, notes[0])
    seen = OnDemand(ct(0.0), replace(result.plan, options=replace(result.plan.options, keep_maps=True)))
    seen.restore(1)
    assert [note for note in seen.notes(1) if note.startswith(OUTSIDE)] == notes


@pytest.mark.parametrize(("limits", "sigma"), [((60, 90), 30.0), ((2, 10), 30.0)])
def test_an_image_beyond_the_range_is_told_what_it_has(limits: tuple[float, float], sigma: float) -> None:
    """As it is where nothing is told."""
    house, network = ranged(*limits)
    house(ct(0.0), Options(expert="told", sigma=sigma))
    assert level_of(network) == pytest.approx(0.93 * 30, rel=0.05)


@pytest.mark.parametrize(("sigma", "told"), [(5.0, "4.68"), (15.0, None), (60.0, None), (150.0, "14[0-9]")])
def test_noise_far_from_what_the_image_shows_is_noted(sigma: float, told: str | None) -> None:
    house, _ = ranged(2, 300)
    notes = house(ct(0.0), Options(expert="told", sigma=sigma)).volume.notes
    assert len(notes) == (told is not None)
    if told is not None:
        assert re.match(f"the noise that was told reads as {told} HU, that of the image as 2[0-9.]+ HU; to", notes[0])


def test_an_expert_that_takes_no_noise_map_is_told_none(tmp_path: Path) -> None:
    house = Restorer()
    magnitudes = Volume(np.abs(ct(0.0).array) + 400, Modality.MR, np.diag([1, 1, 2.0, 1]), slice_axis=2)
    for options in (Options(expert="superres_mri_unet", sigma=3.0), Thinning("superres_mri_unet", sigma=3.0)):
        with pytest.raises(BundleError, match="superres_mri_unet goes by the image alone and cannot be told its noise"):
            house.check(options)
        with pytest.raises(BundleError, match="leave sigma out"):
            Installed.find().check(options)
    with pytest.raises(BundleError, match="leave sigma out"):
        house(magnitudes, Options(expert="superres_mri_unet", sigma=3.0))


@pytest.mark.parametrize(("modality", "sigma"), [(Modality.PHOTO, 8.0), (Modality.CT, 5000.0)])
def test_more_noise_than_there_can_be_is_refused(modality: Modality, sigma: float) -> None:
    """A photo came back black: 8 is meant in levels of 255, and taken as eight times white."""
    array = np.random.default_rng(0).uniform(0.2, 0.8, (3 if modality is Modality.PHOTO else 1, 64, 64))
    house, _ = restorer(modality)
    with pytest.raises(RefusedError, match=rf"a noise of {sigma:g} would leave nothing of an image whose white is"):
        house(Volume(array.astype(np.float32), modality), Options(expert="told", sigma=sigma))
