"""Slices that are restored at the same time, and in batches, come out as one after the other does."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from monai_sasm.io.volume import Volume
from monai_sasm.restoration.options import Options
from monai_sasm.restoration.plan import Plan
from monai_sasm.restoration.restored import Restored
from monai_sasm.restoration.restorer import Restorer
from monai_sasm.types import Modality
from tests.toy_bundles import bundle


class _Smoother(torch.nn.Module):
    """A convolution over a slice and its neighbours; it knows how many threads were in it at the same time."""

    neighbours = 1

    def __init__(self, together: threading.Barrier | None = None) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.nn.Parameter(torch.rand(1, 3, 5, 5, generator=generator) / 100, requires_grad=False)
        self.together = together

    def forward(self, slab: torch.Tensor, sigma: torch.Tensor | None = None) -> torch.Tensor:
        if self.together is not None:
            self.together.wait(60)
        return slab[:, 1:2] + torch.nn.functional.conv2d(slab, self.weight, padding=2)


class _ByBrightness(torch.nn.Module):
    classes = ("clean", "smooth")

    def forward(self, image: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        blocks = torch.nn.functional.avg_pool2d(image[:, :1], 8, ceil_mode=True)
        return torch.cat([torch.zeros_like(blocks), 8 * (blocks - 0.4)], 1)


def restorer(modality: Modality, network: torch.nn.Module | None = None) -> Restorer:
    experts = {"smooth": bundle("smooth", "expert", modality, network or _Smoother())}
    return Restorer.of(experts, bundle("gate", "gate", None, _ByBrightness()))


def volume(modality: Modality, count: int = 23) -> Volume:
    """Noise that gets brighter, with a corner of one value, and in CT some padding in every third slice."""
    generator = np.random.default_rng(0)
    array = generator.normal(60, 30, (1, count, 40, 48)) + np.linspace(0, 200, count)[:, None, None]
    array = np.abs(array) if modality is Modality.MR else array
    array[..., :12, :12] = 0 if modality is Modality.MR else -1024
    if modality is Modality.CT:
        array[:, ::3, 30:, 30:] = -2000
        array[:, 1, 5, 40] = -2000  # a single pixel of that value is no padding
    return Volume(array.astype(np.float32), modality, np.diag([1.0, 1, 1, 1]), slice_axis=0)


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def restored(modality: Modality, threads: int, batch: int, monkeypatch: pytest.MonkeyPatch) -> Restored:
    torch.set_num_threads(threads)
    monkeypatch.setattr(Plan, "batch", lambda *_: batch)
    image = volume(modality)
    result = restorer(modality)(image, Options(keep_maps=True), in_place=True)
    assert result.volume.array is image.array
    assert torch.get_num_threads() == threads
    return result


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("modality", [Modality.CT, Modality.MR])
@pytest.mark.parametrize(("threads", "batch"), [(2, 1), (4, 1), (1, 16), (3, 4)])
def test_the_outcome_is_the_same(modality: Modality, threads: int, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    one, several = (restored(modality, *how, monkeypatch) for how in ((1, 1), (threads, batch)))
    assert one.changed
    before = volume(modality).array
    if batch == 1:
        np.testing.assert_array_equal(several.volume.array, one.volume.array)
        np.testing.assert_array_equal(several.weights["smooth"], one.weights["smooth"])
    np.testing.assert_allclose(several.volume.array, one.volume.array, rtol=1e-5, atol=1e-3)
    np.testing.assert_array_equal(several.volume.array == before, one.volume.array == before)
    np.testing.assert_allclose(several.weights["smooth"], one.weights["smooth"], atol=1e-6)
    for name in ("weights", "noise", "noise_after", "passes"):
        assert several.summary[name] == pytest.approx(one.summary[name], rel=1e-5)


@pytest.mark.usefixtures("threads")
def test_two_slices_are_in_the_network_at_the_same_time_and_progress_is_told_in_order() -> None:
    torch.set_num_threads(2)
    told: list[tuple[int, str]] = []
    restorer(Modality.CT, _Smoother(threading.Barrier(2)))(
        volume(Modality.CT, 4),
        Options(expert="smooth"),
        progress=lambda units: told.append((units, threading.current_thread().name)),
    )
    assert told == [(1, threading.current_thread().name)] * 4


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_whoever_watches_may_stop_it(error: type[BaseException]) -> None:
    torch.set_num_threads(2)
    done: list[int] = []

    def stop(units: int) -> None:
        done.append(units)
        if len(done) == 3:
            raise error

    running = threading.active_count()
    with pytest.raises(error):
        restorer(Modality.CT)(volume(Modality.CT), progress=stop)
    assert len(done) == 3
    assert threading.active_count() == running
    assert torch.get_num_threads() == 2


class _Broken(_Smoother):
    def forward(self, slab: torch.Tensor, sigma: torch.Tensor | None = None) -> torch.Tensor:
        raise RuntimeError("out of memory")


@pytest.mark.usefixtures("threads")
def test_an_error_in_a_thread_is_told() -> None:
    torch.set_num_threads(4)
    with pytest.raises(RuntimeError, match="out of memory"):
        restorer(Modality.CT, _Broken())(volume(Modality.CT), Options(expert="smooth"))
    assert torch.get_num_threads() == 4


@pytest.mark.usefixtures("threads")
def test_restorations_in_threads_leave_torch_all_of_its_own() -> None:
    """Whoever begins while another one is at work finds torch with fewer threads, and must not leave it so."""
    torch.set_num_threads(4)
    alone = restorer(Modality.CT)(volume(Modality.CT))
    begun, ended = threading.Event(), threading.Event()
    results: list[Restored] = []
    told: list[int] = []

    def first(_units: int) -> None:
        if not begun.is_set():
            begun.set()
            later = threading.Thread(target=second)  # knows only what torch has by now
            later.start()
            told.append(torch.get_num_threads())
            waiting.append(later)

    def second() -> None:
        def wait(_units: int) -> None:
            ended.wait(60)  # until the first one is done

        results.append(restorer(Modality.CT)(volume(Modality.CT), progress=wait))

    waiting: list[threading.Thread] = []
    results.append(restorer(Modality.CT)(volume(Modality.CT), progress=first))
    ended.set()
    waiting[0].join()
    assert told == [1], "the first one shared the threads out"
    for result in results:
        np.testing.assert_array_equal(result.volume.array, alone.volume.array)
    found: list[int] = []
    new = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    new.start()
    new.join()
    assert found == [torch.get_num_threads()] == [4]
