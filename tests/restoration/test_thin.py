"""Thin slices from thick ones: what was measured stays, the expert adds the rest, the grid is right."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from monai_sasm.bundles import Bundle, load
from monai_sasm.cli.main import app
from monai_sasm.degradations.slice_profile import SliceProfile
from monai_sasm.errors import BundleError, RefusedError
from monai_sasm.evaluation.restoring import with_weights
from monai_sasm.io.volume import Volume
from monai_sasm.restoration.restorer import Restorer
from monai_sasm.restoration.thin import Thinning, thin_count, thin_derivation, thin_volume, usual_strength, work_units
from monai_sasm.types import Modality
from tests.data import mr_volume
from tests.rows import check_rows
from tests.toy_bundles import write_gain_expert


class Sharpen(torch.nn.Module):
    """Adds what a 3 x 3 mean takes away: a restorer of edges without training."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        padded = torch.nn.functional.pad(image, (1, 1, 1, 1), mode="replicate")
        return image + (image - torch.nn.functional.avg_pool2d(padded, 3, 1))


class Shift(torch.nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image + 0.5


def restorer(**networks: torch.nn.Module) -> Restorer:
    experts = {
        name: Bundle(
            name,
            Path("nowhere"),
            "expert",
            Modality.CT if name == "for_ct" else Modality.MR,
            "low-resolution",
            False,
            "1",
            "ab" * 32,
            network,
            {"sasm": {}},
        )
        for name, network in networks.items()
    }
    return Restorer.of(experts)


def phantom() -> np.ndarray:
    """Smooth blobs with edges, ``(24, 20, 18)``, 0 to about 800."""
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, side) for side in (24, 20, 18)), indexing="ij"))
    radius = np.sqrt(((grid - np.array([0.1, 0.0, -0.1])[:, None, None, None]) ** 2).sum(0))
    return (800 / (1 + np.exp(12 * (radius - 0.6))) + 100 * np.sin(6 * grid[0]) ** 2).astype(np.float32)


