"""Files in, restored or segmented files out: the parts that every bundle's ``inference.yaml`` has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator, default_prepare_batch
from monai.handlers import CheckpointLoader, PostProcessing
from monai.inferers import Inferer
from monai.transforms import Activationsd, AsDiscreted, Compose, Invertd, MapTransform, Transform
from torch import nn

from monai_sasm.bundles.running import check_modality, running_section, warn_of_unused
from monai_sasm.errors import RefusedError, as_flags
from monai_sasm.functional.intensity import scaling_for
from monai_sasm.functional.misfit import misfit
from monai_sasm.functional.noise import NoiseEstimator
from monai_sasm.functional.tiling import HALO, TILE, Tile, tiles
from monai_sasm.io.formats import inventory
from monai_sasm.restoration.inferers import PipelineInferer, SliceInferer
from monai_sasm.transforms.label_maps import END, SaveLabelMapd
from monai_sasm.transforms.volumes import FromWorkingScaled, LoadVolumed, SaveVolumed, ToWorkingScaled
from monai_sasm.types import Modality


def only_modality(path: str | Path, default: str = "PHOTO") -> str:
    """What made the images under a path, if one kind of device did: DICOM says so, and a PNG is a photo.

    Args:
        path: file or folder.
        default: what is assumed where nothing is: a network is asked for without images by tools that look at it.

    Returns:
        ``"CT"``, ``"MR"`` or ``"PHOTO"``.

    Raises:
        RefusedError: images of several modalities, or files that do not say, NIfTI above all.
    """
    if not Path(path).exists():
        return default
    entries = inventory(Path(path))
    found = sorted({entry.modality.value for entry in entries if entry.modality and entry.refusal is None})
    if len(found) == 1:
        return found[0]
    if found:
        reason = f"{path} holds images of {' and '.join(found)}; choose one: modality='{found[0]}'"
        raise RefusedError(as_flags(reason))  # bundles are run by commands
    reasons = sorted({entry.refusal for entry in entries if entry.refusal})
    raise RefusedError(f"{path}: {'; '.join(reasons) or 'no image there'}")


def preprocessing(modality: str, further: Sequence[Transform] = ()) -> Compose:
    """Path -> image ``(C, *spatial)`` in working scale, with what is needed to write its result.

    Args:
        modality: ``"CT"``, ``"MR"`` or ``"PHOTO"``; others are refused.
        further: what comes after.

    Raises:
        BundleError: the bundle whose configuration is run is for another one.
    """
    check_modality(modality)
    return Compose([LoadVolumed("image", modality), ToWorkingScaled("image", scaling_for), *further])


def postprocessing() -> Compose:
    """Restored image in working scale -> unit of the image; pixels that the network left alone keep their value."""
    return Compose([FromWorkingScaled("pred", scaling_for)])


def tiling(tile: int = TILE, halo: int = HALO) -> Callable[[int, int], Iterable[Tile]]:
    """How large images are cut: (height, width) -> tiles, see :func:`monai_sasm.functional.tiling.tiles`."""
    return partial(tiles, tile=tile, halo=halo)


def slice_inferer(
    modality: str, chunk: int = 4, neighbours: int = 0, tiled: bool = True, precision: str = "float32"
) -> Inferer:
    """A 2-D network on every slice of a volume, or on photos.

    Args:
        modality: photos have three channels; of CT and MR every slice and time point is an image of its own, whose
            padding and constant background come back as they were.
        chunk: slices per network call.
        neighbours: slices on each side that the network looks at, where they are close.
        tiled: cut large slices into tiles; ``False`` for a network that does so itself.
        precision: see :mod:`monai_sasm.functional.precision`; not float32 only where the network adds its correction to
            the image in float32.

    A network of one's own that estimates no noise is given the estimate, if the bundle that is run says ``noise_map``.

    Raises:
        BundleError: the bundle whose configuration is run is for another modality.
    """
    check_modality(modality)
    return SliceInferer(
        Modality(modality).profile.channels,
        chunk,
        tiles=tiling() if tiled else None,
        neighbours=neighbours,
        precision=precision,
        modality=Modality(modality),
        noise_estimator=NoiseEstimator() if running_section().get("noise_map") else None,
    )


def pipeline_inferer(modality: str, neighbours: int = 0) -> Inferer:
    """Gate, experts and mixing on a volume, its weights coherent through it, or on photos; arguments as above."""
    return PipelineInferer(Modality(modality).profile.channels, neighbours)


def saving(
    output_dir: str | Path,
    input_dir: str | Path,
    bundle_root: str | Path,
    weights: str | Path,
    overwrite: bool = False,
    parameters: Mapping[str, object] | None = None,
) -> SaveVolumed:
    """Write results as the kind of file their sources were; see :class:`~monai_sasm.transforms.volumes.SaveVolumed`.

    Args:
        output_dir: folder, made if missing.
        input_dir: the file or folder the images came from.
        bundle_root: its name goes into headers and sidecars.
        weights: their hash, too.
        overwrite: replace existing files.
        parameters: options that change pixels, for headers.
    """
    return SaveVolumed(
        "pred",
        output_dir=str(output_dir),
        input_dir=str(input_dir),
        bundle_root=str(bundle_root),
        weights=str(weights),
        overwrite=overwrite,
        parameters=parameters,
    )


def evaluator(
    device: torch.device | str,
    dataset: Dataset,
    network: nn.Module,
    inferer: Inferer,
    postprocessing: Transform,
    saving: Transform | Sequence[Transform | None] | None = None,
    weights: str | Path | None = None,
    prepare_batch: Callable[..., Any] = default_prepare_batch,
) -> SupervisedEvaluator:
    """MONAI's ``SupervisedEvaluator`` that runs a network over files, one image at a time.

    Args:
        device, network, inferer, postprocessing, prepare_batch: as MONAI's.
        dataset: one image per item; its slices form the network's batch.
        saving: transforms that write, after ``postprocessing``.
        weights: state dict that ``network`` is filled from; ``None`` for networks that own none.

    Raises:
        RefusedError: there is no image.
    """
    warn_of_unused()
    if not len(dataset):
        raise RefusedError("there is no image to work on; check dataset_dir")
    writers = saving if isinstance(saving, Sequence) else [saving]
    loading = [] if weights is None else [_Weights(str(weights), {"model": network})]
    return SupervisedEvaluator(
        device=device,  # type: ignore[arg-type]
        val_data_loader=DataLoader(dataset, batch_size=1),
        network=network,
        inferer=inferer,
        postprocessing=postprocessing,
        prepare_batch=prepare_batch,
        val_handlers=[*loading, *(PostProcessing(writer) for writer in writers if writer is not None)],
    )


class _Weights(CheckpointLoader):
    """MONAI's, whose error lists every weight where they are another network's."""

    def __call__(self, engine: Engine) -> None:
        try:
            super().__call__(engine)
        except (RuntimeError, TypeError, ValueError):
            network, state = self.load_dict["model"], torch.load(self.load_path, map_location="cpu", weights_only=True)
            raise RefusedError(
                f"{self.load_path} does not fit the network: {misfit(network, state)}; give weights of this network, "
                "or the network_def that they were trained with"
            ) from None


def nifti_files(path: str | Path) -> list[dict[str, str]]:
    """A NIfTI file, or those in a folder, as a MONAI data list with the key ``image``.

    Label maps that :func:`label_maps` wrote into the folder are left out.

    Raises:
        FileNotFoundError: nothing is there.
        RefusedError: something is there, but no NIfTI file.
    """
    place = Path(path)
    if not place.exists():
        raise FileNotFoundError(f"{place} does not exist; check dataset_dir")
    files = [place] if place.is_file() else sorted(place.glob("*.nii*"))
    files = [file for file in files if file.name.endswith((".nii", ".nii.gz")) and not file.name.endswith(END)]
    if not files:
        raise RefusedError(f"no NIfTI file (.nii, .nii.gz) in {place}")
    return [{"image": str(file)} for file in files]


def label_maps(
    preprocessing: Compose, output_dir: str | Path, regions: MapTransform | None = None, overwrite: bool = False
) -> Compose:
    """Scores of a segmenter -> a label map on the grid of the image, and a file of it, ``<image>_seg``.

    Args:
        preprocessing: what is undone.
        output_dir: folder, made if missing.
        regions: overlapping regions ``(R, *spatial)``, probabilities -> labels; ``None``: each voxel has the label
            whose score is largest.
        overwrite: replace existing files; see :class:`~monai_sasm.transforms.label_maps.SaveLabelMapd`.
    """
    return Compose(
        [
            Activationsd("pred", sigmoid=regions is not None, softmax=regions is None),
            Invertd("pred", preprocessing, orig_keys="image", nearest_interp=False, to_tensor=True),
            AsDiscreted("pred", argmax=True) if regions is None else regions,
            SaveLabelMapd("pred", output_dir, overwrite),
        ]
    )
