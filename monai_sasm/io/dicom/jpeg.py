"""JPEG Extended (12 bit) and JPEG Lossless, decoded by imagecodecs: a plugin for pydicom 3 and a handler for pydicom 2.

pydicom's own way to these two codings is pylibjpeg-libjpeg, whose licence is the GPL. JPEG Baseline stays with Pillow.
Lossless pixels are those of every other decoder, bit for bit; 12-bit lossy ones may differ by one, as ITU-T T.83 lets
decoders differ.
"""

from __future__ import annotations

from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import config
from pydicom.dataset import Dataset
from pydicom.uid import UID

# JPEG Extended (processes 2 and 4), Lossless (14) and its first-order prediction; pydicom 2 and 3 name them differently
SYNTAXES = ("1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
PLUGIN = "imagecodecs"  # pydicom 3 calls the plugin so
HANDLER_NAME = "imagecodecs"  # the names below are those that pydicom 2 and 3 ask for
DEPENDENCIES = {"imagecodecs": ("https://pypi.org/project/imagecodecs/", "imagecodecs")}
DECODER_DEPENDENCIES = dict.fromkeys(SYNTAXES, ("imagecodecs>=2023.9",))
_registering = Lock()


def decoded(frame: bytes) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """The samples ``(rows, columns)`` of one whole JPEG codestream, unsigned.

    Raises:
        ValueError: it holds several samples per pixel.
    """
    import imagecodecs

    samples = imagecodecs.jpeg8_decode(frame)
    if samples.ndim != 2:
        raise ValueError(f"one sample per pixel is read, got an image of shape {samples.shape}")
    return samples


def is_available(uid: str | None = None) -> bool:
    """Whether imagecodecs is there and ``uid``, a transfer syntax, is one of :data:`SYNTAXES`."""
    from importlib.util import find_spec

    return (uid is None or uid in SYNTAXES) and find_spec("imagecodecs") is not None


def decode_frame(source: bytes, runner: Any) -> bytearray:
    """One frame for pydicom 3, ``runner`` being its ``DecodeRunner``."""
    samples = decoded(source)
    runner.set_option("bits_allocated", samples.dtype.itemsize * 8)
    return bytearray(samples.tobytes())


def supports_transfer_syntax(uid: str) -> bool:
    """Asked by pydicom 2."""
    return uid in SYNTAXES


def needs_to_convert_to_RGB(dataset: Dataset) -> bool:  # noqa: N802 - pydicom 2 wants it so
    """Asked by pydicom 2."""
    return False


def should_change_PhotometricInterpretation_to_RGB(dataset: Dataset) -> bool:  # noqa: N802 - pydicom 2 wants it so
    """Asked by pydicom 2."""
    return False


def get_pixeldata(dataset: Dataset) -> NDArray[Any]:
    """All frames for pydicom 2, flat, in the type of the pixel data element."""
    from pydicom.encaps import generate_pixel_data_frame
    from pydicom.pixel_data_handlers.util import pixel_dtype

    count = int(dataset.get("NumberOfFrames") or 1)
    frames = [decoded(frame).ravel() for frame in generate_pixel_data_frame(dataset.PixelData, count)]
    return np.concatenate(frames).astype(pixel_dtype(dataset), casting="unsafe")


def register() -> None:
    """Let pydicom decode :data:`SYNTAXES` by this module; a second call, in any thread, changes nothing."""
    try:
        from pydicom.pixels import get_decoder
    except ImportError:  # pydicom 2.4
        from sys import modules

        if modules[__name__] not in config.pixel_data_handlers:
            config.pixel_data_handlers.insert(0, modules[__name__])
        return
    with _registering:  # pydicom refuses a second plugin of one name
        for syntax in SYNTAXES:
            decoder = get_decoder(UID(syntax))
            if PLUGIN not in (*decoder.available_plugins, *decoder._unavailable):
                decoder.add_plugin(PLUGIN, (__name__, "decode_frame"))
