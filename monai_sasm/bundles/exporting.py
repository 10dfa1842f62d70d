"""Networks of bundles as files for other runtimes, ONNX and TorchScript, compared with the original before they stay.

What is exported takes whole tensors in working scale and does nothing but the network: tiles, strength and mixing are
the caller's. The metadata in the file say what the numbers mean.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from monai_sasm.bundles.bundle import Bundle
from monai_sasm.errors import BundleError
from monai_sasm.io.commit import guard_target, replacing
from monai_sasm.optional import MissingExtraError, require

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

FORMATS = {"onnx": ".onnx", "torchscript": ".ts"}
NOISE = "noise_estimator"
"""Name under which the noise estimator is exported, which belongs to no bundle."""
TOLERANCE = 1e-5  # largest difference from the original, working scale; where that exceeds 1, of its largest value
_OPSET = 18
_EXAMPLE, _OTHER = (5, 6), (4, 7)  # sides in multiples of LEAST: what is recorded, and what it is compared on, too
LEAST = 32  # what sides are multiples of, for gates and networks that do not say their ``multiple``
_SHORTEST = 4 * LEAST  # sides below are not exported: the noise estimate would look at fewer blocks there
_INSTALL = "pip install 'monai-sasm[export]'"


def export(bundle: Bundle, path: Path, *, kind: str = "onnx", overwrite: bool = False) -> dict[str, Any]:
    """Write the network of an expert or a gate to a file; it appears only if it gives what the network gives.

    ========  ==============================================================================
    expert    ``(image (B, C, H, W), sigma (B, 1, H, W)) -> restored (B, C, H, W)``, working scale
    gate      ``(image (B, 3, H, W), sigma (B, 1, H, W)) -> logits (B, E, H/8, W/8)``, display range
    ========  ==============================================================================

    ``B`` is any; ``H`` and ``W`` are any multiple of ``multiple``, at least ``shortest``, see the metadata. ``sigma``
    is there also where the network is not told the noise. ``C`` of a network with neighbours is ``2 n + 1``: the slice
    between those before and after it.

    Args:
        bundle: float32, on the CPU.
        path: of the new file.
        kind: one of :data:`FORMATS`.
        overwrite: replace it if it is there.

    Returns:
        The metadata, as they are in the file under ``sasm``, and ``difference``, the largest from the original.

    Raises:
        BundleError: the network is no regression, cannot be exported, or differs afterwards.
        FileExistsError: the file is there already.
        MissingExtraError: ONNX or its runtime is not installed.
    """
    import torch

    if bundle.role not in ("expert", "gate"):
        raise BundleError(f"{bundle.name} is a {bundle.role}; experts and gates are exported")
    if hasattr(bundle.network, "seed"):
        raise BundleError(
            f"{bundle.name} samples, it begins with random numbers that no graph can hold; export a regression expert"
        )
    network: Any = bundle.network
    gate = bundle.role == "gate"
    channels = 3 if gate else cast(Any, bundle.modality).profile.channels * (2 * bundle.neighbours + 1)
    multiple = LEAST if gate else int(getattr(network, "multiple", LEAST))
    shortest = multiple * -(-_SHORTEST // multiple)
    facts = {
        "name": bundle.name,
        "version": bundle.version,
        "weights_sha256": bundle.sha256,
        "role": bundle.role,
        "channels": channels,
        "multiple": multiple,
        "shortest": shortest,
    }
    if gate:
        facts |= {"classes": list(network.classes), "temperature": bundle.metadata["sasm"].get("temperature", 1.0)}
    else:
        profile = cast(Any, bundle.modality).profile
        facts |= {
            "modality": profile.name,
            "scale": profile.scale if profile.percentile is None else f"percentile {profile.percentile}",
            "noise_map": bundle.noise_map,
            "neighbours": bundle.neighbours,
        }
        blank = torch.zeros(1, channels, shortest, shortest)
        bundle.restore(blank, blank[:, :1] + 0.05)  # what gives back no image is not exported as one that does
    wrapped = _wrapped(network, gate or bundle.noise_map)
    return _export(wrapped, facts, path, kind=kind, outputs="logits" if gate else "restored", overwrite=overwrite)


def export_noise_estimator(path: Path, *, kind: str = "onnx", overwrite: bool = False) -> dict[str, Any]:
    """Write the noise estimator, ``image (B, C, H, W) -> sigma (B, 1, H, W)``, like :func:`export`; any ``C``."""
    from monai_sasm.functional.noise import NoiseEstimator

    facts = {"name": NOISE, "role": "noise", "channels": None, "multiple": LEAST, "shortest": _SHORTEST}
    return _export(NoiseEstimator().eval(), facts, path, kind=kind, outputs="sigma", overwrite=overwrite)


def _export(
    network: nn.Module, facts: dict[str, Any], path: Path, *, kind: str, outputs: str, overwrite: bool
) -> dict[str, Any]:
    if kind not in FORMATS:
        raise ValueError(f"kind must be one of {tuple(FORMATS)}, got {kind!r}")
    guard_target(path, overwrite=overwrite)
    inputs = ["image"] if facts["role"] == "noise" else ["image", "sigma"]
    with _quiet(), replacing(path, overwrite=overwrite) as file:
        writing = _onnx if kind == "onnx" else _torchscript
        try:
            exported, run = writing(network, _example(facts, _EXAMPLE), facts, inputs=inputs, outputs=outputs)
        except MissingExtraError:
            raise
        except Exception as error:  # whatever the recorders say of a network of somebody else's
            raise BundleError(
                f"{facts['name']} cannot be exported as {kind} ({type(error).__name__}): {str(error)[:300]}"
            ) from error
        sizes = (_EXAMPLE, _OTHER)
        difference = max(_difference(network, run, _example(facts, size)) for size in sizes)
        if not difference <= TOLERANCE:
            raise BundleError(
                f"{facts['name']} as {kind} differs from the original by {difference:.2g}, more than {TOLERANCE:g}; "
                "nothing was written"
            )
        file.write(exported)
    return facts | {"difference": difference}


def _wrapped(network: nn.Module, noise_map: bool) -> nn.Module:
    from torch import nn

    class WithNoise(nn.Module):
        """``(image, sigma) -> image`` of a network that may not be told the noise."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, image: Tensor, sigma: Tensor) -> Tensor:
            result: Tensor = self.network(image, sigma) if noise_map else self.network(image)
            return result

    return WithNoise().eval()


