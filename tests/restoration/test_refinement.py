"""The refiner in the sentence: strength, trust, tiles, enlargement, and that a forced one cannot go unnoticed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from PIL import Image

from monai_sasm.bundles import Bundle
from monai_sasm.cli.main import main
from monai_sasm.errors import BundleError
from monai_sasm.functional.tiling import blended_tiles
from monai_sasm.io.formats import open_images, write
from monai_sasm.io.volume import Volume
from monai_sasm.refine.refiner import Refined
from monai_sasm.restoration.files import restore_to
from monai_sasm.restoration.installed import Installed
from monai_sasm.restoration.maps import write_maps
from monai_sasm.restoration.network import Pipeline
from monai_sasm.restoration.options import Options
from monai_sasm.restoration.refinement import refine
from monai_sasm.restoration.restorer import LazyBundles, Restorer
from monai_sasm.types import Modality
from tests.bundle_cases import clean_image
from tests.data import ct_small, mr_volume


class _Brighten(torch.nn.Module):
    """Adds a fifth, trusts the left half only; enlarges by repeating pixels."""

    prepared = 0

    def refine(self, anchor: torch.Tensor, source: torch.Tensor | None = None) -> Refined:
        trust = torch.ones_like(anchor[:, :1])
        trust[..., anchor.shape[-1] // 2 :] = 0
        return Refined(anchor + 0.2, trust)

    def enlarge(self, anchor: torch.Tensor) -> torch.Tensor:
        return (anchor + 0.2).repeat_interleave(4, -1).repeat_interleave(4, -2)

    def prepare(self) -> None:
        self.prepared += 1


class _Same(torch.nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image


SECTIONS: dict[str, dict[str, Any]] = {
    "fine": {"role": "refiner", "modality": "PHOTO", "default": True},
    "large": {"role": "refiner", "modality": "PHOTO", "opt_in": True, "scale": 4},
}


def bundle(name: str, section: dict[str, Any], network: torch.nn.Module) -> Bundle:
    modality = Modality(section["modality"])
    return Bundle(name, Path("nowhere"), section["role"], modality, None, False, "1", name, network, {"sasm": section})


@pytest.fixture
def restorer() -> Restorer:
    """Experts ``same_*`` that change nothing, the default refiner ``fine`` and the enlarging refiner ``large``."""
    experts = {
        f"same_{m.value}": bundle(f"same_{m.value}", {"role": "expert", "modality": m}, _Same())
        for m in Modality.known()
    }
    refiners = LazyBundles(SECTIONS, lambda n, _: bundle(n, SECTIONS[n], _Brighten()))
    return Restorer.of(experts, refiners=refiners)


def options(modality: Modality, **chosen: Any) -> Options:
    return Options(expert=f"same_{modality.value}", **chosen)


PHOTO = Volume(np.full((3, 8, 12), 0.5, np.float32), Modality.PHOTO)


def test_strength_and_trust_decide_how_much_changes(restorer: Restorer) -> None:
    full = restorer(PHOTO, options(Modality.PHOTO, refine=1.0, keep_maps=True))
    np.testing.assert_allclose(full.volume.array[..., :6], 0.7, atol=1e-6)
    assert np.array_equal(full.volume.array[..., 6:], PHOTO.array[..., 6:])
    assert full.trust is not None
    assert full.trust.shape == (1, 8, 12)
    assert full.summary["trust"] == 0.5
    half = restorer(PHOTO, options(Modality.PHOTO, refine=0.5))
    np.testing.assert_allclose(half.volume.array[..., :6], 0.6, atol=1e-6)
    assert half.trust is None
    off = restorer(PHOTO, options(Modality.PHOTO))
    assert np.array_equal(off.volume.array, PHOTO.array)
    assert "trust" not in off.summary


def test_a_grey_photo_stays_grey(restorer: Restorer) -> None:
    grey = replace(PHOTO, array=PHOTO.array[:1])
    result = restorer(grey, options(Modality.PHOTO, refine=1.0)).volume.array
    assert result.shape == (1, 8, 12)
    np.testing.assert_allclose(result[..., :6], 0.7, atol=1e-6)


def test_large_images_are_refined_in_tiles_without_seams() -> None:
    class Spread(torch.nn.Module):
        sides: list[int] = []  # noqa: RUF012

        def refine(self, anchor: torch.Tensor, source: torch.Tensor | None = None) -> Refined:
            self.sides.append(max(anchor.shape[-2:]))
            return Refined(torch.nn.functional.avg_pool2d(anchor, 3, 1, 1), torch.ones_like(anchor[:, :1]))

    image = torch.rand(1, 3, 40, 1500, generator=torch.Generator().manual_seed(0))
    network = Spread()
    result, trust = refine(image, bundle("fine", SECTIONS["fine"], network), Modality.PHOTO, 1.0)
    assert (network.sides, trust.min()) == ([1024, 1024], 1)
    whole = network.refine(image).image
    torch.testing.assert_close(result[..., 2:-2], whole[..., 2:-2], atol=1e-2, rtol=0)
    inside = slice(2, 470)  # seen by the first tile alone
    torch.testing.assert_close(result[..., inside], whole[..., inside])


@pytest.mark.parametrize(("tile", "overlap"), [(16, 4), (16, 15), (10, 0), (64, 8)])
def test_blended_tiles_of_a_pointwise_function_are_the_whole(tile: int, overlap: int) -> None:
    image = torch.rand(2, 3, 37, 53, generator=torch.Generator().manual_seed(0))
    result = blended_tiles(image, lambda part: torch.sin(part)[:, :2], tile, overlap)
    torch.testing.assert_close(result, torch.sin(image)[:, :2])
    large = blended_tiles(image, lambda part: part.repeat_interleave(2, -1).repeat_interleave(2, -2), tile, overlap, 2)
    torch.testing.assert_close(large, image.repeat_interleave(2, -1).repeat_interleave(2, -2))


def test_tiles_fade_into_each_other() -> None:
    """Two tiles of different brightness meet in a straight ramp, whose centre lies in the middle of the overlap."""
    seen = iter([0.0, 1.0])
    ramp = blended_tiles(torch.zeros(1, 1, 10, 26), lambda part: torch.full_like(part, next(seen)), 16, 6)[0, 0, 0]
    assert ramp[:10].eq(0).all()
    assert ramp[16:].eq(1).all()
    torch.testing.assert_close(ramp[10:16], (torch.arange(6) + 0.5) / 6)
    with pytest.raises(ValueError, match="less than the tile, got tile=8 and overlap=8"):
        blended_tiles(torch.zeros(1, 1, 10, 10), torch.sin, 8, 8)


def test_an_enlarged_photo_keeps_its_size_only_on_request(restorer: Restorer) -> None:
    native = restorer(PHOTO, options(Modality.PHOTO, refine=1.0, refiner="large"))
    assert native.volume.array.shape == (3, 8, 12)
    kept = restorer(PHOTO, options(Modality.PHOTO, refine=0.5, refiner="large", upscale=True, keep_maps=True))
    assert kept.volume.array.shape == (3, 32, 48)
    np.testing.assert_allclose(kept.volume.array, 0.6, atol=1e-6)
    assert kept.volume.notes == ("enlarged 4 times by large",)
    assert {maps.shape for maps in kept.weights.values()} == {(1, 32, 48)}
    assert kept.change is not None
    np.testing.assert_allclose(kept.change, np.full((1, 32, 48), 0.1), atol=1e-6)
    backwards = PHOTO.with_array(PHOTO.array[:, ::-1])
    same = restorer(backwards, options(Modality.PHOTO, refine=0.5, refiner="large", upscale=True))
    np.testing.assert_allclose(same.volume.array, kept.volume.array, atol=1e-6)
    half = restorer(PHOTO, options(Modality.PHOTO, refine=0.5, strength=0.5, refiner="large", upscale=True))
    np.testing.assert_allclose(half.volume.array, 0.55, atol=1e-6)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp"])
def test_an_enlarged_photo_is_written_with_its_alpha(restorer: Restorer, tmp_path: Path, suffix: str) -> None:
    mode, opaque = ("RGBA", (40,)) if suffix in ("png", "tif") else ("RGB", ())
    pixels = np.broadcast_to(np.array((100, 110, 120, *opaque), np.uint8), (8, 12, 3 + len(opaque)))
    Image.fromarray(pixels, mode).save(tmp_path / f"in.{suffix}")
    (volume,) = open_images(tmp_path / f"in.{suffix}")
    chosen = options(Modality.PHOTO, refine=1.0, refiner="large", upscale=True, keep_maps=True)
    target = tmp_path / "out" / f"in.{suffix}"
    row = restore_to(volume, target, restorer, chosen)
    with Image.open(target) as written:
        result = np.asarray(written).astype(int)
    assert result.shape == (32, 48, 3 + len(opaque))
    assert np.abs(result[..., :3] - (np.array((100, 110, 120)) + 51)).max() <= 2
    assert set(result[..., 3:].flatten()) <= {40}
    assert row["parameters"]["enlarged"] == 4
    assert Image.open(row["output"]["maps"][0]).size == (48, 32)


def test_only_photos_and_enlarging_refiners_enlarge(restorer: Restorer) -> None:
    with pytest.raises(BundleError, match="fine does not enlarge"):
        restorer(PHOTO, options(Modality.PHOTO, refine=1.0, refiner="fine", upscale=True))
    (mr,) = open_images(mr_volume(), Modality.MR)
    chosen = options(Modality.MR, refine=1.0, refiner="large", force_refiner=True, upscale=True)
    with pytest.raises(BundleError, match="only photos may be enlarged, this image is MR"):
        restorer(mr, chosen)
    with pytest.raises(ValueError, match="must keep its geometry"):
        mr.enlarged(mr.array)
    with pytest.raises(ValueError, match="whole multiple"):
        PHOTO.enlarged(np.zeros((3, 16, 25), np.float32))


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"refiner": "large"}, "strength of refine, which is 0"),
        ({"upscale": True}, "strength of refine, which is 0"),
        ({"refine": 1.0, "upscale": True}, "need the name of a refiner"),
        ({"refine": 1.0, "force_refiner": True}, "need the name of a refiner"),
    ],
)
def test_options_without_effect_are_refused(chosen: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Options(**chosen)


@pytest.mark.parametrize(("source", "modality"), [(ct_small(), Modality.CT), (mr_volume(), Modality.MR)])
def test_ct_and_mr_are_refused(restorer: Restorer, source: Path, modality: Modality) -> None:
    volume = next(open_images(source, modality))
    with pytest.raises(BundleError, match=f"no refiner is the default for {modality.value}"):
        restorer(volume, options(modality, refine=1.0))
    with pytest.raises(BundleError, match=f"this {modality.value} image that was never measured, so it is refused"):
        restorer(volume, options(modality, refine=1.0, refiner="fine"))


def forced(modality: Modality, refine: float = 1.0) -> Options:
    return options(modality, refine=refine, refiner="fine", force_refiner=True)


def test_a_forced_refiner_acts_in_the_unit_of_the_image(restorer: Restorer) -> None:
    (ct,) = open_images(ct_small())
    result = restorer(ct, forced(Modality.CT))
    span = float(np.ptp(ct.array))
    change = result.volume.array - ct.array
    np.testing.assert_allclose(change[..., :64], 0.2 * span, rtol=1e-3)
    assert np.array_equal(change[..., 64:], np.zeros_like(change[..., 64:]))
    assert "fine is made for PHOTO and was forced on CT: detail may be invented" in result.volume.notes


def test_a_forced_refiner_is_named_in_dicom(restorer: Restorer, tmp_path: Path) -> None:
    (ct,) = open_images(ct_small())
    restore_to(ct, tmp_path / "out", restorer, forced(Modality.CT))
    (file,) = (tmp_path / "out").rglob("*.dcm")
    dataset = pydicom.dcmread(file)
    assert dataset.SeriesDescription.endswith("[SASM generative]")
    for text in (dataset.DerivationDescription, dataset.ContributingEquipmentSequence[-1].ContributionDescription):
        assert "fine is made for PHOTO and was forced on CT: detail may be invented" in text
    assert "force_refiner=True" in dataset.DerivationDescription


def test_a_forced_refiner_is_named_in_the_sidecar_and_its_trust_is_a_map(restorer: Restorer, tmp_path: Path) -> None:
    (mr,) = open_images(mr_volume(), Modality.MR)
    chosen = replace(forced(Modality.MR), keep_maps=True)
    result = restorer(mr, chosen)
    target = tmp_path / "out.nii"
    write(result.volume, target, result.derivation)
    sidecar = json.loads((tmp_path / "out.json").read_text())
    assert "fine is made for PHOTO and was forced on MR" in sidecar["Description"]
    assert (sidecar["Parameters"]["force_refiner"], sidecar["Parameters"]["refiner"]) == ("True", "fine")
    assert sidecar["Models"]["fine"] == "fine"
    names = {path.name for path in write_maps(result, target)}
    assert "out_trust.nii.gz" in names
    assert nibabel.load(tmp_path / "out_trust.nii.gz").shape == mr.array.shape[1:]


def test_a_forced_refiner_is_named_in_a_png(tmp_path: Path, restorer: Restorer) -> None:
    """A photo carries nothing else of the derivation."""
    Image.fromarray((clean_image("PHOTO")[:, :16, :16] * 255).astype(np.uint8).transpose(1, 2, 0)).save(
        tmp_path / "a.png"
    )
    (volume,) = open_images(tmp_path / "a.png")
    honest = restorer.plan(Modality.PHOTO, options(Modality.PHOTO, refine=1.0)).derivation
    write(volume, tmp_path / "plain.png", honest)
    write(volume, tmp_path / "marked.png", replace(honest, warning="detail may be invented"))
    texts = [Image.open(tmp_path / name).text for name in ("plain.png", "marked.png")]
    assert texts == [{}, {"Warning": "detail may be invented"}]


def test_the_derivation_names_the_refiner_used(restorer: Restorer) -> None:
    plain = restorer.plan(Modality.PHOTO, options(Modality.PHOTO)).derivation
    assert "fine" not in plain.models
    done = restorer.plan(Modality.PHOTO, options(Modality.PHOTO, refine=0.5)).derivation
    assert done.models["fine"] == "fine"
    assert (done.parameters["refiner"], done.parameters["refine"], done.label, done.warning) == (
        "fine",
        0.5,
        "SASM",
        "",
    )
    assert "generative refinement by fine" in done.description
    assert len({plain.digest, done.digest, restorer.plan(Modality.CT, forced(Modality.CT)).derivation.digest}) == 3


def test_what_is_missing_is_known_before_the_work(restorer: Restorer) -> None:
    def absent() -> None:
        raise FileNotFoundError("weights are not there")

    restorer.refiner("fine").network.prepare = absent  # type: ignore[assignment, method-assign]
    restorer(PHOTO, options(Modality.PHOTO))
    with pytest.raises(FileNotFoundError, match="weights are not there"):
        restorer(PHOTO, options(Modality.PHOTO, refine=1.0))


def test_a_job_passes_over_what_a_refiner_is_not_for(restorer: Restorer) -> None:
    def mismatch(chosen: Options) -> str | None:
        return restorer.mismatch(Modality.CT, chosen)

    assert mismatch(options(Modality.CT)) is None
    assert "no refiner is the default for CT" in str(mismatch(options(Modality.CT, refine=1.0)))
    assert "force_refiner=True" in str(mismatch(options(Modality.CT, refine=1.0, refiner="fine")))
    assert mismatch(forced(Modality.CT)) is None
    assert "leave the expert out" in str(mismatch(options(Modality.MR)))


def test_the_command_line_refuses_forces_and_enlarges(
    restorer: Restorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("monai_sasm.restoration.files.Restorer", lambda *_, **__: restorer)
    toys = Installed(restorer.experts.sections, {}, restorer.refiners.sections, {})
    monkeypatch.setattr("monai_sasm.batch.plan.Installed.find", lambda *_: toys)

    def sasm(source: Path, *arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(part) for part in ("restore", source, "-o", tmp_path / "out", "--refine", 1, *arguments)])
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    code, _, err = sasm(ct_small(), "--expert", "same_CT", "--refiner", "fine")
    assert (code, "--force-refiner" in err) == (3, True)
    code, _, err = sasm(ct_small(), "--expert", "same_CT", "--refiner", "nobody")
    assert (code, "no refiner named 'nobody'; available: fine, large" in err) == (2, True)
    code, out, _ = sasm(ct_small(), "--expert", "same_CT", "--refiner", "fine", "--force-refiner", "--json")
    row = json.loads(out)
    assert (code, row["parameters"]["force_refiner"], row["summary"]["trust"]) == (0, True, 0.5)
    assert any("forced on CT" in note for note in row["notes"])
    Image.fromarray(np.full((8, 12, 3), 100, np.uint8)).save(tmp_path / "a.png")
    code, out, _ = sasm(tmp_path / "a.png", "--expert", "same_PHOTO", "--refiner", "large", "--upscale")
    assert (code, Image.open(out.strip()).size) == (0, (48, 32))


def test_the_pipeline_network_refines_photos_and_nothing_else(
    restorer: Restorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monai_sasm.restoration.network.Restorer", lambda *_, **__: restorer)
    image = torch.full((2, 3, 8, 12), 0.5)
    network = Pipeline("PHOTO", expert="same_PHOTO", refine=0.5)
    result = network(image)
    torch.testing.assert_close(result[..., :6], image[..., :6] + 0.1)
    assert torch.equal(result[..., 6:], image[..., 6:])
    assert network.derivation().parameters["refiner"] == "fine"
    assert torch.equal(Pipeline("PHOTO", expert="same_PHOTO")(image), image)
    with pytest.raises(BundleError, match="fine is made for PHOTO"):
        Pipeline("CT", expert="same_CT", refine=0.5, refiner="fine")(image[:, :1])
