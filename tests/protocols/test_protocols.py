"""Every protocol on tiny data made here: file layout, levels, self-test rows; measured data where they are present."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_sasm.evaluation import ct_denoising, peers
from monai_sasm.evaluation.batch_overhead import batch_overhead
from monai_sasm.evaluation.context import Context
from monai_sasm.evaluation.data import cbsd68, data_hash
from monai_sasm.evaluation.metrics import psnr
from monai_sasm.evaluation.scoring import Case
from monai_sasm.evaluation.stages import network_rate, stage_times
from monai_sasm.evaluation.synthetic_series import write_ct_series
from monai_sasm.protocols import ct_lowdose, gate, mixed, photo_awgn, speed
from monai_sasm.protocols.evaluate import evaluate_in
from monai_sasm.types import Modality
from tests.data import CHECKOUT, DATA
from tests.evaluation.networks import blurring

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="measured data absent: set SASM_DATA to the data folder")
OURS, DEFAULT = "expert noise_photo_unet, sigma given", "default pipeline"


def test_photo_noise(context: Context) -> None:
    table = evaluate_in(context, "photo-awgn")
    assert list(table.row("input").scores) == [f"{name} {s}" for name in ("CBSD68", "Set12") for s in (15, 25, 50)]
    assert table.row("input").n["CBSD68 25"] == 2
    assert table.row("input").scores["CBSD68 25"]["PSNR"] == pytest.approx(20.17, abs=0.15)
    assert table.row(OURS).scores["CBSD68 50"]["PSNR"] > table.row("input").scores["CBSD68 50"]["PSNR"] + 3
    assert table.row("DnCNN (published)").scores["CBSD68 25"]["PSNR 8-bit"] == 31.24
    picture = context.output / "photo-awgn.png"
    assert picture.stat().st_size > 0
    page = (context.output.parent / "RESULTS.md").read_text(encoding="utf-8")
    assert f"{table.row(OURS).scores['CBSD68 25']['PSNR']:.2f}" in page


def test_photo_noise_is_one_stream_over_the_sorted_files(context: Context) -> None:
    paths = cbsd68(context.data)
    assert [path.stem for path in paths] == ["a", "b"]
    first, second = photo_awgn.noisy_cases(paths, "CBSD68")[:2]
    random = np.random.RandomState(0)
    for case in (first, second):
        expected = random.normal(0, 15 / 255, (*case.clean.shape[1:], 3)).transpose(2, 0, 1)
        assert case.degraded - case.clean == pytest.approx(expected, abs=1e-6)


def test_noise_of_real_cameras(context: Context) -> None:
    folder, random = context.data / "natural" / "cc15", np.random.default_rng(1)
    for path in folder.iterdir():
        path.unlink()
    scene = np.broadcast_to(np.linspace(60, 190, 64)[None, :, None], (48, 64, 3))
    for name in ("a", "b"):
        Image.fromarray(scene.astype(np.uint8)).save(folder / f"{name}_mean.png")
        Image.fromarray((scene + random.normal(0, 8, scene.shape)).astype(np.uint8)).save(folder / f"{name}_real.png")
    table = evaluate_in(context, "photo-real")
    rows = {row.method: row.scores["CC15"] for row in table.rows}
    assert table.row("input").n == {"CC15": 2}
    assert rows["input"]["PSNR"] == pytest.approx(20 * np.log10(255 / 8), abs=0.3)
    assert rows["expert noise_photo_unet"]["PSNR"] > rows["input"]["PSNR"] + 2
    assert rows["expert noise_photo_unet"]["gradient"] < rows["input"]["gradient"]
    assert set(rows) == {"input", "expert noise_photo_unet", "expert noise_photo_unet, sigma given", DEFAULT}


def test_raindrops(context: Context) -> None:
    table = evaluate_in(context, "raindrop-real")
    assert {"pair 0", "pair 1"} <= set(table.row("input").scores)
    assert set(table.row("expert raindrop_photo_unet").scores["pair 1"]) >= {"PSNR Y", "SSIM Y", "PSNR RGB", "SSIM RGB"}
    assert any("leave-one-out" in flag for flag in table.flags)


def test_rendered_raindrops_leave_the_rest_of_the_photo(context: Context) -> None:
    table = evaluate_in(context, "raindrop-synth")
    scores = table.row("input").scores[""]
    assert scores["PSNR outside"] > scores["PSNR in drops"]


@pytest.mark.parametrize("protocol", ["raindrop-synth", "raindrop-real"])
def test_limit_is_kept_and_flagged(context: Context, protocol: str) -> None:
    limited = Context(context.data, context.output, limit=1, peers=False, bundles=context.bundles)
    table = evaluate_in(limited, protocol)
    assert "not the protocol's number" in table.flags[0]
    assert list(table.row("input").n.values()) == [1]


@pytest.mark.parametrize("protocol", ["mixed", "gate", "refine"])
def test_without_a_gate_there_is_nothing_to_measure(context: Context, protocol: str) -> None:
    without = replace(context, bundles=blurring(gate=False))
    assert evaluate_in(without, protocol).skipped == "no gate bundle is installed"


def test_the_hash_of_the_gates_data_is_over_all_of_them(context: Context) -> None:
    (context.data / "raindrop/unpaired").mkdir(exist_ok=True)
    shutil.copy(next((context.data / "raindrop/pairs/data").iterdir()), context.data / "raindrop/unpaired")
    used = {path.relative_to(context.data).as_posix() for path in gate._used(context)}
    held_out = {"L192_B30f_i078", "L192_D45f_i076"}
    assert held_out < {*ct_lowdose.VALIDATION}
    assert {
        f"ct_ldct_pairs/L192_nifti/{kind}/{name}.nii.gz" for name in held_out for kind in ("full", "quarter")
    } < used


def test_mixed_cases_are_degraded_where_the_oracle_says(context: Context) -> None:
    case = mixed.mixed_cases(cbsd68(context.data)[:1])[0]
    oracle = case.facts["oracle"]
    assert oracle.sum(0) == pytest.approx(np.ones(oracle.shape[1:]), abs=1e-5)
    noisy, clean = oracle[2] > 0.99, oracle[0] > 0.999
    change = case.degraded - case.clean
    assert change[:, noisy].std() == pytest.approx(case.sigma, rel=0.15)
    assert np.abs(change[:, clean]).max() < 0.1  # up to 5 % of the light may come from water there
    assert np.abs(change[:, clean]).mean() < 0.01


def test_composite_equals_the_packages_own_mixing() -> None:
    import torch

    from monai_sasm.functional.mixing import softmix

    random = np.random.default_rng(0)
    image, drops, noise = (random.random((3, 8, 8)).astype(np.float32) for _ in range(3))
    weights = random.dirichlet(np.ones(3), (8, 8)).transpose(2, 0, 1).astype(np.float32)
    ours = softmix(
        torch.from_numpy(image)[None],
        {1: torch.from_numpy(drops)[None], 2: torch.from_numpy(noise)[None]},
        torch.from_numpy(weights)[None],
    )
    named = dict(zip(mixed.FAULTS, weights, strict=True))
    mixture = mixed.composite(image, {mixed.RAINDROP: drops, mixed.NOISE: noise}, named)
    assert mixture == pytest.approx(ours[0].numpy(), abs=1e-6)


def test_routing_scores() -> None:
    oracle = np.zeros((3, 2, 2), np.float32)
    oracle[0, 0], oracle[2, 1] = 1, 1
    right = dict(zip(mixed.FAULTS, oracle, strict=True))
    assert mixed.routing_scores(oracle, right) == {"routing": 1.0, "mIoU": 1.0}
    wrong = {**right, mixed.RAINDROP: oracle[2] * 2}
    assert mixed.routing_scores(oracle, wrong) == {"routing": 0.5, "mIoU": pytest.approx(1 / 3)}


def test_pixel_calibration_leaves_traces_of_water_out() -> None:
    """Drops above, a trace of water and then nothing below; what is near a drop may be called either."""
    probabilities = np.zeros((2, 16, 64))
    probabilities[1] = 0.9
    probabilities[0] = 0.1
    mask = np.zeros((16, 64), np.float32)
    mask[:8, :8], mask[8:, :8] = 0.5, 0.05
    confidence, hit = gate._pixels(probabilities, truth=1, mask=mask)
    far = 2 * (64 - 8 - gate.RING) // 8
    assert confidence.tolist() == [0.9] * (1 + far)
    assert hit.tolist() == [True] + [False] * far


def test_uniform_regions_avoid_anatomy() -> None:
    hu = np.full((96, 96), 40.0, np.float32)
    hu[:, 48:] = -900
    hu[:40, :24] += 150 * (np.arange(24) > 12)
    hu += 20 * np.random.default_rng(0).standard_normal(hu.shape).astype(np.float32)
    regions = ct_denoising.uniform_regions(hu)
    assert regions
    for rows, columns in regions:
        assert columns.stop <= 48
        assert rows.start >= 40 or columns.start >= 13


def test_convolution_work_is_counted_once_per_output_pixel() -> None:
    import torch
    from torch import nn

    network = nn.Sequential(nn.Conv2d(2, 5, 3, padding=1), nn.ConvTranspose2d(5, 4, 2, stride=2))
    expected = 2 * (2 * 5 * 9 * 48) + 2 * (5 * 4 * 4 * 48)
    assert speed.conv_flops(network, torch.zeros(1, 2, 6, 8)) == expected


def test_the_ceiling_is_every_convolution_on_the_tensors_it_has() -> None:
    import torch
    from torch import nn

    network = nn.Sequential(nn.Conv2d(2, 5, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(5, 4, 2, stride=2)).eval()
    seen: list[torch.Tensor] = []
    image = torch.rand(1, 2, 6, 8)
    alone = speed.convolutions_alone(network, lambda: network(image))
    for module in (network[0], network[2]):
        module.register_forward_hook(lambda module, given, output: seen.append(given[0]))
    alone()
    assert torch.equal(seen[0], image)
    assert torch.equal(seen[1], torch.relu(network[0](image)))
    assert len(seen) == 3  # the last one is this test's


def test_the_stages_of_a_restoration_are_told_apart() -> None:
    found = stage_times(3, "cpu")
    assert min(found[f"{stage} ms"] for stage in ("read", "gate", "mix", "write")) > 0
    total = sum(found[f"{stage} ms"] for stage in ("read", "gate", "expert", "mix", "write"))
    assert found["slices/s"] == pytest.approx(found["speedup"] * 1e3 / total)
    assert found["speedup"] > 0
    assert found["beside experts"] == pytest.approx(1 - found["expert ms"] / total)


def test_the_rate_of_a_network_counts_every_slice_of_its_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 4.0, 8.0])  # two rounds of three calls
    monkeypatch.setattr("monai_sasm.evaluation.stages.time.perf_counter", lambda: next(clock))
    monkeypatch.setattr("monai_sasm.evaluation.stages.SIZE", 64)
    assert network_rate("cpu", seconds=5.0) == {"network slices/s": 6 / 8, "batch": 1.0}


def test_methods_take_turns() -> None:
    calls: list[str] = []
    times = speed.interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3, {"b": 2})
    assert calls == ["a", "b", "a", "b", "a"]
    assert set(times) == {"a", "b"}


def test_the_overhead_of_a_batch_is_what_its_networks_do_not_take() -> None:
    found = batch_overhead(2, 2, "cpu")
    assert 0 < found["networks s"] < found["batch s"]
    assert found["overhead"] == pytest.approx(found["batch s"] / found["networks s"] - 1)


def test_timed_peers_have_the_strengths_of_the_quality_protocols() -> None:
    kept = json.loads((CHECKOUT / "docs" / "results" / "peers.json").read_text(encoding="utf-8"))
    tuned = {tuple(key.split("|")[1::4]): found["strength"] for key, found in kept.items() if key.startswith("tuning|")}
    levels = {ct_denoising.EXPERT: "L096 D45f (test)", photo_awgn.EXPERT: "CBSD68 25"}
    for expert, level in levels.items():
        for name, (strength,) in speed.STRENGTHS[expert].items():
            untuned = peers.PEERS[name].strengths[0]
            assert strength == tuned.get((name, level), untuned), f"{name} at {level}"
            assert (name, level) in tuned or len(peers.PEERS[name].strengths) == 1


def test_slow_peers_are_really_run_in_every_round(context: Context) -> None:
    pytest.importorskip("bm3d")
    clean = np.full((3, 24, 24), 0.5, np.float32)
    noisy = clean + 0.1 * np.random.default_rng(0).standard_normal(clean.shape).astype(np.float32)
    case = Case("x", "photo", clean, noisy, 0.1)
    task = speed.Task(case, Modality.PHOTO, photo_awgn.EXPERT, scale=1.0, quality=photo_awgn.photo_psnr, given=True)
    rows = speed.compare_speed(replace(context, peers=True), task)
    assert rows["BM3D"]["seconds"] > 10 * rows["NLM fast"]["seconds"] > 0
    assert rows[f"network {photo_awgn.EXPERT}"]["x network"] == 1.0
    assert rows[DEFAULT]["x network"] > 1


def test_synthetic_series_is_read_in_hounsfield_units(tmp_path: Path) -> None:
    from monai_sasm.io.formats import open_images
    from monai_sasm.types import Modality

    write_ct_series(tmp_path / "series", slices=3, size=64)
    (volume,) = open_images(tmp_path / "series")
    assert (volume.modality, volume.array.shape, volume.geometry) == (Modality.CT, (1, 3, 64, 64), "regular")
    assert volume.array[0, 1, 28:36, 28:36].mean() == pytest.approx(40, abs=25)


def test_data_hash_depends_on_names_and_bytes(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"1")
    b.write_bytes(b"2")
    before = data_hash([a, b])
    assert data_hash([b, a]) == before
    b.write_bytes(b"3")
    assert data_hash([a, b]) != before


@needs_data
def test_colour_benchmark_input_has_its_known_psnr() -> None:
    case = next(case for case in photo_awgn.noisy_cases(cbsd68(DATA)[:3], "CBSD68") if case.level == "CBSD68 25")
    assert len(cbsd68(DATA)) == 68
    assert psnr(case.clean, case.degraded, 1.0) == pytest.approx(20.17, abs=0.02)


@needs_data
def test_low_dose_protocol_on_one_real_slice(tmp_path: Path) -> None:
    context = Context(DATA, tmp_path / "results", "cpu", limit=1, peers=False, bundles=blurring())
    table = evaluate_in(context, "ct-lowdose")
    scores = table.row("expert lowdose_ct_unet").scores["L096 D45f (test)"]
    untouched = table.row("input").scores["L096 D45f (test)"]
    assert scores["PSNR"] > untouched["PSNR"] + 2
    assert scores["edge"] > untouched["edge"]
    assert scores["noise"] < untouched["noise"]
    assert abs(untouched["bias"]) < 1
    assert len(table.details["noise_power_spectrum"]["frequency_per_mm"]) == ct_denoising.BINS
