"""Super-resolution and inpainting: metrics, classes and laws on photos and masks made here, with stand-in networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from monai_sasm.bundles import Bundle
from monai_sasm.degradations.downsampling import downsample, upsample
from monai_sasm.evaluation.context import Context
from monai_sasm.evaluation.data import cbsd68, photo
from monai_sasm.evaluation.sampling_steps import BUNDLE, STEPS, STEPS_OF
from monai_sasm.protocols import inpaint
from monai_sasm.protocols import superres_photo as superres
from monai_sasm.protocols.evaluate import evaluate_in
from tests.evaluation.networks import bundle

SIDE = 96  # pixels of the masks


class Smooth(torch.nn.Module):
    """Stands in for the model: bicubic and mean fill, darker with every step after the first."""

    def superresolve(self, image: torch.Tensor, factor: int, steps: int | None = None) -> torch.Tensor:
        return self._faded(upsample(image, factor), steps)

    def inpaint(self, image: torch.Tensor, known: torch.Tensor, steps: int | None = None) -> torch.Tensor:
        mean = (image * known).sum((2, 3), keepdim=True) / known.sum((2, 3), keepdim=True)
        return torch.where(known > 0, image, self._faded(mean, steps))

    @staticmethod
    def _faded(image: torch.Tensor, steps: int | None) -> torch.Tensor:
        return image * (1 - ((steps or 1) - 1) / 200)


class Oracle(torch.nn.Module):
    """Knows the photos, and gives the one that looks most like its input."""

    def __init__(self, photos: list[np.ndarray]) -> None:
        super().__init__()
        self.photos = [torch.from_numpy(image)[None] for image in photos]

    def superresolve(self, image: torch.Tensor, factor: int, steps: int | None = None) -> torch.Tensor:
        return min(self.photos, key=lambda clean: float((downsample(clean, factor) - image).abs().mean()))

    def inpaint(self, image: torch.Tensor, known: torch.Tensor, steps: int | None = None) -> torch.Tensor:
        return min(self.photos, key=lambda clean: float(((clean - image) * known).abs().mean()))


class Leaky(Smooth):
    """Changes one measured pixel by one grey level after four or more steps."""

    def inpaint(self, image: torch.Tensor, known: torch.Tensor, steps: int | None = None) -> torch.Tensor:
        filled = super().inpaint(image, known, steps).clone()
        row, column = torch.nonzero(known[0, 0])[0].tolist()
        filled[0, 0, row, column] += ((steps or 0) >= 4) / 255
        return filled


def models(network: torch.nn.Module, latent: torch.nn.Module | None = None) -> dict[str, Bundle]:
    """The model, and its latent variant."""
    found = {BUNDLE: bundle(BUNDLE, network)}
    return found if latent is None else found | {f"{BUNDLE}/latent": bundle(BUNDLE, latent)}


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    """Two photos, and a mask of few and one of many strokes; no weights of VGG19, which would take most of the time."""
    monkeypatch.setenv("SASM_WEIGHTS", str(tmp_path))
    random = np.random.default_rng(0)
    folder = tmp_path / "data" / "natural" / "bsds500" / "val"
    folder.mkdir(parents=True)
    for name in ("a", "b"):
        scene = gaussian_filter(random.random((SIDE + 6, SIDE + 9, 3)), (2, 2, 0))
        pixels = (255 * (scene - scene.min()) / np.ptp(scene)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.jpg", quality=95)
    (tmp_path / "data/natural/cbsd68_ids.txt").write_text("b\na\n")
    masks = tmp_path / "data" / "inpainting_masks"
    masks.mkdir()
    for number, (width, every) in enumerate(((4, 32), (5, 10))):
        columns = np.where(np.arange(SIDE) % every < width, 0, 255).astype(np.uint8)
        Image.fromarray(np.broadcast_to(columns[None, :, None], (SIDE, SIDE, 3)).copy()).save(masks / f"{number}.png")
    return Context(tmp_path / "data", tmp_path / "docs" / "results", "cpu", bundles=models(Smooth()))


def photos_of(context: Context) -> list[np.ndarray]:
    return [photo(path) for path in cbsd68(context.data)]


def test_superresolution_table(context: Context) -> None:
    table = evaluate_in(context, "superres-photo")
    assert list(table.row("bicubic").scores) == ["x2", "x4", "x4, 2 photos"]
    assert set(table.row("ours, 1 step").scores) == set(table.row("bicubic").scores)
    assert set(table.row("ours, 50 steps").scores) == {"x4, 2 photos"}
    assert [row.method for row in table.rows if row.method in STEPS_OF] == list(STEPS_OF)
    assert table.row("bicubic").scores["x2"]["PSNR Y"] > table.row("bicubic").scores["x4"]["PSNR Y"]
    faded = [table.row(name).scores["x4, 2 photos"]["PSNR RGB"] for name in STEPS_OF]
    assert faded == sorted(faded, reverse=True)
    assert table.row("bicubic, back-projected").scores["x4"]["consistency"] < 0.05
    assert table.row("bicubic, back-projected").scores["x4"]["PSNR Y"] > table.row("bicubic").scores["x4"]["PSNR Y"]
    assert table.figures == ("superres-photo.png", "superres-photo-steps.png")
    assert all((context.output / name).stat().st_size > 0 for name in table.figures)
    assert any("latent" in flag for flag in table.flags)


def test_a_perfect_enlargement_scores_so(context: Context) -> None:
    whole = [image[:, :100, :104] for image in photos_of(context)]  # multiples of 4
    table = superres.run(replace(context, peers=False, bundles=models(Oracle(whole))))
    for scores in table.row("ours, 1 step").scores.values():
        assert scores["PSNR RGB"] == scores["PSNR Y"] == float("inf")
        assert scores["SSIM Y"] == pytest.approx(1.0)
        assert scores["consistency"] == pytest.approx(0.25, abs=0.02)  # mean of |rounding|
        assert scores["consistency max"] <= 0.5 + 1e-3
        assert scores.get("gradient", 1.0) == pytest.approx(1.0)


def test_low_resolution_photos_are_of_8_bit(context: Context) -> None:
    case = next(case for case in superres.low_resolution_cases(cbsd68(context.data)) if case.level == "x4")
    assert case.clean.shape == (3, 100, 104)
    assert case.degraded.shape == (3, 25, 26)
    levels = 255 * case.degraded.astype(np.float64)
    assert np.abs(levels - levels.round()).max() < 1e-4


def test_consistency_and_border(context: Context) -> None:
    """A result brighter by 3 grey levels is inconsistent by 3; what happens in the border is not judged."""
    case = superres.low_resolution_cases(cbsd68(context.data))[0]
    consistent = superres.back_projected(case.degraded, 2, rounds=200)
    assert superres.measure(case, consistent)["consistency max"] < 0.01
    brighter = superres.measure(case, consistent + np.float32(3 / 255))
    assert brighter["consistency"] == pytest.approx(3, abs=0.01)
    assert brighter["consistency max"] == pytest.approx(3, abs=0.02)
    framed = case.clean.copy()
    framed[:, :2], framed[:, -2:], framed[:, :, :2], framed[:, :, -2:] = 0, 0, 0, 0
    assert superres.measure(case, framed)["PSNR RGB"] == float("inf")


def test_lanczos_keeps_means_and_channels() -> None:
    low = np.stack([np.full((8, 10), value, np.float32) for value in (0.1, 0.5, 0.9)])
    enlarged = superres.lanczos(low, 4)
    assert enlarged.shape == (3, 32, 40)
    assert enlarged == pytest.approx(np.broadcast_to(low[:, :1, :1], enlarged.shape), abs=1e-6)


def test_inpainting_table(context: Context) -> None:
    table = evaluate_in(context, "inpaint")
    classes = ["strokes below 20 %", "strokes above 40 %", "block"]
    assert list(table.row("input").scores) == [*classes, "all classes, 2 photos"]
    assert table.row("input").n == {**dict.fromkeys(classes, 2), "all classes, 2 photos": 6}
    same = {**table.row("input").scores["block"], "PSNR hole gain": 0.0}
    assert table.row("ours, 1 step").scores["block"] == pytest.approx(same, rel=1e-3, abs=1e-3)
    assert (
        table.row("biharmonic").scores[classes[0]]["PSNR hole"] > table.row("input").scores[classes[0]]["PSNR hole"] + 3
    )
    assert table.row("membrane").scores[classes[0]]["SSIM hole"] > table.row("input").scores[classes[0]]["SSIM hole"]
    assert all(scores["outside"] == 0 for row in table.rows for scores in row.scores.values())
    assert set(table.row("ours, 50 steps").scores) == {"all classes, 2 photos"}
    assert len([key for key in context.cache.results if key.startswith("inpaint|biharmonic|scikit-image")]) == 12
    assert all((context.output / name).stat().st_size > 0 for name in table.figures)


def test_a_perfect_filling_scores_so(context: Context) -> None:
    clean = [inpaint.middle(image, SIDE, SIDE).copy() for image in photos_of(context)]
    table = inpaint.run(replace(context, peers=False, bundles=models(Oracle(clean))))
    for scores in table.row("ours, 1 step").scores.values():
        assert scores["PSNR hole"] == float("inf")
        assert scores["SSIM hole"] == pytest.approx(1.0)
        assert scores["outside"] == 0


def test_a_changed_measured_pixel_ends_the_run(context: Context) -> None:
    leaky = replace(context, peers=False, bundles=models(Leaky()))
    with pytest.raises(inpaint.ChangedPixelsError, match=r"'ours, 4 steps' changed them by up to 1 grey levels"):
        inpaint.run(leaky)


def test_only_the_hole_is_judged_and_nan_outside_counts_as_change(context: Context) -> None:
    paths = [context.data / "natural/bsds500/val/a.jpg"]
    case = inpaint.holed_cases(paths, sorted((context.data / "inpainting_masks").iterdir()))[0]
    hole = case.facts["known"] == 0
    assert (case.degraded == case.clean)[:, ~hole[0]].all()
    off = np.where(hole, np.where(case.clean > 0.5, case.clean - 0.1, case.clean + 0.1), case.clean).astype(np.float32)
    scores = inpaint.measure(case, off)
    assert scores["PSNR hole"] == pytest.approx(20, abs=0.2)  # 0.1 is not a whole number of grey levels
    assert scores["outside"] == 0
    broken = np.where(hole, case.clean, np.float32("nan"))
    assert inpaint.measure(case, broken)["outside"] == float("inf")


@pytest.mark.parametrize(
    ("thickness", "every", "expected"),
    [
        (6, 60, "strokes below 20 %"),
        (6, 24, "strokes 20 to 40 %"),
        (6, 12, "strokes above 40 %"),
        (40, 120, "block"),
    ],
)
def test_mask_classes(thickness: int, every: int, expected: str) -> None:
    """Bars of one thickness at a distance: share = thickness / every, median depth about a quarter of the thickness."""
    known = np.ones((1, 60, 240), np.float32)
    known[:, :, np.arange(240) % every < thickness] = 0
    known[:, :, :1] = known[:, :, -1:] = 1
    assert inpaint.mask_class(known) == expected


def test_the_square_is_a_block_and_a_thin_mask_is_not() -> None:
    square = inpaint.centred_square(256, 256)
    assert (square == 0).sum() == 64**2
    assert square[0, 128, 128] == 0
    assert inpaint.mask_class(square) == "block"
    with pytest.raises(ValueError, match="holes and known pixels"):
        inpaint.mask_class(np.ones((1, 8, 8), np.float32))


def test_white_is_known(context: Context) -> None:
    known = inpaint.read_mask(context.data / "inpainting_masks" / "0.png")
    assert known.shape == (1, SIDE, SIDE)
    assert known[0, 0, :6].tolist() == [0, 0, 0, 0, 1, 1]


def test_small_photos_are_refused() -> None:
    with pytest.raises(ValueError, match=r"at least as large as the masks, 96 x 96; got \(48, 64\)"):
        inpaint.middle(np.zeros((3, 48, 64), np.float32), 96, 96)


def test_a_latent_variant_is_measured_beside_the_model(context: Context) -> None:
    both = replace(context, peers=False, bundles=models(Smooth(), Smooth()))
    table = superres.run(both)
    latent, bicubic = (table.row(name).scores["x2"] for name in ("ours, latent, 1 step", "bicubic"))
    assert latent == pytest.approx({**bicubic, "PSNR RGB gain": 0.0}, abs=1e-5)
    assert set(table.row("ours, latent, 10 steps").scores) == {"x4, 2 photos"}
    assert not any("latent" in flag for flag in table.flags)


def test_steps_are_named(context: Context) -> None:
    assert tuple(STEPS_OF.values()) == STEPS == (1, 2, 4, 10, 25, 50)
    assert list(STEPS_OF)[:2] == ["ours, 1 step", "ours, 2 steps"]
