"""The x4 upscaler on a random pipeline of its classes: sizes, seams, pinning, no downloads, the same as diffusers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from monai_sasm import optional
from monai_sasm.bundles import load
from monai_sasm.bundles.finding import is_downloaded
from monai_sasm.cli.main import main
from monai_sasm.diffusion.pinning import lowpass
from monai_sasm.refine.upscale import REVISION, NotDownloadedError, SdUpscaler, shrunk
from tests.bundle_cases import ROOT, clean_image, save
from tests.tiny_upscaler import write_pipeline

BUNDLE = ROOT / "bundles" / "upscale_photo_sd4x"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pipeline, saved to disk."""
    return write_pipeline(tmp_path_factory.mktemp("upscaler"))


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Any:
    """The pipeline, loaded once."""
    return upscaler_at(folder)._load()


def upscaler_at(folder: Path, **chosen: Any) -> SdUpscaler:
    return SdUpscaler(model=str(folder), variant="", **{"steps": 2, **chosen})


@pytest.fixture
def upscaler(folder: Path, loaded: Any) -> Any:
    """Builds an upscaler of two steps with that pipeline."""

    def build(**chosen: Any) -> SdUpscaler:
        made = upscaler_at(folder, **chosen)
        made.pipeline = loaded
        return made

    return build


@pytest.fixture(scope="module")
def photo() -> torch.Tensor:
    """``(1, 3, 24, 32)`` of a photo."""
    return torch.from_numpy(clean_image("PHOTO", 32)[:, :24])[None]


def test_one_tile_is_what_diffusers_pipeline_gives(upscaler: Any, loaded: Any, photo: torch.Tensor) -> None:
    """Same noise, same steps, with and without a prompt; the pipeline draws its noise in the same order."""
    for chosen, prompt, guidance in (({}, "", 1.0), ({"prompt": "a cat", "guidance": 4.0}, "a cat", 4.0)):
        ours = upscaler(pin=0, **chosen).enlarge(photo)
        theirs = loaded(
            prompt=prompt,
            image=photo,
            num_inference_steps=2,
            guidance_scale=guidance,
            noise_level=20,
            generator=torch.Generator().manual_seed(0),
            output_type="pt",
        ).images
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (5, 9), (24, 31)], ids=str)
def test_any_size_is_kept_or_multiplied_by_four(upscaler: Any, size: tuple[int, int]) -> None:
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    network = upscaler(steps=1, tile=16, overlap=8)
    refined = network.refine(image)
    assert refined.image.shape == image.shape
    assert refined.trust.shape == (1, 1, *size)
    assert network.enlarge(image).shape == (1, 3, 4 * size[0], 4 * size[1])
    assert network(image.double()).dtype == torch.float64


def test_the_seed_decides(upscaler: Any, photo: torch.Tensor) -> None:
    first = upscaler().forward(photo)
    assert torch.equal(upscaler().forward(photo), first)
    assert not torch.allclose(upscaler(seed=1).forward(photo), first, atol=1e-3)


def test_each_photo_of_a_batch_stands_alone(upscaler: Any, photo: torch.Tensor) -> None:
    network = upscaler(steps=1)
    assert torch.equal(network(torch.cat([photo, photo.flip(-1)]))[:1], network(photo))


