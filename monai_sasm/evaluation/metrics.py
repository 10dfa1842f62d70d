"""Image quality, noise texture, sharpness and calibration, as plain functions of NumPy arrays.

Images are ``(H, W)`` or ``(C, H, W)``, reference first is never assumed: arguments are named. Nothing is clipped here;
a protocol
that clips (CT windows, 8-bit files) says so and calls :func:`windowed` or :func:`as_8_bit` itself.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from monai_sasm.types import Modality

Array = NDArray[np.floating]

CT_WINDOW = Modality.CT.profile.metric_window
SSIM_SIGMA, SSIM_TRUNCATE, SSIM_RADIUS = 1.5, 3.5, 5  # an 11 x 11 Gaussian window
LUMA = (65.481 / 255, 128.553 / 255, 24.966 / 255)  # ITU-R BT.601 studio range, as in MATLAB's rgb2ycbcr
LUMA_OFFSET = 16 / 255
TEN_TO_NINETY = 2.5631  # distance between the 10 % and 90 % points of an error function of standard deviation 1


def psnr(reference: Array, image: Array, data_range: float) -> float:
    """Peak signal-to-noise ratio in dB, ``10 log10(range^2 / MSE)`` over all pixels and channels; infinite for equal
    images.
    """
    error = float(np.mean(_difference(reference, image) ** 2))
    return float("inf") if error == 0 else float(10 * np.log10(data_range**2 / error))


def ssim(reference: Array, image: Array, data_range: float, where: NDArray[np.bool_] | None = None) -> float:
    """Structural similarity (Wang et al. 2004): Gaussian 11 x 11 window, sigma 1.5, border of 5 pixels left out, mean
    of channels and of the windows centred at the pixels ``where`` ``(H, W)``; NaN where all of those are in the border.
    """
    _difference(reference, image)
    if reference.ndim == 3:
        return float(np.mean([ssim(a, b, data_range, where=where) for a, b in zip(reference, image, strict=True)]))
    if min(reference.shape) < 2 * SSIM_RADIUS + 1:
        raise ValueError(f"SSIM needs at least 11 x 11 pixels, got {reference.shape}")
    x, y = reference.astype(np.float64), image.astype(np.float64)
    mean_x, mean_y = _window_mean(x), _window_mean(y)
    var_x, var_y = _window_mean(x * x) - mean_x**2, _window_mean(y * y) - mean_y**2
    covariance = _window_mean(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    similarity /= (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    inner = (slice(SSIM_RADIUS, -SSIM_RADIUS),) * 2
    chosen = similarity[inner] if where is None else similarity[inner][where[inner]]
    return float(chosen.mean()) if chosen.size else float("nan")


def rmse(reference: Array, image: Array) -> float:
    """Root mean square error, in the images' unit."""
    return float(np.sqrt(np.mean(_difference(reference, image) ** 2)))


def bias(reference: Array, image: Array, where: NDArray[np.bool_] | None = None) -> float:
    """Mean of ``image - reference``, over the pixels ``where``; positive when the image is too bright."""
    difference = _difference(reference, image)
    return float(difference.mean() if where is None else difference[where].mean())


def windowed(image: Array, window: tuple[float, float] = CT_WINDOW) -> Array:
    """Clip a CT image in HU to a display window."""
    return np.clip(image, *window)


def as_8_bit(image: Array) -> Array:
    """Clip to [0, 1] and round to 1/255, as an 8-bit file does and as the published photo denoisers are measured."""
    return np.round(np.clip(image, 0, 1) * 255) / 255


def luma(image: Array) -> Array:
    """Y channel ``(H, W)`` of an RGB image ``(3, H, W)`` in [0, 1]; 16/255 to 235/255 (ITU-R BT.601)."""
    if image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"luma needs an RGB image (3, H, W), got {image.shape}")
    return np.tensordot(np.asarray(LUMA), image.astype(np.float64), axes=1) + LUMA_OFFSET


def gradient_ratio(reference: Array, image: Array) -> float:
    """Mean gradient magnitude of ``image`` over that of ``reference``; below 1 when smoothed, above 1 when noisy."""
    _difference(reference, image)
    return float(_gradient(image).mean() / max(float(_gradient(reference).mean()), 1e-12))


def delta_e(reference: Array, image: Array) -> float:
    """Mean CIE 1976 colour difference of two sRGB images ``(3, H, W)`` in [0, 1] (D65); about 2 is just visible."""
    return float(np.linalg.norm(_lab(reference) - _lab(image), axis=0).mean())


