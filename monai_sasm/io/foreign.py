"""Files of images that are not read, and the way out for each: they are listed, in folders too."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

EMPTY = "the file is empty: copy or export it again"
DAMAGED = "the content is not what the name says, or damaged: export the file again"

_PICTURE = "a picture that is not read"
_DICOM = "export the original DICOM, or convert it to NIfTI"
_KINDS = {  # ends of names -> what they are, and the way out
    (".jxl", ".psd", ".xcf", ".exr", ".svg", ".eps", ".jxr", ".tga", ".ico"): (_PICTURE, "export it as PNG"),
    (".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"): ("a camera raw", "develop it into a 16-bit TIFF"),
    (".czi", ".lif", ".svs", ".ndpi", ".mrxs", ".vsi", ".nd2"): ("a microscopy file", "export a field as TIFF"),
    (".pdf", ".ppt", ".pptx", ".doc", ".docx"): ("a document", "restore the original images"),
    (".mp4", ".avi", ".mov", ".mkv", ".mpg", ".webm"): ("a video", "export its frames as PNG"),
    (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".7z", ".rar"): ("an archive", "unpack it first"),
    (".mnc", ".mnc2"): ("a MINC volume", "convert it by mnc2nii"),
    (".par", ".rec", ".xml.rec"): ("a Philips PAR/REC file", _DICOM),
    (".v", ".gipl", ".vtk", ".vti", ".brik", ".head", ".mif"): ("a volume that is not read", "convert it to NIfTI"),
    (".nia", ".nii.bz2", ".nii.zst"): ("a NIfTI file in a coding that is not read", "convert it to .nii.gz"),
    (".npy", ".npz", ".mat", ".h5", ".hdf5"): ("an array without geometry", "use Volume.from_array in Python"),
    (".raw", ".img", ".img.gz", ".zraw"): ("numbers without a header", "give them a .mhd or .hdr beside them"),
}  # fmt: skip
SUFFIXES = tuple(end for ends in _KINDS for end in ends)
_HEADERS = (".hdr", ".hdr.gz", ".mhd", ".nhdr")


def reason_for(file: Path, promised: bool = False) -> str | None:
    """Why a file of such a name is not read, with the way out; ``None`` for names that promise no image.

    ``promised`` where the name is that of an image that is read, but the content is not.
    """
    name = file.name.lower()
    if name.startswith("._") and file.with_name(file.name[2:]).exists():
        return (
            "what macOS keeps on the file beside it (AppleDouble), no image: nothing to restore" if promised else None
        )
    found = next((what for ends, what in _KINDS.items() if name.endswith(ends)), None)
    with suppress(OSError):
        if (promised or found) and not file.stat().st_size:
            return EMPTY
    if promised:
        return DAMAGED
    if found is None:
        return None
    what, way = found
    if name.endswith(".mat") and file.with_suffix(".hdr").is_file():
        return "the place of the voxels of the .hdr header beside it, as SPM keeps it: give that one"
    if what == "numbers without a header":
        stem = file.name[: -len(".img.gz" if name.endswith(".img.gz") else file.suffix)]
        header = next((stem + end for end in _HEADERS if file.with_name(stem + end).is_file()), None)
        if header is not None:
            return f"the voxels of {Path(header).suffix} header beside them: give that one"
    return f"{what}: {way}"
