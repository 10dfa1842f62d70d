"""Region masks: a partition, balanced, seeded, the same at every size."""

from __future__ import annotations

import pytest
import torch

from monai_sasm.degradations.mask import region_labels, region_weights

SHAPE = (6, 3, 96, 144)


@pytest.mark.parametrize("regions", [1, 2, 3, 5])
def test_every_region_gets_its_share(regions: int) -> None:
    labels = region_labels(SHAPE, regions, _generator())
    assert labels.shape == (6, 1, 96, 144)
    assert labels.dtype == torch.int64
    for image in labels:
        share = torch.bincount(image.flatten(), minlength=regions) / image.numel()
        assert len(share) == regions
        assert float((share - 1 / regions).abs().max()) < 0.1


def test_regions_are_smooth() -> None:
    labels = region_labels(SHAPE, 3, _generator())
    across = (labels[..., 1:] != labels[..., :-1]).float().mean()
    down = (labels[..., 1:, :] != labels[..., :-1, :]).float().mean()
    assert 0.01 < float(across + down) < 0.15


def test_seed_decides() -> None:
    assert torch.equal(region_labels(SHAPE, 3, _generator(1)), region_labels(SHAPE, 3, _generator(1)))
    assert not torch.equal(region_labels(SHAPE, 3, _generator(1)), region_labels(SHAPE, 3, _generator(2)))


def test_regions_do_not_depend_on_size() -> None:
    small = region_labels((1, 3, 65, 65), 3, _generator())
    large = region_labels((1, 3, 129, 129), 3, _generator())
    assert float((large[..., ::2, ::2] == small).float().mean()) > 0.99


def test_weights_partition_and_agree_with_labels() -> None:
    weights = region_weights(SHAPE, 3, _generator(), softness=0.2)
    assert weights.shape == (6, 3, 96, 144)
    assert torch.allclose(weights.sum(dim=1), torch.ones(6, 96, 144), atol=1e-5)
    assert float(weights.min()) >= 0
    assert torch.equal(weights.argmax(dim=1, keepdim=True), region_labels(SHAPE, 3, _generator()))
    soft = ((weights > 0.1) & (weights < 0.9)).float().mean()
    hard = region_weights(SHAPE, 3, _generator(), softness=0.02)
    assert float(((hard > 0.1) & (hard < 0.9)).float().mean()) < float(soft)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="regions"):
        region_labels(SHAPE, 0, _generator())
    with pytest.raises(ValueError, match="scale"):
        region_labels(SHAPE, 2, _generator(), scale=0)
    with pytest.raises(ValueError, match="softness"):
        region_weights(SHAPE, 2, _generator(), softness=0)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
