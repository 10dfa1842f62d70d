"""Build the page that restores images in the browser's tab alone: a folder for any static web host.

    python scripts/build_demo.py [-o docs/demo]

The page is that of ``sasm view``; what its server does there, workers in the tab do here, by ONNX graphs of the gate
and of the experts that it calls. The runtime, onnxruntime-web, comes from the npm registry.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monai_sasm import __version__, bundles
from monai_sasm.bundles import Bundle
from monai_sasm.cli.demo import samples
from monai_sasm.functional.noise import NoiseEstimator
from monai_sasm.functional.tiling import pad_to_multiple
from monai_sasm.functional.uniform_tissue import uniform_rule
from monai_sasm.gate.mobilenet import COARSEST, STRIDE
from monai_sasm.gate.occupied import FLAT, FLAT_PICTURE, flat_whole
from monai_sasm.gate.routing import block_weights, with_identity
from monai_sasm.io.meaning import IMAGE_TYPES
from monai_sasm.restoration.restore import WEIGHT_FLOOR
from monai_sasm.types import Modality
from monai_sasm.view.server import STATIC

CHECKOUT = Path(__file__).resolve().parents[1]
PAGE = Path(__file__).parent / "demo"
LARGEST = 25_000_000  # bytes of all that is written
LIBRARIES = {  # npm package -> sha512 of its archive, file -> name here
    "onnxruntime-web@1.30.0": (
        "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
        {
            "dist/ort.webgpu.bundle.min.mjs": "ort.webgpu.bundle.min.mjs",
            "dist/ort-wasm-simd-threaded.asyncify.wasm": "ort-wasm-simd-threaded.asyncify.wasm.packed",
        },
    ),
    "dicom-parser@1.8.21": (
        "lYCweHQDsC8UFpXErPlg86Px2A8bay0HiUY+wzoG3xv5GzgqVHU3lziwSc/Gzn7VV7y2KeP072SzCviuOoU02w==",
        {"dist/dicomParser.min.js": "dicomParser.js", "LICENSE": "dicomParser.LICENSE"},
    ),
}
TOLERANCE = 1e-5
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'; "
    "style-src 'self'; img-src 'self' data: blob:; font-src 'self' data:; base-uri 'none'; form-action 'none'"
)
_OPSET = 18
_EXAMPLE, _OTHERS = (83, 114), ((160, 96), (77, 141), (128, 128))  # sides, pixels: of no multiple, and others


class Looking(nn.Module):
    """``(image (1, C, H, W), low, span, allowed (E)) -> noise map (1, 1, H, W), weights of blocks (1, E, h, w)``.

    Image and noise in working scale; ``low`` and ``span`` are of the window that the gate looks through.
    """

    def __init__(self, gate: Bundle) -> None:
        super().__init__()
        self.noise, self.gate = NoiseEstimator(), gate.network
        self.temperature = gate.metadata["sasm"].get("temperature", 1.0)

    def forward(self, image: Tensor, low: Tensor, span: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
        sigma = self.noise(image)
        shown = ((image - low) / span).clamp(0, 1).expand(-1, 3, -1, -1)
        logits = self.gate(pad_to_multiple(shown, COARSEST), pad_to_multiple(sigma / span, COARSEST))
        rows, columns = ((side + STRIDE - 1) // STRIDE for side in image.shape[-2:])
        allowed_only = logits[..., :rows, :columns] + torch.log(allowed).view(1, -1, 1, 1)  # log(0) forbids
        return sigma, block_weights(allowed_only, None, self.temperature)


class Weighing(nn.Module):
    """``(weights of blocks (1, E, h, w), image (1, C, H, W), there (1, 1, H, W)) -> weights (1, E, H, W)``.

    ``there`` is 0 in the air around a body; where else nothing is, is found here.
    """

    def __init__(self, picture: bool) -> None:
        super().__init__()
        self.side = FLAT_PICTURE if picture else FLAT

    def forward(self, blocks: Tensor, image: Tensor, there: Tensor) -> Tensor:
        seen = there * (~flat_whole(image, self.side)).to(image.dtype)
        large = F.interpolate(blocks[:, 1:], scale_factor=STRIDE, mode="bilinear", align_corners=False)
        acting = (large[..., : image.shape[-2], : image.shape[-1]] - WEIGHT_FLOOR).clamp_min(0) / (1 - WEIGHT_FLOOR)
        return with_identity(acting * seen)  # as gate/routing.py, without loops that a record freezes


class Expert(nn.Module):
    """``(image (1, C, H, W), sigma (1, 1, H, W)) -> restored (1, C, H, W)``, working scale, sides of any length; the
    image of an expert with neighbours is ``(1, 2 n + 1, H, W)``."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        self.network, self.noise_map = bundle.network, bundle.noise_map

    def forward(self, image: Tensor, sigma: Tensor) -> Tensor:
        result: Tensor = self.network(image, sigma) if self.noise_map else self.network(image)
        return result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=CHECKOUT / "docs" / "demo")
    options = parser.parse_args()
    size = build(options.output)
    print(f"{options.output}: {size / 1e6:.1f} MB")


