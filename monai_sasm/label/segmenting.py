"""A segmenter bundle on one volume: its own preprocessing, inferer and postprocessing, on a NIfTI file of it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from monai_sasm.bundles import inference_parser, load
from monai_sasm.errors import BundleError
from monai_sasm.io.nifti.export import export, on_nifti_axes
from monai_sasm.io.volume import Volume


class Segmenter:
    """A bundle with role ``segmenter``, loaded.

    Its configuration begins with a transform that loads a file, and ends with one that saves a file, which is left
    out here. In between it must undo what it did to the grid, so that the labels lie on the grid of the image.

    Args:
        root: folder of a trusted bundle.
        device: where its network runs.
    """

    def __init__(self, root: Path, device: torch.device) -> None:
        from monai.transforms import Compose, SaveImaged

        from monai_sasm.transforms.label_maps import SaveLabelMapd

        bundle = load(root, device)
        self.network, self.device, self.models = bundle.network, device, {bundle.name: bundle.sha256}
        self.channels = int(bundle.metadata["network_data_format"]["inputs"]["image"]["num_channels"])
        parser = inference_parser(root)
        parser["device"] = device
        self.preprocessing: Any = parser.get_parsed_content("preprocessing")
        self.inferer: Any = parser.get_parsed_content("inferer")
        transforms = parser.get_parsed_content("postprocessing").transforms
        self.postprocessing = Compose(
            [step for step in transforms if not isinstance(step, (SaveImaged, SaveLabelMapd))]
        )

    def __call__(self, volume: Volume) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """Label every voxel.

        Args:
            volume: CT or MR with as many channels as the network takes.

        Returns:
            Labels ``(i, j, k)`` and their ``(4, 4)`` affine, voxel to RAS mm.

        Raises:
            ValueError: another number of channels.
            BundleError: the bundle gives no label map on the grid of the image.
        """
        if len(volume.array) != self.channels:
            raise ValueError(
                f"this segmenter takes {self.channels} image(s) at once, got {len(volume.array)}; several images of "
                "one grid are handed over as the volumes of a 4-D NIfTI file, in the order of the bundle's README"
            )
        values = volume.array if self.channels > 1 else volume.array[0]
        shape, affine = _grid(values, volume)
        with tempfile.TemporaryDirectory() as folder:
            path = export(values, volume, Path(folder) / "image.nii.gz")
            data = self.preprocessing({"image": str(path)})
        with torch.inference_mode():
            logits = self.inferer(data["image"].as_tensor()[None].to(self.device), self.network)
        data["pred"] = logits[0].cpu()
        labels = np.asarray(self.postprocessing(data)["pred"])
        if labels.shape != (1, *shape):
            raise BundleError(f"a segmenter's postprocessing must give labels {(1, *shape)}, got {labels.shape}")
        return np.round(labels[0]).astype(np.uint8), affine


def _grid(values: NDArray[np.float32], volume: Volume) -> tuple[tuple[int, ...], NDArray[np.float64]]:
    on_axes, affine = on_nifti_axes(values, volume)
    return on_axes.shape[:3], affine
