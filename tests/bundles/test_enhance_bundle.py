"""The enhancing bundle from its configs: enlarging and completing files, pictures beside them, the latent variant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, run
from PIL import Image

from monai_sasm.functional.tiling import tiles
from monai_sasm.restoration.inferers import EnlargingInferer, InpaintingInferer
from monai_sasm.training.checkpoints import latest_checkpoint
from tests.bundle_cases import ROOT, clean_image, load, save

BUNDLE = ROOT / "bundles" / "enhance_photo_diffusion"
SMALL_LATENTS = {
    "autoencoder::network::autoencoder::channels": [8],
    "unet::network::channels": [8, 16, 16],
    "unet::network::num_head_channels": 8,
}


def configs(*files: str) -> list[str]:
    return [str(BUNDLE / "configs" / file) for file in files]


def fresh_weights(path: Path, *files: str) -> Path:
    """Random weights that fit the bundle's network."""
    parser = ConfigParser()
    parser.read_config(configs("inference.yaml", *files))
    torch.manual_seed(0)
    torch.save(parser.get_parsed_content("network_def").state_dict(), path)
    return path


def restore(folder: Path, *files: str, **settings: object) -> None:
    weights = fresh_weights(folder / "model.pt", *(file for file in files if file == "latent.yaml"))
    run(
        config_file=configs("inference.yaml", *files),
        dataset_dir=str(folder / "in"),
        output_dir=str(folder / "out"),
        weights=str(weights),
        pictures=True,
        **settings,
    )


@pytest.mark.parametrize("overlays", [(), ("latent.yaml",)], ids=["pixels", "latents"])
def test_photos_are_enlarged(tmp_path: Path, overlays: tuple[str, ...]) -> None:
    photo = clean_image("PHOTO", 48)
    save(photo, "PHOTO", tmp_path / "in", "colour")
    Image.fromarray(np.round(255 * photo[0]).astype(np.uint8)).save(tmp_path / "in" / "grey.png")
    restore(tmp_path, *overlays, "superres.yaml", factor=2)
    colour, grey = (load(tmp_path / "out" / f"{name}.png") for name in ("colour", "grey"))
    assert (colour.shape, grey.shape) == ((96, 96, 3), (96, 96))
    small = np.asarray(Image.fromarray(colour.astype(np.uint8)).resize((48, 48), Image.Resampling.BICUBIC), np.float32)
    assert np.abs(small - load(tmp_path / "in" / "colour.png")).mean() < 1, "grey levels, both rounded"
    assert np.asarray(Image.open(tmp_path / "out" / "pictures" / "colour.png")).shape == (96, 192, 3)


@pytest.mark.parametrize("known", ["white", "black"])
def test_photos_are_completed(tmp_path: Path, known: str) -> None:
    save(clean_image("PHOTO", 48), "PHOTO", tmp_path / "in")
    picture = np.full((48, 48), 255 if known == "white" else 0, np.uint8)
    picture[10:20, 15:40] = 255 - picture[0, 0]
    (tmp_path / "masks").mkdir()
    Image.fromarray(picture).save(tmp_path / "masks" / "image.png")
    restore(tmp_path, "inpaint.yaml", mask_dir=str(tmp_path / "masks"), known=known)
    before, after = (load(tmp_path / folder / "image.png") for folder in ("in", "out"))
    hole = np.zeros((48, 48), bool)
    hole[10:20, 15:40] = True
    np.testing.assert_array_equal(after[~hole], before[~hole])
    assert (after[hole] != before[hole]).mean() > 0.5


def test_tiles_leave_no_trace() -> None:
    """With a network that looks at single pixels, tiles and the whole image must agree."""

    class Pixelwise:
        def superresolve(self, image: torch.Tensor, factor: int, steps: int, eta: float) -> torch.Tensor:
            return steps * image.repeat_interleave(factor, -1).repeat_interleave(factor, -2)

        def inpaint(self, image: torch.Tensor, known: torch.Tensor, steps: int, eta: float) -> torch.Tensor:
            return torch.where(known > 0, image, steps * image)

    def small_tiles(height: int, width: int) -> list[object]:
        return tiles(height, width, 32, 32)

    image = torch.rand(1, 3, 130, 170, generator=torch.Generator().manual_seed(0))
    large = EnlargingInferer(4, 2, 0.0, small_tiles)(image, Pixelwise())
    assert torch.equal(large, 2 * image.repeat_interleave(4, -1).repeat_interleave(4, -2))
    known = (torch.rand(1, 1, 130, 170, generator=torch.Generator().manual_seed(1)) > 0.3).float()
    filled = InpaintingInferer(2, 0.0, small_tiles)(image[:, :1], Pixelwise(), known)
    torch.testing.assert_close(filled, torch.where(known > 0, image[:, :1], 2 * image[:, :1]))
    assert torch.equal(filled[known > 0], image[:, :1][known > 0])


def test_the_latent_variant_is_trained_in_two_runs(tmp_path: Path) -> None:
    for split in ("train", "val"):
        save(clean_image("PHOTO"), "PHOTO", tmp_path / split / "clean")
    small = SMALL_LATENTS | {
        "dataset_dir": str(tmp_path),
        "crops_per_epoch": 32,
        "batch_size": 8,
        "max_epochs": 1,
        "val_limit": 2,
        "val_interval": 1,
        "checkpoint_interval": 1,
        "validate::dataset::size": 64,
    }
    for output, files, settings in (
        ("autoencoder", ("latent.yaml", "train_autoencoder.yaml"), {}),
        ("latent", ("latent.yaml",), {"autoencoder_weights": str(tmp_path / "autoencoder" / "model.pt")}),
    ):
        files = configs("train.yaml", *files)
        settings |= small | {"output_dir": str(tmp_path / output)}
        workflow = ConfigWorkflow(config_file=files, workflow_type="train", **settings)
        workflow.initialize()
        workflow.run()
        assert workflow.parser.get_parsed_content("validate::evaluator").state.metrics["val_psnr"] > 0
        assert latest_checkpoint(tmp_path / output) is not None
    autoencoder, both = (torch.load(tmp_path / name / "model.pt") for name in ("autoencoder", "latent"))
    for key, tensor in autoencoder.items():
        assert torch.equal(both[f"autoencoder.{key}"], tensor), "the autoencoder is not trained further"
