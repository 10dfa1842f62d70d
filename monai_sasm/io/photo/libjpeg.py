"""What libjpeg says of a JPEG whose data are damaged: it goes on, and Pillow does not pass its warnings on."""

from __future__ import annotations

from contextlib import suppress


def warnings_of(data: bytes) -> str:
    """The first warning, empty for an intact file.

    Args:
        data: a JPEG file that Pillow can decode.
    """
    import simplejpeg

    try:
        simplejpeg.decode_jpeg(data, "GRAY")
    except ValueError as told:
        with suppress(ValueError):  # what it cannot decode at all says nothing of what Pillow did
            simplejpeg.decode_jpeg(data, "GRAY", strict=False)
            return str(told)
    return ""