def _example(facts: dict[str, Any], size: tuple[int, int]) -> tuple[Tensor, ...]:
    """Smooth images whose k-space ends early, with some noise, and their noise map; two of them."""
    import torch
    import torch.nn.functional as F

    height, width = (side * facts["multiple"] * -(-LEAST // facts["multiple"]) for side in size)
    draw = torch.Generator().manual_seed(height)
    coarse = torch.rand((2, facts["channels"] or 3, height // 16, width // 16), generator=draw)
    smooth = F.interpolate(coarse, size=(height, width), mode="bicubic")
    noisy = smooth + 0.03 * torch.randn(smooth.shape, generator=draw) * torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)
    sigma = torch.rand((2, 1, height // 32, width // 32), generator=draw).mul(0.1)
    maps = () if facts["role"] == "noise" else (F.interpolate(sigma, size=(height, width), mode="bilinear"),)
    return (noisy, *maps)


def _onnx(
    network: nn.Module, example: tuple[Tensor, ...], facts: dict[str, Any], *, inputs: list[str], outputs: str
) -> tuple[bytes, Callable[..., Tensor]]:
    import torch

    require("onnxscript", "the export to ONNX", _INSTALL)
    runtime: Any = require("onnxruntime", "the comparison of an ONNX file with its network", _INSTALL)
    multiple = facts["multiple"]
    batch = torch.export.Dim("batch")
    height, width = (torch.export.Dim(name, min=facts["shortest"] // multiple) for name in ("rows", "columns"))
    axes: dict[int, Any] = {
        0: batch,
        2: height if multiple == 1 else multiple * height,
        3: width if multiple == 1 else multiple * width,
    }
    if facts["channels"] is None:
        axes[1] = torch.export.Dim("channels")
    program = torch.onnx.export(
        network,
        example,
        dynamo=True,
        input_names=inputs,
        output_names=[outputs],
        dynamic_shapes=tuple(dict(axes) for _ in inputs),
        opset_version=_OPSET,
        verbose=False,
    )
    assert program is not None  # with dynamo
    program.model.metadata_props["sasm"] = json.dumps(facts)
    exported: bytes = program.model_proto.SerializeToString()
    session = runtime.InferenceSession(exported, providers=["CPUExecutionProvider"])

    def run(*images: Tensor) -> Tensor:
        given = {name: image.numpy() for name, image in zip(inputs, images, strict=True)}
        return torch.from_numpy(session.run(None, given)[0])

    return exported, run


def _torchscript(
    network: nn.Module, example: tuple[Tensor, ...], facts: dict[str, Any], *, inputs: list[str], outputs: str
) -> tuple[bytes, Callable[..., Tensor]]:
    from io import BytesIO

    import torch

    traced: Any = torch.jit.trace(network, example, check_trace=False)
    file = BytesIO()
    torch.jit.save(traced, file, _extra_files={"sasm.json": json.dumps(facts | {"inputs": inputs, "output": outputs})})
    exported = file.getvalue()
    again: Any = torch.jit.load(BytesIO(exported), map_location="cpu")
    return exported, cast("Callable[..., Tensor]", again)


def _difference(network: nn.Module, run: Callable[..., Tensor], images: tuple[Tensor, ...]) -> float:
    import torch

    with torch.inference_mode():
        original = network(*images)
        return float((original - run(*images)).abs().max() / original.abs().max().clamp_min(1))


@contextmanager
def _quiet() -> Iterator[None]:
    """Recorders tell of every step and of what they deprecate."""
    loud = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "torch._guards")]
    levels = [one.level for one in loud]
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        for one in loud:
            one.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for one, level in zip(loud, levels, strict=True):
                one.setLevel(level)
