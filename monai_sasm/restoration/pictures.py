"""Photos enlarged or completed by a network that can, large ones in tiles."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from monai_sasm.bundles import Bundle
from monai_sasm.errors import RefusedError
from monai_sasm.functional.tiling import tiles
from monai_sasm.io.derivation import Derivation
from monai_sasm.io.photo.mask import check_mask_size
from monai_sasm.io.photo.pixels import check_size
from monai_sasm.io.volume import Volume
from monai_sasm.restoration.inferers import EnlargingInferer, InpaintingInferer

_SMALL_TILE, _SMALL_HALO = 192, 32  # pixels of a photo that is enlarged


def enlarge_photo(volume: Volume, bundle: Bundle, factor: int, steps: int | None = None) -> Volume:
    """A photo ``factor`` (2 or 4) times as high and wide.

    Args:
        volume: photo, grey or in colour.
        bundle: whose network has ``superresolve``, such as ``enhance_photo_diffusion``.
        factor: 2 or 4.
        steps: of sampling; by default the bundle's, 1: the mean of all photos that fit.

    Raises:
        RefusedError: it is no photo, or the result would be too large.
    """
    photo = _photo(volume)
    check_size(factor * photo.shape[3], factor * photo.shape[2], photo.shape[1])
    infer = EnlargingInferer(factor, steps, tiles=partial(tiles, tile=_SMALL_TILE, halo=_SMALL_HALO))
    with torch.inference_mode():
        large = infer(photo.to(bundle.device), bundle.network)
    return volume.enlarged(large[0].float().clamp(0, 1).cpu().numpy())


def inpaint_photo(volume: Volume, bundle: Bundle, known: NDArray[np.bool_], steps: int | None = None) -> Volume:
    """A photo whose holes are filled; known pixels come back to the last bit.

    Args:
        volume: photo, grey or in colour.
        bundle: whose network has ``inpaint``, such as ``enhance_photo_diffusion``.
        known: ``(H, W)`` in the stored order of the photo, ``False`` in holes; see :mod:`monai_sasm.io.photo.mask`.
        steps: of sampling; by default the bundle's.

    Raises:
        RefusedError: it is no photo, the mask has another size, or nothing is known.
    """
    photo = _photo(volume)
    check_mask_size(known.shape, tuple(photo.shape[2:]))
    if not known.any():
        raise RefusedError("the mask marks the whole photo as a hole: nothing is known of it; turn the mask round")
    infer = InpaintingInferer(steps, tiles=tiles)
    with torch.inference_mode():
        mask = torch.from_numpy(known)[None, None].float().to(bundle.device)
        filled = infer(photo.to(bundle.device), bundle.network, mask)
    return volume.with_array(filled[0].float().clamp(0, 1).cpu().numpy())


def picture_derivation(bundle: Bundle, what: str, parameters: dict[str, object]) -> Derivation:
    """What to write into the headers of the results; ``steps`` of ``None`` are those of the bundle's configuration."""
    from monai_sasm import __version__

    if parameters.get("steps", 0) is None:
        parameters = parameters | {"steps": getattr(bundle.network, "steps", "the bundle's")}
    warning = f"{what} by {bundle.name}: detail was drawn that nobody measured"
    models, settings = {bundle.name: bundle.sha256}, {bundle.name: bundle.settings}
    return Derivation("monai_sasm", __version__, models, parameters, settings=settings, summary=what, warning=warning)


def _photo(volume: Volume) -> torch.Tensor:
    """``(1, C, H, W)``."""
    if not volume.modality.profile.is_picture:
        raise RefusedError(f"only photos are enlarged and completed, this image is {volume.modality.value}")
    return torch.from_numpy(np.ascontiguousarray(volume.array))[None]
