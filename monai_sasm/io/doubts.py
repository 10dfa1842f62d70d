"""Whether the values of an image can be what its modality promises: the last net, below headers, sidecars and names.

Label maps, phase, CT on another scale and signed MR come out of networks plausible and wrong. All of these checks are
of a sample of slices; whoever knows better may overrule them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from monai_sasm.io.volume import Volume
from monai_sasm.types import Modality

OVERRULE = "or pass force_modality=True, if you know better"
_SAMPLED = 16  # slices
_FEW = 16  # whole numbers so few are labels
_MANY = 2048  # labels of the finest atlases
_MASK = 4  # values so few are, also where they are no whole numbers
_ALIKE = 0.3  # part of neighbours that are alike in label maps, background and all
_PATCHES = 0.5  # part of neighbours within a label map that are alike, at least; of images it is below 0.2
_ROWS = 64  # of a photo that are looked at first
_DOTS = 0.1  # part of neighbours that differ in dithered pictures; of text it is 0.05
_NARROW = 100.0  # HU between the 0.1st and the 99.9th percentile; air to soft tissue is ten times that
_AIR = -300.0  # HU; what is darker is air, in lungs, bowels or around the patient
_CLIPPED_AIR = (-1100.0, -900.0)  # HU of constants that are air
_BONE = 500.0  # HU; where the median is above, the image is of bone alone, or not in HU
_FILLED = 0.005  # part of an image that one constant value fills
_RARE = 1e-4
_NEGATIVE = 0.02  # part of the sum of absolute values below 0 that the ringing of resampled magnitude may have
_TELLING = 500  # voxels below which a crop may be of anything
_ENOUGH = 10_000  # voxels that tell wrapped phase from a small image with hard edges
_WRAPPED = 0.004  # part of neighbours that jump by half the range; smooth phase with few wraps has 0.008
_FAR = 0.1  # part of these that jump by four fifths of it: most in smooth phase, 0.16 in noise, 0.05 in a narrow window
_EVEN = 0.03  # part of the measured voxels in each tenth of the range; the top tenth of a magnitude has 0.002 or less
_LIKE = 2.0  # ratio of the lowest and the highest tenth, which one wrap fills from both sides


def doubt_about(volume: Volume) -> str | None:
    """Why the values of an image are none of its modality, with the way out; ``None`` when they may be."""
    if volume.modality.profile.is_picture:
        return _dithered(volume.array)
    if volume.array.ndim < 3 or min(volume.array.shape[-2:]) < 2:
        return None
    slices = _sampled(volume)
    label = _label_map(slices)
    if label is not None:
        return label
    source = volume.source
    if volume.modality is Modality.CT:
        return None if source is not None and source.states_unit else _not_hounsfield(slices)
    if not volume.modality.profile.nonnegative:
        return None
    return _signed(slices) or (None if source is not None and source.states_meaning else _wrapped(slices))


def _dithered(photo: NDArray[np.float32]) -> str | None:
    """Shades made of dots are noise to any network, which would blur them and change the mean; text and line art of
    two values has far fewer edges and is left alone anyway."""
    rows = photo[:, :: max(1, photo.shape[1] // _ROWS)]
    low, high = photo.min(), photo.max()
    if low == high or ((rows != low) & (rows != high)).any() or ((photo != low) & (photo != high)).any():
        return None
    if photo.shape[-1] < 2 or (rows[..., 1:] != rows[..., :-1]).mean() < _DOTS:
        return None
    return "its shades are dots of two values (dithered, halftone), not those of a photo; scan or export it in grey"


def _sampled(volume: Volume) -> NDArray[np.float32]:
    """``(n, H, W)``: slices spread evenly over those that are not constant."""
    stack = [one[0] for one in volume.each_slice()]
    varied = [one for one in stack[:: max(1, len(stack) // (4 * _SAMPLED))] if one.min() < one.max()]
    return np.stack(varied[:: max(1, len(varied) // _SAMPLED)] or stack[:1])


def _label_map(slices: NDArray[np.float32]) -> str | None:
    some = np.unique(slices.reshape(-1)[:: max(1, slices.size >> 16)])
    if some.size > _MANY or (some.size > _MASK and (some != np.rint(some)).any()):
        return None
    if (slices[..., 1:] == slices[..., :-1]).mean() < _ALIKE:
        return None
    values, counts = np.unique(slices, return_counts=True)
    if not 2 <= values.size <= min(_MANY, slices.size // 50):
        return None
    if values.size > _FEW:
        plain = np.isin(slices, [values[0], values[-1], values[counts.argmax()]])  # background and saturation
        pairs = ~(plain[..., 1:] | plain[..., :-1])
        alike = (slices[..., 1:] == slices[..., :-1]) & pairs
        if not pairs.any() or alike.sum() < _PATCHES * pairs.sum():
            return None
    if values.size > _MASK and (values != np.rint(values)).any():
        return None
    return f"{values.size} different values in patches: a label map or mask, not an image; nothing to restore"


def _not_hounsfield(slices: NDArray[np.float32]) -> str | None:
    constants, counts = np.unique(slices[..., 1:][slices[..., 1:] == slices[..., :-1]], return_counts=True)
    constants = constants[counts > _FILLED * slices.size]  # padding, clipped air and metal
    values = slices[~np.isin(slices, constants)]
    if values.size < _TELLING:
        return None
    low, high = (float(end) for end in np.percentile(values, (0.1, 99.9)))
    clipped = ((constants >= _CLIPPED_AIR[0]) & (constants <= _CLIPPED_AIR[1])).any()
    way = "convert it to Hounsfield units (air -1000, water 0)"
    if high - low < _NARROW:
        return f"values from {low:g} to {high:g} span too little for Hounsfield units (normalised, or 1/mm?); {way}"
    if (values < 0).mean() < _RARE or float(np.median(values)) > _BONE:
        return f"values from {low:g} to {high:g} are no Hounsfield units but shifted or grey levels; {way}"
    if not clipped and (values < _AIR).mean() < _RARE:
        return f"values from {low:g} to {high:g} without air are hardly Hounsfield units (shifted, windowed?); {way}"
    return None


def _signed(slices: NDArray[np.float32]) -> str | None:
    total = float(np.abs(slices).sum(dtype=np.float64))
    below = float(-np.minimum(slices, 0).sum(dtype=np.float64))
    if total and below > _NEGATIVE * total:
        share = 100 * float((slices < 0).mean())
        return (
            f"{share:.0f} % of the voxels are negative, which no MR magnitude is (phase, a real part, z-scores?); "
            "restore the magnitude, or shift the values so that the background is 0"
        )
    return None


def _wrapped(slices: NDArray[np.float32]) -> str | None:
    """Angles wrap anywhere, so that all of their range is filled, evenly where there is noise; a bright rim jumps as
    far, but leaves most of the range empty."""
    low, high = float(slices.min()), float(slices.max())
    change = np.diff(slices, axis=-1)
    jumps, far = (float((np.abs(change) > part * (high - low)).mean()) for part in (0.5, 0.8))
    if slices.size < _ENOUGH or jumps <= _WRAPPED or far < _FAR * jumps:
        return None
    measured = np.ones(slices.shape, bool)
    for alike in (measured[..., 1:], measured[..., :-1]):
        alike &= change != 0  # padding and masked background are no angles
    counts = np.histogram(slices[measured], 10, (low, high))[0]
    ends = sorted((int(counts[0]), int(counts[-1])))
    if counts.min() >= _EVEN * counts.sum() and counts.sum() and ends[1] <= _LIKE * ends[0]:
        return "its values jump from one end of their range to the other, as wrapped phase does; restore the magnitude"
    return None
