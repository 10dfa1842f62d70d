"""What the gate is taught: shares that sum to one, the later fault first, nothing where nothing changed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_sasm.degradations.gaussian import GaussianNoise
from monai_sasm.functional.noise import NoiseEstimator
from monai_sasm.gate.display import to_display
from monai_sasm.training.gate_bank import DegradedSource, Example, GateBank, PairedSource
from monai_sasm.types import Modality

CLASSES = ("clean", "early", "late", "other")
SIZE = 32


class Given:
    """A source of one example."""

    def __init__(self, example: Example) -> None:
        self.example = example

    def draw(self, generator: torch.Generator) -> Example:
        return self.example


class Brighten:
    """A fault that adds a constant to the left half and says so."""

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> Brighten:
        self.mask = torch.zeros(shape[0], 1, *shape[2:])
        self.mask[..., : shape[3] // 2] = 1
        return self

    def apply(self, clean: torch.Tensor, params: Brighten) -> torch.Tensor:
        return clean + 0.25 * params.mask


def mask(value: float, columns: slice = slice(None)) -> torch.Tensor:
    """``(1, SIZE, SIZE)`` with ``value`` in some columns."""
    result = torch.zeros(1, SIZE, SIZE)
    result[..., columns] = value
    return result


def item(faults: dict[str, torch.Tensor], changed: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
    """The bank's item of a grey CT example."""
    clean = torch.linspace(-0.2, 0.3, SIZE).expand(1, SIZE, SIZE).contiguous()
    degraded = clean + 0.1 * (mask(1) if changed is None else changed)
    bank = GateBank(
        [Given(Example(clean, degraded, faults, Modality.CT))], [1], CLASSES, {}, NoiseEstimator(), augment=False
    )
    return bank[0]


def photos() -> list[np.ndarray]:
    """Two random photos, 8 bit."""
    return [np.random.default_rng(seed).integers(0, 256, (3, 48, 48), dtype=np.uint8) for seed in (0, 1)]


def test_shares_sum_to_one_and_the_later_fault_wins() -> None:
    """A half-transparent fault counts as whole, a mask of 0.05 as none."""
    target = item({"early": mask(1, slice(0, 16)), "late": mask(0.75, slice(8, 24))})["target"]
    assert target.shape == (4, 4, 4)
    torch.testing.assert_close(target.sum(0), torch.ones(4, 4))
    # blocks of 8 columns: early alone, both, late alone, none
    expected = {"clean": [0, 0, 0, 1], "early": [1, 0, 0, 0], "late": [0, 1, 1, 0], "other": [0, 0, 0, 0]}
    for name, shares in expected.items():
        torch.testing.assert_close(target[CLASSES.index(name)], torch.tensor(shares).float().expand(4, 4))


def test_a_faint_fault_is_none() -> None:
    target = item({"late": mask(0.05)})["target"]
    assert float(target[0].min()) == 1


def test_a_fault_that_changed_nothing_is_clean() -> None:
    target = item({"late": mask(1)}, changed=mask(1, slice(0, 8)))["target"]
    torch.testing.assert_close(target[2], torch.tensor([1.0, 0, 0, 0]).expand(4, 4))
    torch.testing.assert_close(target[0], torch.tensor([0.0, 1, 1, 1]).expand(4, 4))


def test_a_partly_covered_block_gets_its_share() -> None:
    assert float(item({"late": mask(1, slice(0, 2))})["target"][2, 0, 0]) == 0.25


def test_the_item_holds_what_the_gate_sees_at_run_time() -> None:
    got = item({"late": mask(1)})
    degraded = torch.linspace(-0.2, 0.3, SIZE).expand(1, 1, SIZE, SIZE) + 0.1
    shown, sigma = to_display(degraded, NoiseEstimator()(degraded), Modality.CT)
    torch.testing.assert_close(got["display"], shown[0], atol=1e-3, rtol=0)
    torch.testing.assert_close(got["sigma"], sigma[0], atol=1e-3, rtol=0)
    torch.testing.assert_close(got["error"], torch.full((3, SIZE, SIZE), 0.1), atol=1e-4, rtol=0)
    assert got["allowed"].tolist() == [True, False, True, False]
    assert not got["corrections"].any()


