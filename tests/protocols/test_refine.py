"""The refinement protocol on a small photo, with refiners whose effect is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from torch import nn

from monai_sasm.evaluation.mobilenet import mobilenet_distance
from monai_sasm.evaluation.restoring import DEFAULT
from monai_sasm.evaluation.scoring import Case, Tally
from monai_sasm.optional import torchvision
from monai_sasm.protocols import refine
from monai_sasm.refine.flow import FlowRefiner

CLEAN = (skimage.data.astronaut()[60:124, 160:240].transpose(2, 0, 1) / 255).astype(np.float32)


class Missing(nn.Module):
    """Predicts what is missing at the clean photo's place, plus an offset; counts its calls."""

    def __init__(self, missing: np.ndarray, offset: float = 0.0) -> None:
        super().__init__()
        self.missing = nn.Parameter(2 * torch.from_numpy(missing) + offset)
        self.calls = 0

    def forward(self, x: torch.Tensor, timesteps: torch.Tensor, **_: Any) -> torch.Tensor:
        self.calls += 1
        return self.missing.expand(len(x), -1, -1, -1)


def case(blur: float = 0.5) -> Case:
    """The clean photo, and one that has lost a part of its fine structure."""
    coarse = CLEAN[:, ::2, ::2].repeat(2, 1).repeat(2, 2)
    mixed = (CLEAN + blur * (coarse - CLEAN)).astype(np.float32)
    return Case("a", "noise 25", CLEAN, mixed, facts={"input": CLEAN})


def pixel_error(clean: np.ndarray, image: np.ndarray) -> dict[str, float]:
    return {"VGG19-n": 100 * float(np.abs(clean - image).mean())}


def scores(refiner: FlowRefiner) -> dict[str, dict[str, float]]:
    scorer = refine.Scorer(pixel_error, Tally())
    start = case()
    scorer.add(DEFAULT, start, start.degraded, seconds=1.0)
    shown = refine.measure(start, refiner, scorer)
    assert {"trust", "refined, 1 step", "refined, 4 steps"} <= set(shown)
    return {name: found["noise 25", "a"] for name, found in scorer.tally.scores.items()}


def test_a_perfect_refiner_gains_everything() -> None:
    rows = scores(FlowRefiner(Missing(CLEAN - case().degraded), pin=0.0))
    assert rows[DEFAULT]["gain"] == 0
    assert rows[DEFAULT]["VGG19-n change, %"] == 0
    assert rows["refined, 1 step"]["VGG19-n change, %"] == pytest.approx(-100, abs=0.1)
    assert rows["refined, 1 step"]["gain"] > 30
    assert rows["refined, strength 0.7"]["VGG19-n change, %"] == pytest.approx(-70, abs=0.1)
    assert rows["refined, strength 0.7"]["gain"] == pytest.approx(20 * np.log10(1 / 0.3), abs=0.05)
    assert rows["refined, 1 step"]["gradient ratio"] == pytest.approx(1, abs=1e-3)


def test_pinning_shows_in_the_drift() -> None:
    rows = scores(FlowRefiner(Missing(np.zeros_like(CLEAN), offset=0.2)))
    assert rows["refined, without pinning"]["drift"] == pytest.approx(25.5, abs=0.1)
    assert rows["refined, 1 step"]["drift"] < 0.1


def test_settings_are_those_of_one_run_only() -> None:
    network = Missing(np.zeros_like(CLEAN))
    refiner = FlowRefiner(network, steps=2)
    refine.refine_with(refiner, case(), steps=5)
    assert (network.calls, refiner.steps) == (5, 2)


def test_cases_have_every_fault(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray((255 * CLEAN.transpose(1, 2, 0)).astype(np.uint8)).save(path)
    cases = refine.degraded_cases([path])
    assert [found.level for found in cases] == ["noise 25", "raindrops", "regions"]
    assert float((cases[0].degraded - cases[0].clean).std()) == pytest.approx(25 / 255, rel=0.05)
    assert all(float(np.abs(found.degraded - found.clean).max()) > 0.02 for found in cases)


def test_mobilenet_distance_grows_with_blur(tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights = tmp_path / "weights.pth"
    torch.save(torchvision().models.mobilenet_v2(weights=None).state_dict(), weights)
    found = [mobilenet_distance(CLEAN, case(blur).degraded, weights) for blur in (0.0, 0.3, 1.0)]
    assert found[0] == 0
    assert 0 < found[1] < found[2]