def thick(factor: int = 4, kind: str = "slab") -> Volume:
    """The phantom as a scanner with thick slices along the first axis would see it."""
    profile = SliceProfile(24 // factor, 24, kind)
    return Volume(profile.measure(phantom())[None], Modality.MR, np.diag([4.0, 1, 1, 1]), slice_axis=0)


def error(volume: Volume) -> float:
    return float(np.sqrt(((volume.array[0] - phantom()) ** 2).mean()))


def test_time_points_become_thin_each_as_it_would_alone() -> None:
    volume = thick()
    both = replace(volume, array=np.concatenate([volume.array, volume.array / 64]))
    house, options = restorer(shift=Shift(), sharpen=Sharpen()), Thinning("sharpen", 4, sigma=10.0)
    thin = thin_volume(both, house, options)
    np.testing.assert_array_equal(thin.array[:1], thin_volume(volume, house, options).array)
    np.testing.assert_allclose(64 * thin.array[1], thin.array[0], rtol=1e-5)


@pytest.mark.parametrize("kind", ["slab", "sinc"])
def test_acquired_slices_come_back_whatever_the_expert_does(kind: str) -> None:
    volume = thick(kind=kind)
    result = thin_volume(volume, restorer(shift=Shift()), Thinning("shift", 4, profile=kind))
    assert result.array.shape == (1, 24, 20, 18)
    measured = SliceProfile(6, 24, kind).measure(result.array[0])
    untouched = (result.array[0] > volume.array.min()).all(0)  # no value of the column was raised to the lowest
    assert untouched.mean() > 0.3
    np.testing.assert_allclose(measured[:, untouched], volume.array[0][:, untouched], atol=0.01)


def test_an_expert_that_sharpens_comes_nearer_to_the_truth() -> None:
    volume, experts = thick(), restorer(sharpen=Sharpen())
    plain = thin_volume(volume, experts, Thinning("sharpen", 4, strength=0))
    restored = thin_volume(volume, experts, Thinning("sharpen", 4, strength=1))
    half = thin_volume(volume, experts, Thinning("sharpen", 4, strength=0.5))
    nearest = np.repeat(volume.array[0], 4, axis=0)
    assert error(plain) < 0.8 * float(np.sqrt(((nearest - phantom()) ** 2).mean()))
    assert error(restored) < 0.99 * error(plain)
    assert not np.array_equal(half.array, plain.array)
    inside = (restored.array > volume.array.min()) & (plain.array > volume.array.min())
    np.testing.assert_allclose(half.array[inside], ((restored.array + plain.array) / 2)[inside], atol=0.5)


def test_the_thicker_slices_are_the_less_is_added() -> None:
    assert [usual_strength(factor) for factor in (1.5, 3, 4, 5, 12)] == pytest.approx([0.6, 0.6, 0.5, 0.4, 0.4])
    volume, experts = thick(), restorer(sharpen=Sharpen())
    usual, told = (thin_volume(volume, experts, Thinning("sharpen", 4, strength=one)).array for one in (None, 0.5))
    np.testing.assert_allclose(usual, told, rtol=1e-5)
    derivations = [thin_derivation(experts, Thinning("sharpen", 4, strength=one)) for one in (None, 0.5)]
    assert [one.parameters["strength"] for one in derivations] == ["by thickness", 0.5]


def test_both_families_of_planes_are_restored() -> None:
    seen: list[tuple[int, ...]] = []

    class Witness(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            seen.append(tuple(image.shape))
            return image

    volume, options = thick(), Thinning("witness", 4)
    steps: list[int] = []
    thin_volume(volume, restorer(witness=Witness()), options, steps.append)
    assert {shape[1:] for shape in seen} == {(1, 24, 18), (1, 24, 20)}
    assert sum(shape[0] for shape in seen) == 20 + 18
    assert sum(steps) == work_units(volume, options) == 18 + 20
    assert len(steps) == 5 + 5


def test_isotropic_means_slices_as_thin_as_pixels_are_wide() -> None:
    affine = np.diag([0.6875, 0.6875, 6.4, 1])
    volume = Volume(np.zeros((1, 40, 36, 22), np.float32), Modality.MR, affine, slice_axis=2)
    count = thin_count(volume, None)
    assert count == 205
    assert 22 * 6.4 / count == pytest.approx(0.6875, rel=2e-3)
    assert thin_count(volume, 2.5) == 55


def test_what_cannot_be_thinned_is_refused() -> None:
    experts = restorer(sharpen=Sharpen(), for_ct=Sharpen())
    cube = Volume(np.zeros((1, 8, 8, 8), np.float32), Modality.MR, np.eye(4), slice_axis=2)
    with pytest.raises(RefusedError, match="nothing to thin"):
        thin_volume(cube, experts, Thinning("sharpen"))
    far = Volume(cube.array, Modality.MR, np.diag([0.2, 0.2, 8, 1]), slice_axis=2)
    with pytest.raises(RefusedError, match="at most 16"):
        thin_volume(far, experts, Thinning("sharpen"))
    ct = Volume(cube.array, Modality.CT, np.diag([1, 1, 4.0, 1]), slice_axis=2)
    with pytest.raises(RefusedError, match="this is CT"):
        thin_volume(ct, experts, Thinning("sharpen"))
    with pytest.raises(
        BundleError, match=r"for_ct is for CT and low-resolution; thin slices need an expert .*: sharpen$"
    ):
        thin_volume(cube, experts, Thinning("for_ct"))
    with pytest.raises(BundleError, match="no expert named 'unet'; available: for_ct, sharpen"):
        thin_volume(cube, experts, Thinning("unet"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"factor": 1}, "above 1"),
        ({"strength": 2}, "between 0 and 1"),
        ({"sigma": -1}, "sigma"),
        ({"sigma": 0}, "finite and above 0, got 0; leave it out"),
        ({"profile": "x"}, "profile must be one of"),
    ],
)
def test_wrong_options_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Thinning("sharpen", **wrong)


