"""NRRD, MetaImage and MGH, each as a :class:`~monai_sasm.io.file_format.FileFormat`, and reading and writing them."""

from __future__ import annotations

import gzip
import io
import math
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from monai_sasm.errors import RefusedError, UnreadableError
from monai_sasm.io.commit import guard_target, replacing
from monai_sasm.io.derivation import Derivation
from monai_sasm.io.entry import Entry, refuse, safe_name
from monai_sasm.io.nifti import names
from monai_sasm.io.nifti.names import sidecar_of
from monai_sasm.io.nifti.read import fill, unknown_modality
from monai_sasm.io.nifti.stored_values import (
    Decoder,
    StoredScaling,
    StoredValues,
    clipped_by,
    numbers,
    slabs,
)
from monai_sasm.io.nifti.write import record_of
from monai_sasm.io.volume import Source, Volume, files_of, thickest_axis
from monai_sasm.io.volumes.layout import Codec, Layout
from monai_sasm.types import Modality

_MAX_TAIL = 1 << 24  # bytes behind the voxels that are given back
_LEVEL = 1  # of gzip and zlib: images hardly get smaller beyond it, only slower


@dataclass(frozen=True, eq=False)
class LayoutSource(Source):
    """What the writer needs to give a file back.

    Args:
        format: name of its :class:`LayoutFormat`.
        path: the file that was read.
        layout: as its header said.
        stored: its numbers, where float32 is not enough.
        tail: what followed the voxels.
    """

    keeps_axes = True

    format: str
    path: Path
    layout: Layout
    stored: StoredValues
    tail: bytes

    @property
    def files(self) -> tuple[Path, ...]:
        """The file, and that of its voxels."""
        return tuple(dict.fromkeys((self.path, self.layout.data)))

    def result_name(self, name: str) -> str:
        """Its own name."""
        return self.path.name


class LayoutFormat:
    """One of the formats of this package.

    Args:
        codec: reads and writes its header.
    """

    is_folder = False
    read_only: tuple[str, ...] = ()

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self.name, self.suffixes = codec.NAME, codec.SUFFIXES

    def sniff(self, head: bytes) -> bool:
        """See the codec."""
        return self._codec.sniff(head)

    def inspect(self, files: Sequence[Path], modality: Modality | None) -> list[Entry]:
        """One entry per file; the file with the voxels of a header belongs to it."""
        return [self._inspect(file, modality) for file in files]

    def _inspect(self, path: Path, modality: Modality | None) -> Entry:
        known, refusal, unreadable, geometry = modality, None, False, "unknown"
        notes: tuple[str, ...] = ()
        paths: tuple[Path, ...] = (path,)
        try:
            layout = self._codec.parse(path)
            paths = tuple(dict.fromkeys((path, layout.data)))
            layout.check()
            known, notes = _modality(path, layout, None if layout.modality else modality), layout.notes
            geometry = "single" if _slice_count(layout) == 1 else "regular"
        except RefusedError as error:
            refusal, unreadable = str(error), isinstance(error, UnreadableError)
        except OSError as error:
            refusal, unreadable = f"the file cannot be read ({type(error).__name__}): check its permissions", True
        name = safe_name(names.stem(path))
        load = partial(self.read, path, known, name)
        if refusal is not None:
            load = partial(refuse, refusal, unreadable=unreadable)
        return Entry(
            name, self.name, paths, known, geometry, refusal, notes, load, None, unreadable, names.is_result(path)
        )

    def read(self, path: Path, modality: Modality | None, name: str | None = None) -> Volume:
        """Read one file; as :func:`monai_sasm.io.nifti.read.read` does.

        Raises:
            RefusedError: not an image that can be processed rightly (see the message).
        """
        layout = self._codec.parse(path)
        layout.check()
        kind = _modality(path, layout, modality)
        decoder, tail = _decode(layout)
        notes = layout.notes
        if decoder.unreadable == math.prod(layout.shape):
            raise UnreadableError("all voxels are NaN or infinite: nothing to restore")
        if decoder.unreadable:
            notes += (f"{decoder.unreadable} NaN or infinite voxels kept aside",)
        source = LayoutSource(self.name, path, layout, decoder.stored(), tail)
        array = decoder.array
        return Volume(
            array=array[None] if layout.channel is None else np.moveaxis(array, layout.channel, 0),
            modality=kind,
            affine=layout.affine,
            slice_axis=_slice_axis(layout),
            name=name or names.stem(path),
            source=source,
            geometry="single" if _slice_count(layout) == 1 else "regular",
            notes=notes,
        )

    def result_name(self, entry: Entry) -> str:
        """The name of the source, with the suffix it may lack."""
        name = entry.paths[0].name
        return name if name.lower().endswith(self.suffixes) else f"{name}{self.suffixes[0]}"

    def check_target(self, entry: Entry, path: Path) -> None:
        """No photos: they have no place in space."""
        names.check_in_space(entry.modality, path)

    def companions(self, target: Path) -> tuple[Path, ...]:
        """The sidecar, and the file with the voxels."""
        return (sidecar_of(target), *([_voxels(target)] if self._is_detached(target) else []))

    def write(
        self, volume: Volume, path: Path, derivation: Derivation, *, overwrite: bool, keep_private: bool
    ) -> list[Path]:
        """With the header and type of its own source; float32 for others. A JSON sidecar says what was done.

        These formats know no scaling: restored values beyond the ends of an integer type are clipped and counted.
        """
        if not path.name.lower().endswith(self.suffixes):
            raise ValueError(f"such a volume is written as {' or '.join(self.suffixes)}, got {path.name}")
        if not volume.is_finite:
            raise ValueError("a volume to be written must be finite, got NaN or infinite voxels; check the restoration")
        source = volume.source
        record: dict[str, Any] = {}
        if isinstance(source, LayoutSource) and source.format == self.name:
            layout, tail = source.layout, source.tail
            sources = source.files
            array = volume.array[0] if layout.channel is None else np.moveaxis(volume.array, 0, layout.channel)
            record = {"Sources": [source.path.name], "ClippedVoxels": clipped_by(array, source.stored)}
            parts: Iterable[NDArray[Any]] = numbers(array, source.stored, source.stored.scaling)
        else:
            array, layout, parts = self._exported(volume)
            tail, sources = b"", () if source is None else tuple(filter(None, [getattr(source, "path", None)]))
            record = {"Sources": [one.name for one in sources]} if sources else {}
        layout = self._packed_for(path, layout)
        for target in (path, *self.companions(path)):
            guard_target(target, overwrite=overwrite, sources=sources)
        made = partial(replacing, overwrite=overwrite, sources=files_of(volume))
        text = record_of(derivation, record)
        self._save(path, layout, parts, tail=tail, record=text, made=made)
        return [path, *self.companions(path)]

    def _exported(self, volume: Volume) -> tuple[NDArray[np.float32], Layout, Iterable[NDArray[Any]]]:
        from monai_sasm.io.nifti.export import on_nifti_axes

        array, affine = on_nifti_axes(volume.array if len(volume.array) > 1 else volume.array[0], volume)
        layout = self._codec.new(array.shape, affine)
        stored = StoredValues(layout.dtype, StoredScaling())
        return array, layout, numbers(array, stored, stored.scaling)

    def _packed_for(self, path: Path, layout: Layout) -> Layout:
        """As the source was packed; for MGH the name says it (``.mgz`` is gzip)."""
        if layout.coding == "file" or self._codec.NAME == "mgh":
            return replace(layout, coding="raw" if path.name.lower().endswith(".mgh") else "file")
        return layout

    def _is_detached(self, path: Path) -> bool:
        return path.name.lower().endswith(self._codec.DETACHED) if self._codec.DETACHED else False

    def _save(
        self,
        path: Path,
        layout: Layout,
        parts: Iterable[NDArray[Any]],
        *,
        tail: bytes,
        record: bytes,
        made: Callable[[Path], AbstractContextManager[BinaryIO]],
    ) -> None:
        apart = _voxels(path) if self._is_detached(path) else None
        named = None if apart is None else apart.name
        with ExitStack() as stack:
            beside = stack.enter_context(made(sidecar_of(path)))
            voxels = stack.enter_context(made(apart)) if apart else None
            file = stack.enter_context(made(path))
            beside.write(record)
            if layout.coding in ("gzip", "zlib"):
                packed = _packed(layout.coding, parts)
                file.write(self._codec.header(layout, len(packed), named))
                (voxels or file).write(packed)
                return
            with gzip.GzipFile("", "wb", _LEVEL, file, mtime=0) if layout.coding == "file" else _Plain(file) as stream:
                stream.write(self._codec.header(layout, layout.bytes, named))
                for part in parts:
                    (voxels or stream).write(part.tobytes(order="F"))
                if voxels is None:
                    stream.write(tail)


