"""Protocol ``cifar10`` on a small labelled set, and its peer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from monai_sasm.datasets.labelled import labelled_images
from monai_sasm.evaluation.context import Context
from monai_sasm.evaluation.plain_cnn import PlainCnn, predict, train
from monai_sasm.evaluation.scoring import ResultCache
from monai_sasm.protocols import cifar10
from monai_sasm.protocols.evaluate import evaluate_in
from tests.labelled_folder import write_labelled
from tests.toy_gate import copy_bundle


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    """A tiny network that classifies by two pairs, few images and settings."""
    bundle = tmp_path / "bundles"
    copy_bundle("cifar10_diffusion", bundle)
    config = bundle / "cifar10_diffusion" / "configs" / "inference.yaml"
    text = config.read_text()
    config.write_text(text.replace("rounds: [[10, 12]]", "rounds: [[10, 2]]"))
    monkeypatch.setenv("SASM_BUNDLES", str(bundle))
    settings = {"NOISY_IMAGES": 4, "TIMES": (50,), "STEPS": (1, 2), "DENOISED_IMAGES": 3}
    for name, value in {**settings, "SIGMAS": (0.0, 0.3), "ESTIMATED": (0.0,), "CNN_EPOCHS": 1}.items():
        monkeypatch.setattr(cifar10, name, value)
    write_labelled(tmp_path / "data" / "cifar10", train=10, test=1, size=16, zipped=True)
    return Context(tmp_path / "data", tmp_path / "out", device="cpu")


@pytest.mark.slow
def test_every_row_is_measured(small: Context) -> None:
    table = evaluate_in(small, "cifar10")
    assert table.skipped is None
    ours = table.row("ours").scores[cifar10.TOP1]
    assert set(ours) == {"clean", "0.3", "passes", "all, clean"}
    assert ours["passes"] == 2
    assert all(0 <= value <= 1 for name, value in ours.items() if name != "passes")
    assert table.row("plain CNN").scores[cifar10.TOP1].keys() == ours.keys()
    assert 0.2 < table.row("t = 50").scores["noise prediction"]["MSE, label"] < 3
    assert table.row("input").scores["denoising, sigma 0.1"]["PSNR"] == pytest.approx(20, abs=1.5)
    assert table.row("ours, 2 steps").n["denoising, sigma 0.2"] == 3
    assert "zips of images" in " ".join(table.flags)
    assert all((small.output / name).is_file() for name in table.figures)
    assert len(table.figures) == 5


@pytest.mark.slow
def test_the_peer_is_trained_once(small: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    first = evaluate_in(small, "cifar10").row("plain CNN").scores
    monkeypatch.setattr("monai_sasm.evaluation.plain_cnn.train", None)
    assert evaluate_in(small, "cifar10").row("plain CNN").scores == first


def test_absent_data_are_said_to_be_absent(tmp_path: Path) -> None:
    skipped = evaluate_in(Context(tmp_path, tmp_path / "out"), "cifar10").skipped
    assert str(skipped).startswith(f"data not found: {tmp_path / 'cifar10'}; name the folder")


def test_noise_is_the_same_for_every_method_and_scales() -> None:
    images = np.full((2, 3, 8, 8), 128, np.uint8)
    low, high = (cifar10.noisy(images, sigma) - 128 / 255 for sigma in (0.1, 0.2))
    torch.testing.assert_close(high, 2 * low, atol=1e-6, rtol=0)
    assert float(low.std()) == pytest.approx(0.1, rel=0.1)


def test_the_peer_learns_and_has_as_many_parameters(tmp_path: Path) -> None:
    data = labelled_images(write_labelled(tmp_path, train=20, size=8), "train")
    network = train(data, epochs=20, shift=1)
    right = predict(network, torch.from_numpy(data.images).float() / 255).numpy() == data.labels
    assert right.mean() > 0.5, "ten colours; chance is 0.1"
    assert sum(parameter.numel() for parameter in PlainCnn().parameters()) == pytest.approx(2.59e6, rel=0.01)


def test_kept_results_of_the_peer_are_those_of_the_labels_and_noises_given(
    small: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = labelled_images(small.data / "cifar10", "test")

    def scores() -> dict[str, float]:
        cache = ResultCache(small.output / "cifar10-cnn.json")
        row = cifar10.PlainCnnPeer(data, data, data, device="cpu", cache=cache).row("plain CNN", 0.0)
        return dict(row.scores[cifar10.TOP1])

    right = data.labels.copy()
    first = scores()
    monkeypatch.setattr("monai_sasm.evaluation.plain_cnn.predict", lambda network, images: torch.from_numpy(right))
    assert scores() == first
    data.labels[:] = (right + 1) % len(data.classes)
    assert scores()["clean"] == 0.0
    monkeypatch.setattr(cifar10, "SIGMAS", (0.0, 0.1))
    assert set(scores()) == {"clean", "0.1", "passes", "all, clean"}