class _Local(torch.nn.Module):
    """Stands for U-Net and decoder: what comes out at a pixel depends on this pixel alone."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.config, self.device, self.dtype = network.config, network.device, network.dtype
        self.tiles: list[tuple[int, ...]] = []

    def forward(self, x: torch.Tensor, t: torch.Tensor, **_: Any) -> tuple[torch.Tensor]:
        self.tiles.append(tuple(x.shape[-2:]))
        return (0.7 * x[:, :4] + 0.3 * x[:, 4:5],)

    def decode(self, x: torch.Tensor, return_dict: bool) -> tuple[torch.Tensor]:
        self.tiles.append(tuple(x.shape[-2:]))
        return (0.03 * x[:, :3].repeat_interleave(4, -1).repeat_interleave(4, -2),)


def test_tiles_of_a_local_model_equal_the_whole(
    upscaler: Any, loaded: Any, photo: torch.Tensor, monkeypatch: Any
) -> None:
    """All noise is the image's, not a tile's: nothing but the networks' sight can make a seam."""
    unet, vae = _Local(loaded.unet), _Local(loaded.vae)
    monkeypatch.setattr(loaded, "unet", unet)
    monkeypatch.setattr(loaded, "vae", vae)
    whole = upscaler().enlarge(photo)
    assert {*unet.tiles, *vae.tiles} == {(24, 32)}
    unet.tiles.clear()
    vae.tiles.clear()
    tiled = upscaler(tile=16, overlap=8).enlarge(photo)
    torch.testing.assert_close(tiled, whole, atol=1e-5, rtol=0)
    assert {*unet.tiles, *vae.tiles} == {(16, 16)}, "memory follows the tile"
    assert len(unet.tiles) == 2 * len(vae.tiles) == 2 * 2 * 3


def test_seams_of_the_real_networks_are_no_edges(upscaler: Any, photo: torch.Tensor) -> None:
    """Across the borders of tiles the picture is no rougher than elsewhere."""
    wide = torch.cat([photo, photo.flip(-1)], -1)
    large = upscaler(tile=24, overlap=8, pin=0).enlarge(wide)[0].mean(0)
    steps = large.diff(dim=-1).abs().mean(0)
    borders = [4 * column - 1 for column in (16, 24, 32, 40)]
    assert float(steps[borders].max()) < 3 * float(steps.mean())


def test_low_frequencies_are_the_anchors(upscaler: Any, photo: torch.Tensor) -> None:
    free, pinned = (upscaler(pin=pin)(photo) for pin in (0.0, 4.0))
    far, near = (float(lowpass(image - photo, 4.0).abs().mean()) for image in (free, pinned))
    assert near < 0.25 * far
    large = upscaler(pin=4.0).enlarge(photo)
    assert float(lowpass(shrunk(large) - photo, 4.0).abs().mean()) < 0.3 * far


def test_shrinking_does_not_alias() -> None:
    """The finest pattern of a large image is none in the small one; a ramp stays a ramp."""
    stripes = (torch.arange(64) % 2).float().expand(1, 1, 64, 64)
    assert float((shrunk(stripes)[..., 2:-2] - 0.5).abs().max()) < 1e-3
    ramp = torch.linspace(0, 1, 64).expand(1, 1, 64, 64)
    expected = ramp.view(64, 64)[0].view(16, 4).mean(1)
    torch.testing.assert_close(shrunk(ramp)[0, 0, 0, 2:-2], expected[2:-2], atol=1e-3, rtol=0)


def test_without_weights_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    asked: list[dict[str, Any]] = []
    pipeline = optional.diffusers().StableDiffusionUpscalePipeline
    original = pipeline.from_pretrained

    def from_pretrained(name: str, **options: Any) -> Any:
        asked.append(options)
        return original(name, cache_dir=tmp_path, **options)

    monkeypatch.setattr(pipeline, "from_pretrained", from_pretrained)

    def offline(name: str, **options: Any) -> Any:
        assert not options["local_files_only"]
        raise OSError("no connection")

    network = load("upscale_photo_sd4x").network
    assert asked == [], "building loads nothing"
    with pytest.raises(NotDownloadedError) as caught:
        network.prepare()
    for part in ("stabilityai/stable-diffusion-x4-upscaler", "1.7 GB", "sasm bundles download upscale_photo_sd4x"):
        assert part in str(caught.value)
    commit = "572c99286543a273bfd17fac263db5a77be12c4c"
    told = [(one["local_files_only"], one["revision"], one["use_safetensors"]) for one in asked]
    assert told == [(True, commit, True)]
    network.download = True
    monkeypatch.setattr(pipeline, "from_pretrained", offline)
    with pytest.raises(NotDownloadedError, match="did not come: the Hugging Face hub was not reached") as caught:
        network.prepare()
    assert "sasm bundles download" not in str(caught.value), "that is what was done"