def colour_shift(reference: Array, image: Array, radius: float = 8.0) -> float:
    """:func:`delta_e` after a Gaussian blur of ``radius`` pixels: colour that moved, without noise and detail."""
    from scipy.ndimage import gaussian_filter

    _difference(reference, image)
    return delta_e(*(gaussian_filter(part.astype(np.float64), (0, radius, radius)) for part in (reference, image)))


def noise_power_spectrum(patches: Array, spacing: float, bins: int = 24) -> tuple[Array, Array]:
    """Radial noise power spectrum of uniform regions (ICRU 87), planes removed.

    ``NPS(f) = dx dy / (Nx Ny) < |DFT(patch - plane)|^2 >``, averaged over patches and directions; its integral over
    both
    frequencies is the variance.

    Args:
        patches: (N, S, S), uniform regions, or differences of two images there.
        spacing: pixel spacing, mm.
        bins: number of rings up to the Nyquist frequency.

    Returns:
        frequency (bins,) in cycles per mm, power (bins,) in unit^2 mm^2.
    """
    if patches.ndim != 3 or patches.shape[1] != patches.shape[2] or not len(patches):
        raise ValueError(f"patches must be a non-empty stack of squares (N, S, S), got {patches.shape}")
    side = patches.shape[1]
    power = np.mean(np.abs(np.fft.fft2(_without_plane(patches))) ** 2, axis=0) * spacing**2 / side**2
    frequency = np.fft.fftfreq(side, spacing)
    radius = np.hypot(*np.meshgrid(frequency, frequency))
    edges = np.linspace(0, 0.5 / spacing, bins + 1)
    ring = np.digitize(radius, edges) - 1
    total = np.bincount(ring.ravel(), power.ravel(), minlength=bins + 2)[:bins]
    count = np.bincount(ring.ravel(), minlength=bins + 2)[:bins]
    return (edges[:-1] + edges[1:]) / 2, np.where(count > 0, total / np.maximum(count, 1), np.nan)


def edge_width(image: Array, reference: Array | None = None, spacing: float = 1.0, edges: int = 200) -> float:
    """Median 10-90 % rise of an error function fitted across the strongest edges.

    The edges are found in ``reference`` (the image itself when missing), so that all methods are measured at the same
    places;
    profiles along the gradient are averaged over 7 pixels of edge. Edges that no error function describes (R^2 < 0.9)
    are left out.

    Args:
        image: ``(H, W)``.
        reference: ``(H, W)``, where to look for edges.
        spacing: pixel spacing; the result has its unit.
        edges: at most so many edges.

    Returns:
        The width; NaN when no edge can be fitted.
    """
    from scipy.ndimage import map_coordinates

    rows, columns, normal = _strong_edges(image if reference is None else reference, edges)
    if not len(rows):
        return float("nan")
    along, across = np.arange(-3.0, 4.0), np.arange(-8.0, 8.01, 0.5)
    t, s = np.meshgrid(along, across, indexing="ij")  # (7, P)
    y = rows[:, None, None] + s * normal[0][:, None, None] + t * normal[1][:, None, None]
    x = columns[:, None, None] + s * normal[1][:, None, None] - t * normal[0][:, None, None]
    profiles = map_coordinates(image.astype(np.float64), [y, x], order=1, mode="nearest").mean(axis=1)  # (N, P)
    widths = np.exp(np.linspace(np.log(0.2), np.log(5), 160))
    sigma, fit = _fit_error_function(profiles, across, widths)
    good = sigma[fit > 0.9]
    return float(np.median(good) * TEN_TO_NINETY * spacing) if len(good) else float("nan")


def expected_calibration_error(confidence: ArrayLike, correct: ArrayLike, bins: int = 10) -> float:
    """ECE (Guo et al. 2017): mean gap between confidence and accuracy, weighted by how often each bin of confidence
    occurs.
    """
    gap, share = [], []
    for _, mean_confidence, accuracy, fraction in reliability(confidence, correct, bins):
        gap.append(abs(mean_confidence - accuracy))
        share.append(fraction)
    return float(np.dot(gap, share))


def reliability(confidence: ArrayLike, correct: ArrayLike, bins: int = 10) -> list[tuple[float, float, float, float]]:
    """Rows ``(bin centre, mean confidence, accuracy, share of the samples)`` of the non-empty bins of confidence."""
    c, hit = np.asarray(confidence, np.float64).ravel(), np.asarray(correct, np.float64).ravel()
    if c.shape != hit.shape or not len(c):
        raise ValueError(f"confidence and correct must be non-empty and of equal length, got {c.shape} and {hit.shape}")
    index = np.minimum((c * bins).astype(int), bins - 1)
    found = [(k, index == k) for k in range(bins) if (index == k).any()]
    return [((k + 0.5) / bins, float(c[m].mean()), float(hit[m].mean()), float(m.mean())) for k, m in found]