@pytest.mark.parametrize("expert", ["noise_mri_unet", "lowdose_ct_unet"])
def test_experts_for_other_faults_are_refused_before_anything_is_loaded(
    expert: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monai_sasm.restoration.restorer.Restorer.__init__", lambda *a, **b: pytest.fail("loaded"))
    arguments = ["thin", str(tmp_path), "-o", str(tmp_path / "out"), "--expert", expert]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    told = f"{expert} is for {'MR and noise' if 'mri' in expert else 'CT and low-dose'}; thin slices need"
    names = ", ".join(f"superres_mri_{kind}" for kind in ("dit", "esrgan", "sit", "unet"))
    assert f"{told} an expert for MR and low-resolution: {names}" in " ".join(result.output.split())


def test_an_expert_for_noise_makes_no_thin_slices() -> None:
    noise = replace(restorer(noise=Sharpen()).experts["noise"], degradation="noise")
    with pytest.raises(BundleError, match=r"noise is for MR and noise; thin slices need .*: none$"):
        thin_volume(thick(), Restorer.of({"noise": noise}), Thinning("noise"))


def test_an_expert_may_have_other_weights_for_thick_slices(tmp_path: Path) -> None:
    folder = write_gain_expert(tmp_path / "mine", 0.6, "MR", "low-resolution")
    described = folder / "configs" / "metadata.json"
    metadata = json.loads(described.read_text())
    described.write_text(json.dumps({**metadata, "sasm": {**metadata["sasm"], "thinning": "across"}}))
    with pytest.raises(BundleError, match=r"across.yaml is missing; the bundle has no variant 'across'"):
        Restorer(trust=[folder]).check(Thinning("mine"))
    (folder / "configs" / "across.yaml").write_text("weights: $@bundle_root + '/models/across_model.pt'\n")
    weights = folder / "models" / "across_model.pt"
    torch.save({"weight": 0.8 * torch.eye(1)[..., None, None], "bias": torch.zeros(1)}, weights)
    house = Restorer(trust=[folder])
    alone = Restorer.of({"mine": load(folder)})
    for one in (house, alone, house.including({"other": load(folder)}), alone.including({"mine": load(folder)})):
        assert [float(one.expert("mine", thinning=thinning).network.weight) for thinning in (False, True)] == [  # type: ignore[arg-type]
            pytest.approx(0.6),
            pytest.approx(0.8),
        ]
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert thin_derivation(house, Thinning("mine")).models == {"mine": digest}
    other = alone.including({"mine": with_weights(load(folder), weights)})  # compared in the place of both
    assert float(other.expert("mine", thinning=True).network.weight) == pytest.approx(0.8)  # type: ignore[arg-type]
    described.write_text(json.dumps({**metadata, "sasm": {**metadata["sasm"], "thinning": 1}}))
    with pytest.raises(BundleError, match=r"sasm.thinning names the variant .*, got 1"):
        load(folder)


def test_the_derivation_tells_expert_and_options() -> None:
    done = thin_derivation(restorer(sharpen=Sharpen()), Thinning("sharpen"))
    assert done.models == {"sharpen": "ab" * 32}
    assert done.parameters["factor"] == "isotropic"
    assert done.digest != thin_derivation(restorer(sharpen=Sharpen()), Thinning("sharpen", 2)).digest


def test_the_command_writes_an_isotropic_file(tmp_path: Path, toy_restorer: Restorer) -> None:
    toy_restorer.experts.sections["toy_mr"]["degradation"] = "low-resolution"
    image = nibabel.load(mr_volume())  # type: ignore[attr-defined]
    values = np.asarray(image.dataobj)[..., ::5][..., :5]
    affine = image.affine @ np.diag([1, 1, 5, 1])
    nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / "thick_T1w.nii.gz")  # type: ignore[attr-defined]
    arguments = ["thin", str(tmp_path / "thick_T1w.nii.gz"), "-o", str(tmp_path / "out"), "--expert", "toy_mr"]
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    row = json.loads(result.stdout)
    check_rows([row])
    assert row["summary"] == {"slices": 25, "voxel_mm": [2.0, 2.0, 2.0]}
    thin = nibabel.load(row["output"]["path"])  # type: ignore[attr-defined]
    assert thin.shape == (33, 41, 25)
    np.testing.assert_allclose(thin.affine @ [0, 0, 2, 1], affine @ [0, 0, 0, 1], atol=1e-4)
    sidecar = json.loads((tmp_path / "out" / "thick_T1w.json").read_text())
    assert sidecar["Parameters"]["factor"] == "isotropic"
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 3
    assert CliRunner().invoke(app, [*arguments[:-1], "absent", "--overwrite"]).exit_code == 2


@pytest.mark.parametrize(("kind", "factor"), [("slab", 4), ("sinc", 4), ("slab", 3.7)])
def test_constant_background_stays_to_the_last_bit_throughout_its_slices(kind: str, factor: float) -> None:
    rows, columns = np.mgrid[:40, :44]
    sizes = np.array([8, 13, 17, 15, 10, 0])[:, None, None]  # of the brain in each slice; none in the last one
    brain = np.hypot(rows - 20, columns - 22)[None] < sizes
    values = np.where(brain, 300 + 200 * np.random.default_rng(0).random(brain.shape), 0).astype(np.float32)
    volume = Volume(values[None], Modality.MR, np.diag([4.0, 1, 1, 1]), slice_axis=0)
    fine = thin_volume(volume, restorer(shift=Shift()), Thinning("shift", factor, profile=kind)).array[0]
    count = len(fine)
    for place in range(count):
        first, last = int(place * 6 / count + 1e-6), int(np.ceil((place + 1) * 6 / count - 1e-6))
        outside = ~brain[first:last].any(0)
        assert not fine[place][outside].any()
        assert fine[place][~outside].any() or outside.all()