def test_weights_that_may_hold_code_are_not_read(folder: Path, tmp_path: Path) -> None:
    """Pickles are refused, also in a folder of the user's."""
    place = shutil.copytree(folder, tmp_path / "pipeline")
    for part in ("unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"):
        weights = place / f"{part}.safetensors"
        pickled = weights.with_name({"text_encoder/model": "pytorch_model"}.get(part, weights.stem) + ".bin")
        torch.save(load_file(weights), pickled)
        weights.unlink()
    with pytest.raises(NotDownloadedError, match="as safetensors"):
        upscaler_at(place).prepare()


def test_the_bundle_is_an_opt_in_refiner_without_weights() -> None:
    bundle = load("upscale_photo_sd4x")
    assert (bundle.role, bundle.scale, dict(bundle.network.state_dict())) == ("refiner", 4, {})
    assert bundle.metadata["sasm"]["opt_in"]
    assert "default" not in bundle.metadata["sasm"]
    assert bundle.network.model == bundle.metadata["sasm"]["hub"]
    assert bundle.network.revision == bundle.metadata["sasm"]["revision"] == REVISION


def test_a_download_of_one_commit_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's client notes no branch where a commit was asked for."""
    cached = tmp_path / "models--stabilityai--stable-diffusion-x4-upscaler" / "snapshots" / REVISION
    cached.mkdir(parents=True)
    (cached / "model_index.json").write_text("{}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    hub = load("upscale_photo_sd4x").metadata["sasm"]
    assert not is_downloaded(hub["hub"])
    assert is_downloaded(hub["hub"], hub["revision"])
    assert SdUpscaler().source() == f"{hub['hub']}@{REVISION}"


def test_weights_are_named_with_their_commit(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hash of the bundle's empty ``model.pt`` would say nothing."""
    assert upscaler_at(folder).source() == folder.name
    index = tmp_path / "snapshots" / "abc123" / "model_index.json"
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache", lambda *_, **asked: {REVISION: str(index)}.get(asked["revision"])
    )
    assert SdUpscaler().source() == "stabilityai/stable-diffusion-x4-upscaler@abc123"
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **asked: None)
    assert SdUpscaler().source() == "stabilityai/stable-diffusion-x4-upscaler"


def test_a_photo_is_restored_refined_and_enlarged_by_command(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The shipped bundle, with its model replaced by the random one: first at its size, then four times as large."""
    bundle = tmp_path / "user" / BUNDLE.name
    shutil.copytree(BUNDLE, bundle)
    config = bundle / "configs" / "inference.yaml"
    text = config.read_text().replace("stabilityai/stable-diffusion-x4-upscaler", str(folder))
    config.write_text(text.replace("variant: fp16", 'variant: ""').replace("steps: 25", "steps: 1"))
    monkeypatch.setenv("SASM_BUNDLES", str(bundle.parent))
    source = save(clean_image("PHOTO", 40), "PHOTO", tmp_path / "in")
    command = ["restore", source, "-o", tmp_path / "out", "--expert", "noise_photo_unet", "--overwrite", "--json", "-q"]
    command += ["--refine", "0.5", "--refiner", BUNDLE.name, "--device", "cpu", "--save-maps"]
    rows = []
    for further, size in (([], (40, 40)), (["--upscale"], (160, 160))):
        with pytest.raises(SystemExit) as ended:
            main([str(part) for part in (*command, *further)])
        assert not ended.value.code
        rows.append(json.loads(capsys.readouterr().out))
        with Image.open(tmp_path / "out" / source.name) as result:
            assert result.size == size
    assert [row["parameters"].get("enlarged") for row in rows] == [None, 4]
    assert rows[0]["parameters"]["refiner_weights"] == folder.name
    assert rows[0]["summary"]["trust"] == 1
    assert any(path.endswith("image_trust.png") for path in rows[0]["output"]["map_paths"])
    assert rows[1]["notes"] == [f"enlarged 4 times by {BUNDLE.name}"]


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"tile": 20}, {"tile": 0}, {"overlap": 128}, {"pin": -1.0}])
def test_arguments_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="tile a multiple of 8"):
        SdUpscaler(**wrong)
