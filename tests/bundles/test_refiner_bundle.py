"""The flow refiner's bundle: its configs train, resume, evaluate and refine files; its weights keep their promise."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from monai.bundle import ConfigWorkflow, run

from monai_sasm.bundles import load as load_bundle
from monai_sasm.diffusion.pinning import lowpass
from monai_sasm.evaluation.metrics import psnr
from tests.bundle_cases import ROOT, clean_image, degraded_image, load, paired_folder, save
from tests.bundles.test_bundles import identity_copy, weights_of

BUNDLE = ROOT / "bundles" / "refine_photo_flow"
TINY = {
    "unet::network::channels": [8, 8],
    "perceptual": 0.0,  # VGG19 need not be there
    "crops_per_epoch": 32,
    "batch_size": 8,
    "crop_size": 32,
    "val_limit": 2,
    "max_epochs": 1,
    "checkpoint_interval": 1,
    "val_interval": 1,
    "precision": "float32",
    "minutes": None,
}
SMALL = {"validate::dataset::size": 64}


def workflow(data: Path, output: Path, *overlays: str, **overrides: Any) -> ConfigWorkflow:
    files = [str(BUNDLE / "configs" / name) for name in ("train.yaml", *overlays)]
    settings = {**TINY, "dataset_dir": str(data), "output_dir": str(output), **overrides}
    started = ConfigWorkflow(config_file=files, workflow_type="train", **settings)
    started.initialize()
    return started


@pytest.mark.parametrize("overlay", ["train_cpu.yaml", "train_gpu.yaml", "evaluate.yaml", "multi_gpu_train.yaml"])
def test_overlay_changes_what_is_there(overlay: str) -> None:
    base, changes = (yaml.safe_load((BUNDLE / "configs" / name).read_text()) for name in ("train.yaml", overlay))
    for key in changes.keys() - {"finalize", "weights", "validate::evaluator::weights"}:
        *parents, last = key.split("::")
        part = base
        for parent in parents:
            part = part[parent]
        assert last in part, key


def test_training_learns_on_own_pairs_and_resumes(tmp_path: Path) -> None:
    data = paired_folder(tmp_path, "PHOTO", "noise")
    settings = {"lr": 0.003, "max_epochs": 3, "crops_per_epoch": 64, **SMALL}
    training = workflow(data, tmp_path / "run", "train_cpu.yaml", **settings)
    assert training.check_properties() == []
    get = training.parser.get_parsed_content
    assert get("paired") is True
    x, clean, arguments, _ = get("train::prepare")(next(iter(get("train::dataloader"))), "cpu")

    def loss() -> float:
        with torch.no_grad():
            return float(get("loss")(get("network").estimate(x, *arguments), clean))

    before = loss()
    training.run()
    assert loss() < 0.9 * before
    assert get("validate::evaluator").state.metrics["val_psnr"] > 0
    exported = torch.load(tmp_path / "run" / "model.pt", weights_only=True)
    assert exported.keys() == get("network").state_dict().keys()
    further = workflow(data, tmp_path / "run", "train_cpu.yaml", **{**settings, "max_epochs": 4, "resume": True})
    further.run()
    trainer = further.parser.get_parsed_content("train::trainer")
    assert (trainer.state.epoch, trainer.state.iteration) == (4, 32)


def test_photos_are_degraded_and_restored_first(tmp_path: Path) -> None:
    for split in ("train", "val"):
        save(clean_image("PHOTO"), "PHOTO", tmp_path / split / "clean")
    training = workflow(tmp_path, tmp_path / "run", pipeline="$torch.nn.Identity()", draws=3, **SMALL)
    training.run()
    triples = training.parser.get_parsed_content("train::images")
    assert len(triples) == 3
    for clean, restored, source in triples:
        assert not np.array_equal(clean, restored)
        assert np.abs(restored - 255 * source.astype(float).clip(0, 1)).max() < 0.7, "nothing was restored"
    assert (tmp_path / "run" / "restored_train.npz").is_file()
    assert (tmp_path / "run" / "model.pt").is_file()


def test_evaluation_of_a_refiner_that_changes_nothing_shows_the_restored_photos(tmp_path: Path) -> None:
    data = paired_folder(tmp_path, "PHOTO", "noise")
    overrides = {"weights": str(tmp_path / "model.pt"), "network_def::zero_init": True}
    evaluation = workflow(data, tmp_path / "result", "evaluate.yaml", **overrides)
    get = evaluation.parser.get_parsed_content
    torch.save(get("network_def").state_dict(), tmp_path / "model.pt")
    evaluation.run()
    with open(tmp_path / "result" / "metrics.csv") as file:
        table = {row[0]: float(row[1]) for row in csv.reader(file) if len(row) == 2}
    clean, noisy = get("validate::images")[0]
    assert table["val_psnr"] == pytest.approx(psnr(clean, noisy, 1.0), abs=0.01)
    assert 0 < table["val_ssim"] < 1


def test_inference_keeps_everything_but_the_pixels(tmp_path: Path) -> None:
    source = save(clean_image("PHOTO"), "PHOTO", tmp_path / "in")
    bundle = identity_copy(BUNDLE, tmp_path)
    config = str(bundle / "configs" / "inference.yaml")
    run(config_file=config, bundle_root=str(bundle), dataset_dir=str(source), output_dir=str(tmp_path / "out"))
    np.testing.assert_array_equal(load(tmp_path / "out" / source.name), load(source))


def test_trained_weights_sharpen_within_bounds() -> None:
    """On a photo restored by the denoiser: more texture, hardly less PSNR, coarse structure where it was."""
    assert weights_of(BUNDLE).stat().st_size <= 1e6
    clean = clean_image("PHOTO")
    noisy = torch.from_numpy(degraded_image("PHOTO", "noise", clean))[None]
    anchor = load_bundle("noise_photo_unet").restore(noisy)
    refined = load_bundle("refine_photo_flow").restore(anchor)
    before, after = (psnr(clean, image[0].numpy(), 1.0) for image in (anchor, refined))
    assert after > before - 0.3
    assert float((refined - anchor).abs().mean()) > 0.01 / 255  # the first weights change little
    assert float(lowpass(refined - anchor, 16.0).abs().max()) < 1 / 255


def test_any_size_at_full_width() -> None:
    weights_of(BUNDLE)
    network = load_bundle("refine_photo_flow").network
    for size in ((1, 1), (37, 5), (64, 81)):
        assert network(torch.rand(1, 3, *size)).shape == (1, 3, *size)