def test_a_flip_turns_everything_alike() -> None:
    clean = torch.zeros(1, SIZE, SIZE)
    example = Example(clean, mask(0.1, slice(0, 8)), {"late": mask(1, slice(0, 8))}, Modality.CT)
    bank = GateBank([Given(example)], [1], CLASSES, {}, NoiseEstimator(), augment=True)
    seen = set()
    for _ in range(12):
        got = bank[0]
        left = bool(got["target"][2, 0, 0] == 1)
        seen.add(left)
        assert bool(got["error"][0, 0, 0] > 0) == left
        assert bool(got["display"][0, 0, 0] > got["display"][0, 0, 16]) == left
    assert seen == {True, False}


def test_sides_that_are_no_whole_blocks_are_not_flipped() -> None:
    left, clean = torch.zeros(1, SIZE, SIZE - 4), torch.linspace(-0.2, 0.3, SIZE - 4).expand(1, SIZE, SIZE - 4)
    left[..., : (SIZE - 4) // 2] = 1
    bank = GateBank(
        [Given(Example(clean, clean + 0.1 * left, {"late": left}, Modality.CT))], [1], CLASSES, {}, NoiseEstimator()
    )
    for example in (bank[0] for _ in range(16)):
        shares = torch.nn.functional.avg_pool2d((example["error"][:1] != 0).float(), 8, ceil_mode=True)
        torch.testing.assert_close(example["target"][2], shares[0])


def test_the_same_seed_gives_the_same_bank() -> None:
    def bank(seed: int) -> GateBank:
        source = DegradedSource(photos(), "PHOTO", {"late": GaussianNoise(sigma=(0.05, 0.2))}, size=SIZE, seed=seed)
        return GateBank([source], [3], CLASSES, {}, NoiseEstimator(), seed=seed, augment=False)

    first, again, other = bank(0), bank(0), bank(1)
    assert all(torch.equal(first[i][key], again[i][key]) for i in range(3) for key in first[i])
    assert any(not torch.equal(first[i]["display"], other[i]["display"]) for i in range(3))


def test_a_source_of_which_none_is_wanted_is_not_asked() -> None:
    given = [
        Given(Example(torch.zeros(3, 16, 16), torch.full((3, 16, 16), value), {}, Modality.PHOTO))
        for value in (0.0, 1.0)
    ]
    bank = GateBank(given, [0, 2], CLASSES, {}, NoiseEstimator(), augment=False)
    assert [float(item["error"].mean()) for item in (bank[0], bank[1])] == [1.0, 1.0]
    assert len(bank) == 2


def test_faults_fill_only_their_region() -> None:
    source = DegradedSource(
        photos(), "PHOTO", {"early": Brighten(), "late": Brighten()}, size=SIZE, clean_share=0, region_share=1
    )
    generator = torch.Generator().manual_seed(0)
    overlapped = 0
    for _ in range(30):
        example = source.draw(generator)
        said = sum(example.faults.values())
        torch.testing.assert_close(example.degraded - example.clean, 0.25 * said.expand(3, -1, -1))
        assert not said[..., SIZE // 2 :].any()
        overlapped += int(said.max() == 2)
    assert overlapped > 0


def test_clean_examples_have_no_fault() -> None:
    example = DegradedSource(photos(), "PHOTO", {"late": Brighten()}, size=SIZE, clean_share=1).draw(torch.Generator())
    assert torch.equal(example.degraded, example.clean)
    assert not example.faults["late"].any()


def test_pairs_give_the_clean_or_the_measured_image() -> None:
    clean = np.random.default_rng(0).uniform(0, 1, (1, 40, 40)).astype(np.float32)
    source = PairedSource([(clean, clean + 1)], "CT", "late", size=SIZE)
    generator = torch.Generator().manual_seed(0)
    examples = [source.draw(generator) for _ in range(12)]
    faulty = [bool(example.faults["late"].all()) for example in examples]
    assert set(faulty) == {True, False}
    for example, wrong in zip(examples, faulty, strict=True):
        torch.testing.assert_close(example.degraded - example.clean, torch.full((1, SIZE, SIZE), float(wrong)))


def test_wrong_arguments_are_explained() -> None:
    example = Example(mask(0), mask(1), {"unknown": mask(1)}, Modality.CT)
    with pytest.raises(ValueError, match=r"faults must be classes of the gate .*got unknown"):
        GateBank([Given(example)], [1], CLASSES, {}, NoiseEstimator())
    with pytest.raises(ValueError, match="got 2 counts for 1 sources"):
        GateBank([Given(example)], [1, 2], CLASSES, {}, NoiseEstimator())


def test_a_little_of_a_pairs_noise_is_clean_and_most_of_it_is_the_fault() -> None:
    clean = np.zeros((1, 32, 32), np.float32)
    noisy = clean + 0.1
    source = PairedSource([(clean, noisy)], "CT", "late", size=SIZE, tolerated=0.4, faulty=(0.8, 1.2))
    generator = torch.Generator().manual_seed(0)
    drawn = [source.draw(generator) for _ in range(40)]
    shares = {True: [], False: []}
    for example in drawn:
        faulty = bool(example.faults["late"].all())
        shares[faulty].append(float(example.degraded.mean()) / 0.1)
        if not faulty:
            assert torch.equal(example.clean, example.degraded), "the tolerated noise is not to be repaired"
    assert 0 <= min(shares[False]) < max(shares[False]) <= 0.4
    assert 0.8 <= min(shares[True]) < max(shares[True]) <= 1.2
    with pytest.raises(ValueError, match="tolerated < faulty"):
        PairedSource([(clean, noisy)], "CT", "late", size=SIZE, tolerated=1.0)


def test_tolerated_noise_is_in_every_example() -> None:
    images, quiet = [np.full((1, 32, 32), 0.5, np.float32)], GaussianNoise((0.02, 0.02))
    source = DegradedSource(images, "MR", {"late": quiet}, size=SIZE, clean_share=1.0, tolerated=quiet)
    example = source.draw(torch.Generator().manual_seed(0))
    assert float(example.degraded.std()) == pytest.approx(0.02, rel=0.2)
    assert torch.equal(example.clean, example.degraded)
    assert not example.faults["late"].any()


def test_a_spread_fault_grows_but_stays_behind_later_ones() -> None:
    clean = torch.zeros(1, SIZE, SIZE)
    degraded = clean + 0.1 * (mask(1, slice(0, 8)) + mask(1, slice(24, 32)))
    faults = {"early": mask(1, slice(0, 8)), "late": mask(1, slice(24, 32))}
    example = Example(clean, degraded, faults, Modality.CT, spread={"early": 8})
    target = GateBank([Given(example)], [1], CLASSES, {}, NoiseEstimator(), augment=False)[0]["target"]
    torch.testing.assert_close(target[CLASSES.index("early")], torch.tensor([1.0, 1, 0, 0]).expand(4, 4))
    torch.testing.assert_close(target[CLASSES.index("late")], torch.tensor([0.0, 0, 0, 1]).expand(4, 4))


def test_grey_examples_have_grey_faults() -> None:
    noise, generator = GaussianNoise(sigma=(0.1, 0.1)), torch.Generator().manual_seed(0)
    source = DegradedSource(photos(), "PHOTO", {"late": noise}, SIZE, clean_share=0.0, region_share=0.0, grey=1.0)
    example = source.draw(generator)
    assert torch.equal(example.clean, example.clean[:1].expand(3, -1, -1))
    assert torch.equal(example.degraded, example.degraded[:1].expand(3, -1, -1))
    assert float((example.degraded - example.clean)[0].std()) == pytest.approx(0.1, rel=0.1)
    source.tolerated = noise
    example = source.draw(generator)
    assert torch.equal(example.clean, example.clean[:1].expand(3, -1, -1)), "with a tolerated noise, too"
    assert torch.equal(example.degraded, example.degraded[:1].expand(3, -1, -1))
    source.grey, source.tolerated = 0.5, None
    drawn = [source.draw(generator).clean for _ in range(20)]
    assert 4 <= sum(torch.equal(clean[0], clean[1]) for clean in drawn) <= 16


def test_grey_pairs_keep_their_noise() -> None:
    clean = np.random.default_rng(0).random((3, 40, 40), dtype=np.float32)
    noisy = clean + np.float32(0.1)
    source = PairedSource([(clean, noisy)], "PHOTO", "late", SIZE, faulty=(1.0, 1.0), grey=1.0)
    example = source.draw(torch.Generator().manual_seed(0))
    assert torch.equal(example.degraded, example.degraded[:1].expand(3, -1, -1))
    difference = example.degraded - example.clean
    expected = 0.1 * float(example.faults["late"].max())
    torch.testing.assert_close(difference, torch.full_like(difference, expected))
