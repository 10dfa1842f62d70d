"""The diffusion denoiser's configs: steps by key, fine-tuning of a published model from a folder, and its absence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, run
from torch.utils.data import DataLoader

from tests.bundle_cases import ROOT, clean_image, degraded_image, load, save
from tests.bundles.test_configs import DIFFUSION, TINY

CONFIGS = ROOT / "bundles" / "noise_photo_ddpm" / "configs"
FINETUNE = [str(CONFIGS / "train.yaml"), str(CONFIGS / "finetune.yaml")]
SETTINGS = {**TINY, "perceptual": 0.0, "crops_per_epoch": 16}


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A model as diffusers saves it, of the class of google/ddpm-celebahq-256."""
    from monai_sasm.optional import diffusers

    torch.manual_seed(0)
    model = diffusers().UNet2DModel(
        in_channels=3,
        out_channels=3,
        block_out_channels=[8, 8],
        down_block_types=["DownBlock2D", "AttnDownBlock2D"],
        up_block_types=["AttnUpBlock2D", "UpBlock2D"],
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=4,
    )
    model.save_pretrained(tmp_path / "published")
    return tmp_path / "published"


def photo_folder(root: Path) -> Path:
    for split in ("train", "val"):
        save(clean_image("PHOTO"), "PHOTO", root / "data" / split / "clean")
    return root / "data"


def workflow(files: list[str], root: Path, **settings: Any) -> ConfigWorkflow:
    chosen = {"dataset_dir": str(photo_folder(root)), "output_dir": str(root / "run"), **SETTINGS, **settings}
    found = ConfigWorkflow(config_file=files, workflow_type="train", **chosen)
    found.initialize()
    return found


def test_a_published_model_is_fine_tuned_and_used(published: Path, tmp_path: Path) -> None:
    training = workflow(FINETUNE, tmp_path, pretrained=str(published))
    get = training.parser.get_parsed_content
    before = {key: value.clone() for key, value in get("network").state_dict().items()}
    assert get("optimizer").param_groups[0]["lr"] == 1e-5
    training.run()
    assert get("train::trainer").state.iteration == 2
    assert any(not torch.equal(value, before[key]) for key, value in get("network").state_dict().items())

    source = save(degraded_image("PHOTO", "noise", clean_image("PHOTO")), "PHOTO", tmp_path / "in")
    options = {"dataset_dir": str(source), "weights": str(tmp_path / "run" / "model.pt"), "pretrained": str(published)}
    files = [str(CONFIGS / "inference.yaml"), str(CONFIGS / "finetune.yaml")]
    for steps in (1, 3):
        run(config_file=files, output_dir=str(tmp_path / f"out{steps}"), steps=steps, **options)
    one, three = (load(tmp_path / f"out{steps}" / source.name) for steps in (1, 3))
    assert one.shape == load(source).shape
    assert not np.array_equal(one, load(source))
    assert not np.array_equal(one, three)


def test_training_starts_from_the_published_weights(published: Path, tmp_path: Path) -> None:
    from monai_sasm.optional import diffusers

    expected = diffusers().UNet2DModel.from_pretrained(str(published)).state_dict()
    network = workflow(FINETUNE, tmp_path, pretrained=str(published)).parser.get_parsed_content("network")
    found = network.denoiser.network.network.unet.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], value) for key, value in expected.items())


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    parser = ConfigParser()
    parser.read_config(FINETUNE)
    parser["pretrained"] = str(tmp_path / "nothing")
    with pytest.raises(RuntimeError) as caught:
        parser.get_parsed_content("network_def")
    text, error = "", caught.value
    while error is not None:
        text, error = text + str(error), error.__cause__
    assert f"no UNet2DModel '{tmp_path / 'nothing'}' here" in text
    assert "hf download" in text


@pytest.mark.parametrize(("mean", "sigma"), [(0.0, 0.2), (0.1, 0.05)])
def test_noise_of_validation_is_chosen_by_keys(mean: float, sigma: float, tmp_path: Path) -> None:
    files = [str(CONFIGS / "train.yaml"), str(CONFIGS / "train_cpu.yaml")]
    get = workflow(files, tmp_path, mean=mean, sigma=sigma, **DIFFUSION["noise_photo_ddpm"]).parser.get_parsed_content
    noisy, clean, (told,), _ = get("validate::prepare")(next(iter(DataLoader(get("validate::dataset")))), "cpu")
    assert float((noisy - clean).mean()) == pytest.approx(mean, abs=0.01)
    assert float((noisy - clean).std()) == pytest.approx(sigma, rel=0.05)
    assert float(told.mean()) == pytest.approx(sigma)
    assert get("network_def").mean == mean, "the model is told"


def test_times_and_skew_are_chosen_by_keys(tmp_path: Path) -> None:
    files = [str(CONFIGS / "train.yaml")]
    options = {**DIFFUSION["noise_photo_ddpm"], "times": [40, 60], "crop_size": 48}
    get = workflow(files, tmp_path, **options).parser.get_parsed_content
    _, _, (times,), _ = get("train::prepare")(next(iter(get("train::dataloader"))), "cpu")
    assert 40 <= int(times.min()) <= int(times.max()) <= 60