def build(output: Path) -> int:
    """Write the folder anew; its size in bytes.

    Raises:
        ValueError: a graph does not give what its network gives, or all is larger than :data:`LARGEST`.
    """
    if output.exists() and not _is_page(output):
        raise ValueError(f"{output} is there and is no such page; choose another folder")
    shutil.rmtree(output, ignore_errors=True)
    shutil.copytree(STATIC, output)
    for source in PAGE.glob("*.js"):
        shutil.copy(source, output)
    (output / "index.html").write_text(page((STATIC / "index.html").read_text(encoding="utf-8")), encoding="utf-8")
    (output / "_headers").write_text(  # of hosts that know this file; threads need the last two
        f"/*\n  Content-Security-Policy: {POLICY}\n  Cross-Origin-Opener-Policy: same-origin\n"
        "  Cross-Origin-Embedder-Policy: require-corp\n",
        encoding="utf-8",
    )
    for name in ("vendor/niivue.umd.js", "vendor/niivue.LICENSE"):  # three planes are not shown there
        (output / name).unlink()
    add_libraries(output / "vendor")
    manifest = add_graphs(output / "models")
    manifest["samples"] = add_samples(output / "samples")
    (output / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    if size > LARGEST:
        raise ValueError(f"the page has {size} bytes, more than {LARGEST}")
    return size


def _is_page(folder: Path) -> bool:
    """Whether a folder was written by :func:`build`: many have a ``manifest.json``."""
    try:
        return {"experts", "samples"} <= set(json.loads((folder / "manifest.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return False


def page(html: str) -> str:
    """The viewer's page for any folder of a host, under a policy of its own."""
    policy = f'<meta http-equiv="content-security-policy" content="{POLICY}">'
    html = html.replace('<meta charset="utf-8">', f'<meta charset="utf-8">\n  {policy}', 1)
    html = html.replace('<html lang="en">', '<html lang="en" class="tab">', 1)
    return re.sub(r"sasm view(?=</)", "monai_sasm in the tab", html.replace('"/static/', '"'))


def add_libraries(folder: Path) -> None:
    """Runtime and DICOM parser from the npm registry, checked, with their licences; WebAssembly is packed."""
    for package, (digest, names) in LIBRARIES.items():
        with tempfile.TemporaryDirectory() as place:
            command = ["npm", "pack", package, "--silent", "--pack-destination", place]
            subprocess.run(command, check=True, capture_output=True, cwd=place)
            (archive,) = Path(place).glob("*.tgz")
            content = archive.read_bytes()
        if base64.b64encode(hashlib.sha512(content).digest()).decode() != digest:
            raise ValueError(f"the registry's {package} is not the one that was tested")
        with tarfile.open(fileobj=io.BytesIO(content)) as opened:
            for name, target in names.items():
                member = opened.extractfile(f"package/{name}")
                assert member is not None
                data = member.read()
                if target == "dicomParser.js":  # as a module
                    data = (
                        b"const exports={},module={exports},require=()=>null;\n"
                        + data
                        + b"\nexport default module.exports;\n"
                    )
                (folder / target).write_bytes(gzip.compress(data, 9, mtime=0) if target.endswith(".packed") else data)
    shutil.copy(PAGE / "onnxruntime.LICENSE", folder)


def add_graphs(folder: Path) -> dict[str, Any]:
    """Write the graphs, compared with their networks; what the page must know of them."""
    folder.mkdir()
    gate = bundles.load("gate_mobilenet")
    classes = list(bundles.gate_classes(gate.root))
    looking: tuple[Any, ...] = (torch.tensor(-0.2), torch.tensor(0.5), torch.ones(len(classes)))
    _write(folder / "look", Looking(gate), ("image", "low", "span", "allowed"), ("sigma", "blocks"), rest=looking)
    for picture in (False, True):
        name = "weigh-picture" if picture else "weigh"
        _write(folder / name, Weighing(picture), ("blocks", "image", "there"), ("weights",), classes=len(classes))
    experts: dict[str, Any] = {}
    for name in classes[1:]:
        bundle = bundles.load(name)
        if bundle.modality is None:
            raise ValueError(f"{name} is for no modality of its own, which the page does not know")
        channels = bundle.modality.profile.channels * (2 * bundle.neighbours + 1)
        _write(folder / name, Expert(bundle), ("image", "sigma"), ("restored",), channels=channels)
        allowed = bundle.metadata["sasm"].get("range", {})
        experts[name] = {
            "modality": bundle.modality.value,
            "range": allowed,
            "sha256": bundle.sha256,
            "neighbours": bundle.neighbours,
        }
    return {
        "version": __version__,
        "classes": classes,
        "experts": experts,
        "meanings": {one.value: IMAGE_TYPES[one] for one in (Modality.CT, Modality.MR)},
        "profiles": {one.value: _profile(one) for one in (Modality.CT, Modality.MR, Modality.PHOTO)},
    }


def _profile(modality: Modality) -> dict[str, Any]:
    profile = modality.profile
    names = ("scale", "percentile", "window", "tissue", "air", "passes", "channels", "trained", "nonnegative", "unit")
    facts = {name: getattr(profile, name) for name in names}
    return facts | {"picture": profile.is_picture, "uniform": uniform_rule(profile)}


def _write(
    path: Path,
    module: nn.Module,
    inputs: Sequence[str],
    outputs: Sequence[str],
    *,
    rest: tuple[Tensor, ...] = (),
    channels: int = 1,
    classes: int = 0,
) -> None:
    """Record a module and compare the graph with it at sizes that it was not recorded at; packed."""
    import onnxruntime

    module.eval()

    def example(size: tuple[int, int]) -> tuple[Tensor, ...]:
        image, sigma = _images(channels, size)
        if classes:
            blocks = torch.rand((1, classes, *(-(-side // STRIDE) for side in size))).softmax(1)
            return blocks, image, torch.ones_like(sigma)
        return (image, *rest) if rest else (image, sigma)

    content = _recorded(module, example(_EXAMPLE), inputs, outputs)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    known = {one.name for one in session.get_inputs()}
    for size in (_EXAMPLE, *_OTHERS):
        images = example(size)
        given = {name: image.numpy() for name, image in zip(inputs, images, strict=True) if name in known}
        with torch.inference_mode():
            wanted = module(*images)
        for one, other in zip(
            wanted if isinstance(wanted, tuple) else (wanted,), session.run(None, given), strict=True
        ):
            difference = float((one - torch.from_numpy(other)).abs().max())
            if not difference <= TOLERANCE:
                raise ValueError(f"{path.name} at {size} differs from its network by {difference:.2g}")
    path.with_suffix(".onnx.packed").write_bytes(gzip.compress(content, 9, mtime=0))


def _images(channels: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """A noisy image with a square of one value, and a noise map."""
    draw = torch.Generator().manual_seed(size[0])
    image = torch.rand((1, channels, *size), generator=draw) * 0.2
    image[..., 10:52, 10:52] = 0.125
    return image, torch.full((1, 1, *size), 0.03)


def _recorded(module: nn.Module, example: tuple[Tensor, ...], inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    """A graph with sides of any length by tracing, which folds nothing into the weights: those of our bundles are in
    half precision, and so is what the graph keeps; it computes in float32.
    """
    import onnx

    file: Any = io.BytesIO()
    axes = {
        name: {0: "one", 1: f"{name}_c", 2: f"{name}_h", 3: f"{name}_w"}
        for name, one in zip(inputs, example, strict=True)
        if one.ndim == 4
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is recorded for one size: _write compares others
        torch.onnx.export(
            module, example, file, dynamo=False, input_names=list(inputs), output_names=list(outputs),
            dynamic_axes=axes, opset_version=_OPSET, do_constant_folding=False,
        )  # fmt: skip
    model = onnx.load_from_string(file.getvalue())
    graph, nodes = model.graph, []
    for weight in graph.initializer:
        values, name = onnx.numpy_helper.to_array(weight), weight.name
        if values.dtype == np.float32 and values.size > 64 and (values.astype(np.float16) == values).all():
            weight.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
            nodes.append(onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=onnx.TensorProto.FLOAT))
    for node in graph.node:  # the runtime in browsers knows no double precision
        for attribute in node.attribute:
            if attribute.HasField("t") and attribute.t.data_type == onnx.TensorProto.DOUBLE:
                single = onnx.numpy_helper.to_array(attribute.t).astype(np.float32)
                attribute.t.CopyFrom(onnx.numpy_helper.from_array(single))
    nodes += list(graph.node)
    del graph.node[:]
    graph.node.extend(nodes)
    content: bytes = model.SerializeToString()
    return content


def add_samples(folder: Path) -> list[str]:
    """The images of ``make demo``, which the page offers to look at."""
    folder.mkdir()
    with tempfile.TemporaryDirectory() as place:
        for part in ("truth", "input"):
            (Path(place) / part).mkdir()
        for sample in samples(Path(place)):
            source = sample.source
            (file,) = source.iterdir() if source.is_dir() else [source]
            shutil.copy(file, folder / f"{source.name}.dcm" if source.is_dir() else folder)
    return sorted(path.name for path in folder.iterdir())


if __name__ == "__main__":
    main()