class _Plain:
    """A file that stays open after a block."""

    def __init__(self, file: BinaryIO) -> None:
        self.write = file.write

    def __enter__(self) -> _Plain:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def _packed(coding: str, parts: Iterable[NDArray[Any]]) -> bytes:
    """The voxels as one gzip or zlib stream; its length stands in the header, so it is made first."""
    header = {"gzip": 16, "zlib": 0}[coding]
    packer, buffer = zlib.compressobj(_LEVEL, wbits=zlib.MAX_WBITS + header), io.BytesIO()
    for part in parts:
        buffer.write(packer.compress(part.tobytes(order="F")))
    buffer.write(packer.flush())
    return buffer.getvalue()


def _voxels(target: Path) -> Path:
    return target.with_suffix(".raw")


def _modality(path: Path, layout: Layout, given: Modality | None) -> Modality:
    if given is not None and layout.modality not in (None, given):
        raise RefusedError(f"the file says that it is {layout.modality}, not {given}: leave modality='{given}' out")
    known = layout.modality or names.said_modality(path) or given
    if known is None or known.profile.is_picture:
        raise RefusedError(unknown_modality())
    return known


def _slice_axis(layout: Layout) -> int | None:
    if len(layout.spatial) < 3:
        return None
    return layout.spatial.index(1) if 1 in layout.spatial else thickest_axis(layout.affine)


def _slice_count(layout: Layout) -> int:
    axis = _slice_axis(layout)
    return 1 if axis is None else layout.spatial[axis]


def _decode(layout: Layout) -> tuple[Decoder, bytes]:
    """The voxels, slab by slab, and what follows them."""
    decoder = Decoder(layout.shape, layout.dtype, StoredScaling())
    try:
        with layout.open() as file:
            for where in slabs(layout.shape):
                raw = np.empty((*layout.shape[:2], where.stop - where.start), layout.dtype, order="F")
                fill(memoryview(raw.reshape(-1, order="F").view(np.uint8)), file)  # type: ignore[arg-type]
                decoder.take(where, raw)
            kept = layout.coding in ("raw", "file") and layout.head[:4] == b"\0\0\0\1"
            return decoder, file.read(_MAX_TAIL) if kept else b""
    except (OSError, EOFError, zlib.error) as error:
        raise UnreadableError("the voxels end early or are damaged: copy or export the file again") from error
