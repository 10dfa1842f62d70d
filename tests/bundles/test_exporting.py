"""What is exported gives what the network gives, at every size; what cannot be exported is refused with the reason."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typer.testing import CliRunner

from monai_sasm import bundles
from monai_sasm.bundles import Bundle
from monai_sasm.bundles.exporting import NOISE, TOLERANCE, export, export_noise_estimator
from monai_sasm.cli.main import app
from monai_sasm.errors import BundleError
from monai_sasm.functional.noise import NoiseEstimator

onnxruntime = pytest.importorskip("onnxruntime")

EXPERTS = sorted(
    name
    for name, root in bundles.available().items()
    if bundles.read_metadata(root)["sasm"]["role"] == "expert" and name.split("_")[-1] in ("unet", "esrgan")
)


def images(channels: int, height: int, width: int, cutoff: float = 1.0) -> Tensor:
    """Two noisy images; of their k-space the central share ``cutoff`` along each axis is kept."""
    from monai_sasm.degradations.kspace import to_image, to_kspace

    draw = torch.Generator().manual_seed(height)
    smooth = F.interpolate(torch.rand((2, channels, height // 8, width // 8), generator=draw), size=(height, width))
    noisy = smooth + 0.02 * torch.randn(smooth.shape, generator=draw)
    rows, columns = ((torch.arange(side) - side // 2).abs() <= cutoff * side / 2 for side in (height, width))
    return to_image(to_kspace(noisy) * rows[:, None] * columns).real if cutoff < 1 else noisy


def run_onnx(path: Path, **inputs: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {name: value.numpy() for name, value in inputs.items()})[0])


def compared(bundle: Bundle, path: Path, kind: str, channels: int, cutoff: float) -> float:
    """Largest difference at a size that was never recorded, with one image at a time."""
    image = images(channels, 192, 256, cutoff)[:1]
    sigma = torch.full((1, 1, 192, 256), 0.04)
    sigma[..., 100:] = 0.01
    with torch.inference_mode():
        original = bundle.network(image, *((sigma,) if bundle.noise_map else ()))
        ours = run_onnx(path, image=image, sigma=sigma) if kind == "onnx" else torch.jit.load(path)(image, sigma)
    assert float((original - image[:, channels // 2 : channels // 2 + 1]).abs().max()) > 1e-3  # it does something
    return float((original - ours).abs().max())


@pytest.mark.parametrize("name", EXPERTS)
def test_every_regression_expert_is_exported_as_torchscript(name: str, tmp_path: Path) -> None:
    bundle = bundles.load(name)
    facts = export(bundle, tmp_path / "net.ts", kind="torchscript")
    for cutoff in (1.0, 0.5):
        assert compared(bundle, tmp_path / "net.ts", "torchscript", facts["channels"], cutoff) <= TOLERANCE
    kept = {"sasm.json": ""}
    torch.jit.load(tmp_path / "net.ts", _extra_files=kept)
    assert json.loads(kept["sasm.json"])["weights_sha256"] == bundle.sha256


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERTS)
def test_every_regression_expert_is_exported_as_onnx(name: str, tmp_path: Path) -> None:
    import onnx

    bundle = bundles.load(name)
    facts = export(bundle, tmp_path / "net.onnx")
    for cutoff in (1.0, 0.5):
        assert compared(bundle, tmp_path / "net.onnx", "onnx", facts["channels"], cutoff) <= TOLERANCE
    model = onnx.load(tmp_path / "net.onnx")
    assert [one.name for one in model.graph.input] == ["image", "sigma"]
    assert json.loads(model.metadata_props[0].value)["weights_sha256"] == bundle.sha256


def test_the_command_writes_an_expert_as_onnx(tmp_path: Path) -> None:
    target = tmp_path / "ct.onnx"
    result = CliRunner().invoke(app, ["bundles", "export", "lowdose_ct_unet", "-o", str(target), "--json"])
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert (facts["modality"], facts["scale"], facts["multiple"], facts["channels"]) == ("CT", 1000.0, 16, 1)
    assert compared(bundles.load("lowdose_ct_unet"), target, "onnx", 1, 1.0) <= TOLERANCE
    again = CliRunner().invoke(app, ["bundles", "export", "lowdose_ct_unet", "-o", str(target)])
    assert again.exit_code == 2
    assert "--overwrite" in again.output


@pytest.mark.slow
def test_the_gate_and_the_noise_estimate_are_exported_as_onnx(tmp_path: Path) -> None:
    gate = bundles.load("gate_mobilenet")
    facts = export(gate, tmp_path / "gate.onnx")
    export_noise_estimator(tmp_path / "noise.onnx")
    image = images(3, 160, 288)
    sigma = run_onnx(tmp_path / "noise.onnx", image=image)
    torch.testing.assert_close(sigma, NoiseEstimator()(image), atol=1e-6, rtol=0)
    with torch.inference_mode():
        logits = gate.network(image, sigma)
    ours = run_onnx(tmp_path / "gate.onnx", image=image, sigma=sigma)
    assert float((logits - ours).abs().max()) <= TOLERANCE * float(logits.abs().max())
    assert facts["classes"][0] == "clean"


def toy(network: nn.Module, **facts: Any) -> Bundle:
    bundle = bundles.load("raindrop_photo_unet")
    return replace(bundle, name="toy", network=network.eval(), **facts)


class Shifted(nn.Module):
    """Adds the row count of the image it was recorded with: what a record must not keep."""

    def forward(self, image: Tensor) -> Tensor:
        return image + float(np.full((), image.shape[-2])) * torch.arange(image.shape[-2])[:, None] / 1e3


class Late(nn.Module):
    multiple = 1

    def forward(self, image: Tensor) -> Tensor:
        return image + 0.1 * int(image.shape[-2] > 150)


@pytest.mark.parametrize("network", [Shifted(), Late()])
def test_what_differs_or_fails_leaves_no_file(network: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="toy"):
        export(toy(network), tmp_path / "net.ts", kind="torchscript")
    assert not list(tmp_path.iterdir())


def test_what_samples_and_what_restores_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="samples"):
        export(bundles.load("lowdose_ct_dit"), tmp_path / "net.onnx")
    with pytest.raises(BundleError, match="is a segmenter"):
        export(bundles.load("segment_cardiac_unet"), tmp_path / "net.onnx")
    with pytest.raises(ValueError, match="kind must be one of"):
        export_noise_estimator(tmp_path / "net.pth", kind="pth")


def test_monai_traces_what_the_network_does_and_refuses_to_compile(tmp_path: Path) -> None:
    """At the size that was recorded, and at others; that of a sampler is refused."""
    from monai.bundle import ckpt_export

    root = bundles.available()["lowdose_ct_unet"]
    given = {
        "config_file": str(root / "configs" / "inference.yaml"),
        "bundle_root": str(root),
        "net_id": "network_def",
        "filepath": str(tmp_path / "net.ts"),
    }
    ckpt_export(use_trace=True, input_shape=[1, 1, 128, 128], **given)
    network, traced = bundles.load("lowdose_ct_unet").network, torch.jit.load(tmp_path / "net.ts")
    for size in ((128, 128), (256, 192)):
        image = images(1, *size)
        with torch.inference_mode():
            assert float((network(image) - traced(image)).abs().max()) <= TOLERANCE
    with pytest.raises(NotImplementedError, match="use_trace"):
        ckpt_export(**given)
    with pytest.raises(ValueError, match="at least 67 pixels"):  # fewer blocks would be kept for larger images, too
        ckpt_export(use_trace=True, input_shape=[1, 1, 64, 64], **given)
    with pytest.raises(NotImplementedError, match="begins with noise"):
        torch.jit.trace(bundles.load("lowdose_ct_dit").network, torch.rand(1, 1, 96, 96))


def test_the_noise_estimate_is_the_same_where_it_is_recorded(tmp_path: Path) -> None:
    """NumPy's partition here, a sort there: equal to the last bit."""
    image = images(3, 160, 192)
    traced = torch.jit.trace(NoiseEstimator().eval(), (images(3, 96, 96),), check_trace=False)
    assert torch.equal(traced(image), NoiseEstimator()(image))
    assert NOISE == "noise_estimator"