def mean_iou(truth: NDArray[np.integer], predicted: NDArray[np.integer], classes: int) -> float:
    """Mean intersection over union of the classes that occur in either label map; NaN when both are empty."""
    if truth.shape != predicted.shape:
        raise ValueError(f"label maps must have the same shape, got {truth.shape} and {predicted.shape}")
    scores = []
    for label in range(classes):
        union = np.logical_or(truth == label, predicted == label).sum()
        if union:
            scores.append(np.logical_and(truth == label, predicted == label).sum() / union)
    return float(np.mean(scores)) if scores else float("nan")


def _difference(reference: Array, image: Array) -> Array:
    if reference.shape != image.shape:
        raise ValueError(
            f"images must have the same shape, got {reference.shape} and {image.shape}; crop or resample first"
        )
    return image.astype(np.float64) - reference.astype(np.float64)


def _window_mean(image: Array) -> Array:
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(image, SSIM_SIGMA, truncate=SSIM_TRUNCATE)


def _gradient(image: Array) -> Array:
    dy, dx = np.gradient(image.astype(np.float64), axis=(-2, -1))
    return np.hypot(dy, dx)


def _lab(image: Array) -> Array:
    x = image.astype(np.float64)
    linear = np.where(x > 0.04045, ((np.maximum(x, 0) + 0.055) / 1.055) ** 2.4, x / 12.92)
    to_xyz = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
    relative = np.tensordot(to_xyz, linear, axes=1) / np.array([0.95047, 1.0, 1.08883])[:, None, None]
    f = np.where(relative > 0.008856, np.cbrt(relative), 7.787 * relative + 16 / 116)
    return np.stack([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def _without_plane(patches: Array) -> Array:
    side = patches.shape[1]
    row, column = np.mgrid[:side, :side] - (side - 1) / 2
    basis = np.stack([np.full(side * side, 1.0), row.ravel(), column.ravel()], 1)
    basis /= np.linalg.norm(basis, axis=0)
    flat = patches.reshape(len(patches), -1).astype(np.float64)
    return (flat - flat @ basis @ basis.T).reshape(patches.shape)


def _strong_edges(image: Array, count: int) -> tuple[Array, Array, tuple[Array, Array]]:
    """Rows, columns and unit gradient of the strongest, well separated gradient maxima, 12 pixels or more from the
    border.
    """
    from scipy.ndimage import gaussian_filter, maximum_filter

    dy, dx = (gaussian_filter(image.astype(np.float64), 1.5, order=order) for order in ((1, 0), (0, 1)))
    strength = np.hypot(dy, dx)
    peak = (strength == maximum_filter(strength, 9)) & (strength > 0)
    border = np.zeros_like(peak)
    border[12:-12, 12:-12] = True
    rows, columns = np.nonzero(peak & border)
    order = np.argsort(-strength[rows, columns], kind="stable")[:count]
    rows, columns = rows[order], columns[order]
    scale = strength[rows, columns]
    return rows.astype(float), columns.astype(float), (dy[rows, columns] / scale, dx[rows, columns] / scale)


def _fit_error_function(profiles: Array, position: Array, widths: Array) -> tuple[Array, Array]:
    """Best standard deviation and R^2 per profile: a search over width, centre and reach of the flat ends, amplitude
    solved for.

    Real edges have neighbours, so each profile is fitted over the reach (half width 3, 5 or 8 pixels) that is described
    best.
    """
    from scipy.special import erf

    best_sigma, best_fit = np.zeros(len(profiles)), np.full(len(profiles), -np.inf)
    centres = np.arange(-1.5, 1.51, 0.25)
    for reach in (8.0, 5.0, 3.0):
        inside = np.abs(position) <= reach
        s, c = np.meshgrid(widths[widths * TEN_TO_NINETY < 2 * reach], centres, indexing="ij")
        model = erf((position[inside] - c.ravel()[:, None]) / (np.sqrt(2) * s.ravel()[:, None]))  # (M, P)
        model -= model.mean(1, keepdims=True)
        model /= np.linalg.norm(model, axis=1, keepdims=True)
        data = profiles[:, inside] - profiles[:, inside].mean(1, keepdims=True)
        fit = (data @ model.T) / np.maximum(np.linalg.norm(data, axis=1, keepdims=True), 1e-12)
        choice = fit.argmax(1)
        r2 = np.sign(fit.max(1)) * fit.max(1) ** 2
        better = r2 > best_fit + 0.02  # a longer reach wins unless a shorter one is clearly better described
        best_sigma[better], best_fit[better] = s.ravel()[choice[better]], r2[better]
    return best_sigma, best_fit
