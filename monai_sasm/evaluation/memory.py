"""Peak memory of ``sasm restore`` from disk to disk: ``python -m monai_sasm.evaluation.memory KIND SIZE...``.

Kinds: ``series`` and ``volume`` (a CT as DICOM or NIfTI; size: slices), ``photo`` (size: height, width).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

COPY = "copy"
_COPYING = "network_def:\n  _target_: torch.nn.Conv2d\n  in_channels: {0}\n  out_channels: {0}\n  kernel_size: 1\n"


def peak_memory(kind: str, *size: int, device: str = "cpu", expert: str | None = None) -> float:
    """Largest resident set, MB (10^6 bytes), of a fresh ``sasm restore`` of a synthetic image.

    Args:
        kind: see the module.
        size: see the module.
        device: as for ``sasm restore``; what a GPU holds does not count.
        expert: name of a bundle; :data:`COPY` is a network of one multiplication, which leaves the memory of reading,
            holding and writing. By default gate and all experts.

    Raises:
        RuntimeError: the restoration failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        made = subprocess.run(_self("make", folder, kind, *size), capture_output=True, text=True, check=False)
        source = Path(made.stdout.strip())
        command = ["restore", source, "--output", Path(folder) / f"out{''.join(source.suffixes)}", "--quiet"]
        command += ["--device", device, *(["--modality", "CT"] if kind == "volume" else [])]
        command += ["--expert", expert] if expert else []
        command += ["--trust", _write_copying(Path(folder) / COPY, kind)] if expert == COPY else []
        done = subprocess.run(_self("measure", *command), capture_output=True, text=True, check=False)
        if made.returncode or done.returncode:
            raise RuntimeError(f"measuring {kind} {size} failed: {(made.stderr + done.stderr).strip()[-500:]}")
        return float(done.stdout.splitlines()[-1])


def _self(*arguments: object) -> list[str]:
    return [sys.executable, "-m", __name__, *map(str, arguments)]


def _write_copying(folder: Path, kind: str) -> Path:
    import torch

    channels = 3 if kind == "photo" else 1
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / "inference.yaml").write_text(_COPYING.format(channels))
    section = {"role": "expert", "modality": "PHOTO" if kind == "photo" else "CT", "degradation": "noise"}
    (folder / "configs" / "metadata.json").write_text(json.dumps({"version": "1", "sasm": section}))
    weights = {"weight": torch.eye(channels)[..., None, None], "bias": torch.zeros(channels)}
    torch.save(weights, folder / "models" / "model.pt")
    return folder


def _make(folder: Path, kind: str, *size: int) -> Path:
    if kind == "series":
        from monai_sasm.evaluation.synthetic_series import write_ct_series

        write_ct_series(folder / "in", size[0])
        return folder / "in"
    if kind == "volume":
        return _make_volume(folder / "in.nii.gz", size[0])
    from PIL import Image

    rows, columns = np.mgrid[: size[0], : size[1]]
    scene = np.stack([rows * 255 // size[0], columns * 255 // size[1], (rows + columns) % 256], -1)
    noise = 25 * np.random.default_rng(0).standard_normal((256, 256, 3))
    tiled = np.tile(noise, (-(-size[0] // 256), -(-size[1] // 256), 1))[: size[0], : size[1]]
    Image.fromarray(np.clip(scene + tiled, 0, 255).astype(np.uint8)).save(folder / "in.png", compress_level=1)
    return folder / "in.png"


def _make_volume(path: Path, slices: int) -> Path:
    import gzip

    import nibabel

    from monai_sasm.evaluation.synthetic_series import SIZE, SPACING, THICKNESS, body_slices

    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape((SIZE, SIZE, slices))
    header.set_sform(np.diag([SPACING, SPACING, THICKNESS, 1]), 1)
    header["vox_offset"] = 352
    with gzip.open(path, "wb", 1) as file:
        file.write(header.binaryblock + b"\0\0\0\0")
        for image in body_slices(slices):
            file.write(image.astype("<i2").tobytes())
    return path


def _measure(*arguments: str) -> float:
    """Peak of the command, the only process that this one starts."""
    import resource

    subprocess.run([sys.executable, "-m", "monai_sasm.cli.main", *arguments], check=True, stdout=subprocess.DEVNULL)
    unit = 1e6 if sys.platform == "darwin" else 1e3  # bytes on macOS, kilobytes on Linux
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / unit


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    if what == "make":
        print(_make(Path(rest[0]), rest[1], *map(int, rest[2:])))
    elif what == "measure":
        print(_measure(*rest))
    else:
        print(f"{peak_memory(what, *map(int, rest)):.0f} MB")
