"""Metrics against scikit-image, SciPy and closed forms; self-test rows of the protocols against published values."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from monai_sasm.evaluation import metrics
from tests.data import DATA

skimage_metrics = pytest.importorskip("skimage.metrics")
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="measured data absent: set SASM_DATA to the data folder")


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    clean = gaussian_filter(random.random((3, 40, 52)), (0, 2, 2))
    return clean, clean + 0.05 * random.standard_normal(clean.shape)


@pytest.mark.parametrize("data_range", [1.0, 400.0])
def test_psnr_and_ssim_equal_scikit_image(pair: tuple[np.ndarray, np.ndarray], data_range: float) -> None:
    clean, noisy = (image * data_range for image in pair)
    expected = skimage_metrics.peak_signal_noise_ratio(clean, noisy, data_range=data_range)
    assert metrics.psnr(clean, noisy, data_range) == pytest.approx(expected, abs=1e-6)
    expected = skimage_metrics.structural_similarity(
        clean,
        noisy,
        data_range=data_range,
        channel_axis=0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert metrics.ssim(clean, noisy, data_range) == pytest.approx(expected, abs=1e-6)


def test_ssim_of_chosen_pixels_is_the_mean_of_their_windows(pair: tuple[np.ndarray, np.ndarray]) -> None:
    clean, noisy = pair
    where = np.zeros(clean.shape[1:], bool)
    where[8:20, 10:40], where[:, :2] = True, True  # the second lies in the border, which does not count
    _, windows = skimage_metrics.structural_similarity(
        clean, noisy, data_range=1.0, channel_axis=0, gaussian_weights=True, use_sample_covariance=False, full=True
    )
    assert metrics.ssim(clean, noisy, 1.0, where) == pytest.approx(windows[:, 8:20, 10:40].mean(), abs=1e-6)
    assert np.isnan(metrics.ssim(clean, noisy, 1.0, where & (np.arange(where.shape[1]) < 2)))


def test_equal_images_are_perfect(pair: tuple[np.ndarray, np.ndarray]) -> None:
    clean, _ = pair
    assert metrics.psnr(clean, clean, 1.0) == float("inf")
    assert metrics.ssim(clean, clean, 1.0) == pytest.approx(1.0)
    assert metrics.gradient_ratio(clean, clean) == pytest.approx(1.0)
    assert metrics.delta_e(clean, clean) == 0


def test_rmse_and_bias_have_the_images_unit() -> None:
    reference = np.zeros((8, 8))
    image = np.full((8, 8), 3.0)
    image[:4] = -5.0
    assert metrics.rmse(reference, image) == pytest.approx(np.sqrt(17))
    assert metrics.bias(reference, image) == pytest.approx(-1.0)
    assert metrics.bias(reference, image, image > 0) == pytest.approx(3.0)


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="same shape"):
        metrics.psnr(np.zeros((4, 4)), np.zeros((4, 5)), 1.0)


def test_luma_is_matlabs(pair: tuple[np.ndarray, np.ndarray]) -> None:
    from skimage.color import rgb2ycbcr

    clean, _ = pair
    assert metrics.luma(clean) * 255 == pytest.approx(rgb2ycbcr(clean.transpose(1, 2, 0))[..., 0], abs=1e-6)


def test_colour_difference_equals_scikit_image(pair: tuple[np.ndarray, np.ndarray]) -> None:
    from skimage.color import deltaE_cie76, rgb2lab

    clean, noisy = (np.clip(image, 0, 1) for image in pair)
    expected = deltaE_cie76(rgb2lab(clean.transpose(1, 2, 0)), rgb2lab(noisy.transpose(1, 2, 0))).mean()
    assert metrics.delta_e(clean, noisy) == pytest.approx(expected, rel=1e-3)


def test_published_colour_pair() -> None:
    """Lab of sRGB primaries (Bruce Lindbloom): red (53.23, 80.11, 67.22), blue (32.30, 79.20, -107.86)."""
    red, blue = (np.zeros((3, 4, 4)) for _ in range(2))
    red[0], blue[2] = 1, 1
    expected = np.linalg.norm(np.array([53.23, 80.11, 67.22]) - np.array([32.30, 79.20, -107.86]))
    assert metrics.delta_e(red, blue) == pytest.approx(expected, abs=0.1)


def test_colour_shift_sees_a_cast_and_not_noise(pair: tuple[np.ndarray, np.ndarray]) -> None:
    flat = np.full((3, 96, 96), 0.5)
    noise = flat + 0.1 * np.random.default_rng(0).standard_normal(flat.shape)
    cast = flat + np.array([0.02, 0.0, -0.02])[:, None, None]
    assert metrics.delta_e(flat, noise) > 10
    assert metrics.colour_shift(flat, noise) < 0.9
    assert metrics.colour_shift(flat, cast) == pytest.approx(metrics.delta_e(flat, cast)) == pytest.approx(3.7, abs=0.2)


def test_gradient_ratio_of_a_known_blur() -> None:
    """A blur of sigma s leaves exp(-(k s)^2 / 2) of a wave of wavenumber k."""
    wave = np.broadcast_to(0.5 + 0.2 * np.sin(2 * np.pi * np.arange(240) / 12), (240, 240))
    blurred = gaussian_filter(wave, (0, 1.5), mode="wrap")
    assert metrics.gradient_ratio(wave, blurred) == pytest.approx(np.exp(-((2 * np.pi / 12 * 1.5) ** 2) / 2), rel=0.01)


def test_as_8_bit_rounds_and_clips() -> None:
    assert metrics.as_8_bit(np.array([-0.2, 0.5001, 1.4])) == pytest.approx([0, 128 / 255, 1])


def test_white_noise_has_a_flat_spectrum_whose_integral_is_the_variance() -> None:
    spacing, sigma = 0.7, 12.0
    patches = sigma * np.random.default_rng(0).standard_normal((400, 32, 32))
    frequency, power = metrics.noise_power_spectrum(patches, spacing, bins=8)
    assert power[1:] == pytest.approx(np.full(7, sigma**2 * spacing**2), rel=0.05)
    assert frequency[-1] < 0.5 / spacing


def test_smoothing_lowers_high_frequencies_of_the_spectrum() -> None:
    noise = np.random.default_rng(0).standard_normal((40, 32, 32))
    smooth = gaussian_filter(noise, (0, 1, 1))
    ratio = metrics.noise_power_spectrum(smooth, 1.0, 8)[1] / metrics.noise_power_spectrum(noise, 1.0, 8)[1]
    assert ratio[-1] < 0.01 < 0.5 < ratio[0]


@pytest.mark.parametrize("sigma", [0.8, 1.5, 2.5])
@pytest.mark.parametrize("angle", [0.0, 0.6])
def test_edge_width_of_a_blurred_step(sigma: float, angle: float) -> None:
    from scipy.special import erf

    y, x = np.mgrid[:96, :96] - 48.0
    step = erf((x * np.cos(angle) + y * np.sin(angle)) / (np.sqrt(2) * sigma))
    noisy = 100 * step + np.random.default_rng(0).standard_normal(step.shape)
    assert metrics.edge_width(noisy, 100 * step, spacing=0.5) == pytest.approx(0.5 * 2.5631 * sigma, rel=0.12)


def test_edge_width_without_edges_is_nan() -> None:
    assert np.isnan(metrics.edge_width(np.zeros((64, 64))))


def test_calibration_error() -> None:
    assert metrics.expected_calibration_error([0.75] * 4, [1, 1, 1, 0]) == pytest.approx(0)
    assert metrics.expected_calibration_error([0.95] * 3 + [0.55], [1, 1, 1, 0]) == pytest.approx(
        0.75 * 0.05 + 0.25 * 0.55
    )


def test_mean_iou_counts_only_classes_that_occur() -> None:
    truth, predicted = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    assert metrics.mean_iou(truth, predicted, classes=5) == pytest.approx((1 / 2 + 2 / 3) / 2)


@needs_data
def test_raindrop_inputs_have_their_published_psnr() -> None:
    from monai_sasm.evaluation.data import photo

    folder = DATA / "raindrop" / "pairs"
    for index, expected in ((0, 20.47), (1, 16.41)):
        clean, rain = photo(folder / "gt" / f"{index}_clean.png"), photo(folder / "data" / f"{index}_rain.png")
        assert metrics.psnr(clean, rain, 1.0) == pytest.approx(expected, abs=0.01)


@needs_data
def test_low_dose_inputs_have_their_known_psnr_in_the_window() -> None:
    from monai_sasm.evaluation.data import ct_pairs

    scores = [
        metrics.psnr(metrics.windowed(pair.full), metrics.windowed(pair.quarter), 400.0)
        for pair in ct_pairs(DATA / "ct_ldct_pairs" / "L096_dicom")
    ]
    assert len(scores) == 10
    assert np.mean(scores) == pytest.approx(19.23, abs=0.01)
