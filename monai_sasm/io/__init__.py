"""Files to :class:`~monai_sasm.io.volume.Volume` and back; geometry, headers and bit depth are never lost."""
