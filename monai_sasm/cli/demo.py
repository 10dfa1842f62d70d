"""``make demo``: restore three real images that come with the dependencies, and show what happened.

A CT slice (pydicom; a twentieth of the dose, simulated in the sinogram), an MR volume (nibabel; Rician noise added in
k-space) and a photo (scikit-image; raindrops here, noise there, nothing elsewhere) take the way of any user's files:
read, gate, experts, mixing, write.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from monai_sasm import __version__
from monai_sasm.io.derivation import Derivation
from monai_sasm.io.formats import inventory, output_path, write
from monai_sasm.io.volume import Volume
from monai_sasm.types import Modality

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from monai_sasm.restoration.restored import Restored
    from monai_sasm.restoration.restorer import Restorer

SEED = 7
MARK = ".sasm-demo.json"
"""Record in the output: the files that were made there, and their content."""
CT_DOSE = 0.05  # of the dose the slice was made with
MR_NOISE = 0.08  # standard deviation as a share of the brightest tissue
PHOTO_NOISE = 30 / 255
SHARPEST = 0.02  # softness of the borders between the photo's regions
CT_WINDOW = (-160.0, 240.0)  # HU, soft tissue
SIMULATED = Derivation("monai_sasm", __version__, parameters={"seed": SEED}, summary="simulated fault", label="sim")
COLOURS = ("#303030", "#2a9d8f", "#e9c46a", "#e76f51", "#8ab6f9", "#b07aa1", "#f4a8c0")  # identity first


@dataclass(frozen=True)
class Sample:
    """One image of the demonstration.

    Args:
        title: for the table and the picture.
        source: the file to restore.
        clean: the image before the simulated fault; ``None`` where the fault is real.
        fault: what is wrong with it.
    """

    title: str
    source: Path
    clean: Volume | None
    fault: str


@dataclass(frozen=True)
class SampleResult:
    """What became of a sample."""

    sample: Sample
    given: Volume
    restored: Restored
    noise: tuple[float, float]
    psnr: tuple[float, float] | None


def main() -> None:
    """Entry point of ``python -m monai_sasm.cli.demo``."""
    parser = argparse.ArgumentParser(prog="python -m monai_sasm.cli.demo", description=__doc__)
    place = "folder, empty or of an earlier demonstration"
    parser.add_argument("-o", "--output", type=Path, default=Path("demo_output"), help=place)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", module="pydicom|monai|torch")
    from monai_sasm.restoration.restorer import Restorer

    try:
        print(run(arguments.output, Restorer(arguments.device)))
    except FileExistsError as error:
        parser.error(str(error))


def run(output: Path, restorer: Restorer) -> str:
    """Make inputs, restore them; write ``input/``, ``restored/``, ``maps/``, ``panels/``, ``demo.jpg``, ``table.md``.

    Args:
        output: folder; what an earlier demonstration made there is removed.
        restorer: does the work.

    Returns:
        The table, Markdown.

    Raises:
        FileExistsError: the folder holds something else; nothing was removed.
    """
    _clear(output)
    for part in ("truth", "input", "restored", "maps", "panels"):
        (output / part).mkdir(parents=True, exist_ok=True)
    try:
        return _run(output, restorer)
    finally:  # of one that was interrupted, too
        made = {path.relative_to(output).as_posix(): _digest(path) for path in _files(output)}
        (output / MARK).write_text(json.dumps(made, indent=1), encoding="utf-8")


def _clear(output: Path) -> None:
    """Remove what an earlier demonstration made, by its own record: name and content of each file."""
    try:
        made = dict(json.loads((output / MARK).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        made = {}
    found = _files(output)
    foreign = [path for path in found if not _is(path, made.get(path.relative_to(output).as_posix()))]
    if foreign:
        raise FileExistsError(
            f"{output} holds {len(foreign)} file(s) that no demonstration made, the first is "
            f"{foreign[0].relative_to(output)}; choose another folder by --output"
        )
    for path in found:
        path.unlink()
    for folder in sorted({parent for path in found for parent in path.relative_to(output).parents}, reverse=True):
        with suppress(OSError):  # it holds something else
            (output / folder).rmdir()


def _files(output: Path) -> list[Path]:
    """Everything below a folder but its subfolders and the record of what was made."""
    return sorted(
        path for path in output.rglob("*") if path != output / MARK and (path.is_symlink() or not path.is_dir())
    )


def _is(path: Path, digest: str | None) -> bool:
    """Whether a plain file has this content."""
    return digest is not None and path.is_file() and not path.is_symlink() and _digest(path) == digest


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _run(output: Path, restorer: Restorer) -> str:
    results = [_restore(sample, restorer, output) for sample in samples(output)]
    for result in results:
        _panels([result], output / "panels" / f"{result.given.name}.png", dots=110)
    _panels(results, output / "demo.jpg", dots=72)
    table = _table(results)
    (output / "table.md").write_text(table + "\n", encoding="utf-8")
    return f"{table}\n\nPictures, restored files and maps: {output}"


def samples(output: Path) -> list[Sample]:
    """Make the inputs in ``input/``, and in ``truth/`` what they are made of; both folders are there."""
    makers: list[Callable[[Path], Sample]] = [_ct_sample, _mr_sample, _photo_sample]
    return [make(output) for make in makers]


def _ct_sample(output: Path) -> Sample:
    """One slice, 128 x 128, as if made with little dose and a sharp kernel."""
    import torch
    from pydicom.data import get_testdata_file

    from monai_sasm.degradations.low_dose_ct import LowDoseCt

    truth = Path(shutil.copy(str(get_testdata_file("CT_small.dcm", download=False)), output / "truth" / "slice.dcm"))
    clean = _read(truth)
    slices = torch.from_numpy(np.ascontiguousarray(clean.as_slices()))
    if clean.affine is None:
        raise ValueError(f"{truth} has no pixel spacing")
    model = LowDoseCt(float(np.linalg.norm(clean.affine[:3, 2])), (CT_DOSE, CT_DOSE), kernel="sharp")
    count, channels, height, width = slices.shape
    params = model.draw((count, channels, height, width), torch.Generator().manual_seed(SEED))
    source = output / "input" / "ct"
    write(clean.from_slices(model.apply(slices, params).numpy()), source, SIMULATED)
    return Sample("CT slice (DICOM)", source, clean, fault=f"dose x {CT_DOSE:g}, sharp kernel")


def _mr_sample(output: Path) -> Sample:
    """A brain, 24 slices of 128 x 96, with Rician noise."""
    import nibabel
    import torch

    from monai_sasm.degradations.kspace import KspaceNoise
    from monai_sasm.functional.intensity import scaling_for

    series: Any = nibabel.load(Path(nibabel.__file__).parent / "tests" / "data" / "example4d.nii.gz")
    truth = output / "truth" / "brain.nii.gz"
    nibabel.save(series.slicer[..., 0], truth)
    clean = _read(truth, Modality.MR)
    slices = torch.from_numpy(np.ascontiguousarray(clean.as_slices()))
    noise = KspaceNoise(sigma=(MR_NOISE, MR_NOISE), scale=scaling_for(clean).scale)
    count, channels, height, width = slices.shape
    params = noise.draw((count, channels, height, width), torch.Generator().manual_seed(SEED))
    noisy = clean.from_slices(noise.apply(slices, params).numpy())
    source = output / "input" / "brain.nii.gz"
    write(noisy, source, SIMULATED)
    return Sample("MR brain (NIfTI)", source, clean, fault=f"Rician noise, {MR_NOISE:.0%} of white")


def _photo_sample(output: Path) -> Sample:
    """A cup of coffee behind a wet window: drops in one region, noise in another, nothing in the third."""
    import torch
    from PIL import Image
    from skimage import data

    from monai_sasm.degradations.gaussian import GaussianNoise
    from monai_sasm.degradations.mask import region_weights
    from monai_sasm.degradations.raindrop import Raindrop

    truth = output / "truth" / "window.png"
    Image.fromarray(data.coffee()).save(truth)
    clean = _read(truth)
    image = torch.from_numpy(clean.array)[None]  # (1, 3, H, W)
    generator = torch.Generator().manual_seed(SEED)
    shape = (1, 3, image.shape[2], image.shape[3])
    drops, grain, _ = region_weights(shape, 3, generator, softness=SHARPEST).split(1, dim=1)
    rain, noise = Raindrop(coverage=(0.25, 0.25)), GaussianNoise(sigma=(PHOTO_NOISE, PHOTO_NOISE))
    wet = rain.apply(image, rain.draw(shape, generator))
    params = noise.draw(shape, generator)
    degraded = noise.apply(image + drops * (wet - image), replace(params, sigma=params.sigma * grain))
    source = output / "input" / "window.png"
    write(clean.with_array(degraded[0].numpy()), source, SIMULATED)
    return Sample("photo (PNG)", source, clean, fault="regions with raindrops, noise, nothing")


def _read(path: Path, modality: Modality | None = None) -> Volume:
    return inventory(path, modality)[0].load()


def _restore(sample: Sample, restorer: Restorer, output: Path) -> SampleResult:
    from monai_sasm.evaluation.metrics import psnr
    from monai_sasm.functional.intensity import scaling_for
    from monai_sasm.restoration.maps import write_maps
    from monai_sasm.restoration.options import Options

    options = Options(keep_maps=True)
    entry = inventory(sample.source, sample.clean.modality if sample.clean else None)[0]
    given = entry.load()
    restored = restorer(given, options)
    write(
        restored.volume,
        output_path(entry, sample.source, output / "restored"),
        restored.derivation,
        overwrite=True,
    )
    write_maps(restored, output / "maps" / entry.name)
    scores = None
    if sample.clean is not None:
        span = scaling_for(sample.clean).scale
        before, after = (psnr(sample.clean.array, volume.array, span) for volume in (given, restored.volume))
        scores = (before, after)
    return SampleResult(sample, given, restored, noise=_noise(restored), psnr=scores)


def _noise(restored: Restored) -> tuple[float, float]:
    """Before and after, in the unit of the image: of uniform tissue, where there is enough; else as estimated."""
    summary = restored.summary
    tissue = summary.get("tissue_noise", {"input": summary["noise"], "result": summary["noise_after"]})
    return tissue["input"], tissue["result"]


def _table(results: list[SampleResult]) -> str:
    lines = [
        "| image | fault | PSNR before | after | noise before | after | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        unit = {"sRGB": "/255", "HU": "HU", "MR": ""}[result.given.unit]
        factor = 255 if unit == "/255" else 1
        scores = [f"{score:.2f} dB" for score in result.psnr] if result.psnr else ["no truth", "-"]
        noise = [f"{factor * level:.1f} {unit}".strip() for level in result.noise]
        cells = [result.sample.title, result.sample.fault, *scores, *noise, f"{result.restored.summary['seconds']:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _panels(results: list[SampleResult], path: Path, dots: int) -> None:
    """One row a sample: before, after, what was taken away, which expert acted where."""
    from matplotlib.figure import Figure

    shapes = [_middle(result.given, result.given.as_slices()).shape[-2:] for result in results]
    width = 16.0
    heights = [width / 4 * shape[0] / shape[1] for shape in shapes]
    figure = Figure(figsize=(width, sum(heights) + 0.75 * len(results)), layout="constrained")
    grid = figure.subplots(len(results), 4, squeeze=False, height_ratios=heights)
    for axes, result in zip(grid, results, strict=True):
        given, restored = result.given, result.restored
        for axis, volume, label in ((axes[0], given, "before"), (axes[1], restored.volume, "after")):
            score = f", {result.psnr[0 if volume is given else 1]:.1f} dB" if result.psnr else ""
            _show(axis, volume, f"{result.sample.title}: {label}{score}")
        change = _middle(given, np.asarray(restored.change)[:, None])[0]
        limit = float(np.percentile(np.abs(change), 99.5)) or 1.0
        axes[2].imshow(change, cmap="coolwarm", vmin=-limit, vmax=limit)
        axes[2].set_title("after - before")
        _show_weights(axes[3], given, restored.weights)
    for axis in grid.flat:
        axis.set_axis_off()
    figure.savefig(path, dpi=dots)


def _middle(volume: Volume, slices: NDArray[np.float32]) -> NDArray[np.float32]:
    """The middle slice ``(c, H, W)``, the way people look at it: NIfTI axes run right and up, pictures down."""
    part = slices[len(slices) // 2]
    return part[:, ::-1, ::-1].swapaxes(1, 2)[:, ::-1].copy() if volume.modality is Modality.MR else part


def _show(axis: Axes, volume: Volume, title: str) -> None:
    picture = _middle(volume, volume.as_slices())
    if volume.modality.profile.is_picture:
        axis.imshow(picture.transpose(1, 2, 0).clip(0, 1))
    else:
        low, high = CT_WINDOW if volume.modality is Modality.CT else (0.0, float(np.percentile(picture, 99.8)))
        axis.imshow(picture[0], cmap="gray", vmin=low, vmax=high)
    axis.set_title(title)


def _show_weights(axis: Axes, volume: Volume, weights: Mapping[str, NDArray[np.float32]]) -> None:
    """Each class in its colour, mixed by weight; classes that never act are left out of the legend."""
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Patch

    first = {name: weight for name, weight in weights.items() if ", pass" not in name}
    colours = dict(zip(first, COLOURS * (1 + len(first) // len(COLOURS)), strict=False))
    planes = [_middle(volume, first[name][:, None])[0][..., None] * np.array(to_rgb(colours[name])) for name in first]
    axis.imshow(np.sum(planes, axis=0).clip(0, 1))
    axis.set_title("who acted where")
    acting = [name for name in first if first[name].max() > 0.05]
    axis.legend(handles=[Patch(color=colours[name], label=name) for name in acting], loc="lower left", fontsize=8)


if __name__ == "__main__":
    main()
