"""``speed``: interleaved timings against peers and against this machine's own ceiling, input and output, and peak
memory.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from monai_sasm.evaluation import ct_denoising as ct
from monai_sasm.evaluation import peers
from monai_sasm.evaluation.batch_overhead import BATCH_DEFINITIONS, batch_overhead
from monai_sasm.evaluation.context import Context, torch_device
from monai_sasm.evaluation.data import cbsd68, ct_pairs, data_hash
from monai_sasm.evaluation.memory import COPY, peak_memory
from monai_sasm.evaluation.restoring import DEFAULT, pipeline_methods
from monai_sasm.evaluation.scoring import Case, Image
from monai_sasm.evaluation.stages import STAGE_DEFINITIONS, stage_times
from monai_sasm.evaluation.table import Row, Table
from monai_sasm.functional.intensity import HU_PER_UNIT
from monai_sasm.protocols.ct_lowdose import pair_case
from monai_sasm.protocols.photo_awgn import EXPERT, noisy_cases, photo_psnr
from monai_sasm.types import Modality

if TYPE_CHECKING:
    from torch import nn

PROTOCOL = "speed"
CEILING = "its convolutions alone"
ROUNDS = 7
STRENGTHS = {  # as ct-lowdose tunes them for L096 D45f and photo-awgn for CBSD68 25; a test compares them
    ct.EXPERT: {"NLM fast": (0.7,), "BM3D": (1.4,)},
    EXPERT: {"NLM fast": (0.4,), "BM3D": (1.0,)},
}
SLOW_ROUNDS = 2  # of BM3D
BATCH_SERIES, BATCH_SLICES = 3, 60
MEMORY_SLICES = 1000
MEMORY_PHOTO, SMALL_PHOTO = (3000, 4000), (768, 1024)  # 12 megapixels; with a limit set
STAGE_SLICES = 120
DEFINITIONS = {
    "seconds": "median wall clock of one image; the methods take turns in each round, so that a busy machine is "
    "busy for all",
    "x network": "seconds over the seconds of the expert's network alone: how many times slower",
    "PSNR": "dB of this one image: photo over all channels, CT in [-160, 240] HU",
    "GFLOP": "of the convolutions, two per multiply and add",
    "of ceiling": "time of the network's convolutions alone, each run by itself on the tensors it is given, in their "
    "shapes, layout and precision, in the same rounds, over the time of the network",
    **STAGE_DEFINITIONS,
    **BATCH_DEFINITIONS,
    "peak": "MB, largest resident set of a fresh `sasm restore`, from disk to disk; volume: NIfTI, compressed",
    "without network": "the same with a network of one multiplication: reading, holding and writing",
}


def run(context: Context) -> Table:
    """Rows per method; levels: CT slice, photo, batch, memory."""
    pair = next(ct_pairs(context.data / "ct_ldct_pairs" / "L096_dicom", limit=1))
    photo = noisy_cases(cbsd68(context.data, 1), "photo", sigmas=(25,))[0]
    tasks = (
        Task(pair_case("CT slice 512x512", pair), Modality.CT, ct.EXPERT, scale=HU_PER_UNIT, quality=ct.window_psnr),
        Task(
            replace(photo, level="photo 481x321, sigma 25"),
            Modality.PHOTO,
            EXPERT,
            scale=1.0,
            quality=photo_psnr,
            given=True,
        ),
    )
    scores: dict[str, dict[str, dict[str, float]]] = {}
    for task in tasks:
        for method, row in compare_speed(context, task).items():
            scores.setdefault(method, {})[task.case.level] = row
    count = min(BATCH_SLICES, context.limit or BATCH_SLICES)
    level = f"batch of {BATCH_SERIES} series with {count} slices each"
    default = scores.setdefault(DEFAULT, {})
    default[level] = batch_overhead(BATCH_SERIES, count, context.device)
    stages = min(STAGE_SLICES, context.limit or STAGE_SLICES)
    default[f"series of {stages} slices, by stage"] = stage_times(stages, context.device)
    default |= _memory(context)
    return Table(
        PROTOCOL,
        data_hash=data_hash([pair.paths[0], *cbsd68(context.data, 1)]),
        definitions=DEFINITIONS,
        rows=tuple(Row(method, levels, _counts(method, levels)) for method, levels in scores.items()),
        flags=(*context.limited(), machine(context.device)),
    )


def machine(device: str) -> str:
    """Processor, threads, device and library versions, without any host name."""
    import torch

    place = torch_device(device)
    model = next(
        (line.split(":")[1].strip() for line in _cpu_info() if line.startswith("model name")),
        platform.processor() or "CPU",
    )
    gpu = f", {torch.cuda.get_device_name()}" if place.type == "cuda" else ""
    threads = f"{torch.get_num_threads()} threads"
    return f"{model}, {threads}{gpu}, device {place}, torch {torch.__version__}, {platform.system()}"


def conv_flops(network: nn.Module, *inputs: Any) -> float:
    """Floating-point operations of all convolutions of one forward pass (a multiply and an add count as two)."""
    import torch
    from torch import nn

    total = [0.0]

    def count(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        weight = cast("torch.Tensor", module.weight)
        transposed = isinstance(module, nn.ConvTranspose2d)
        places = arguments[0] if transposed else output  # a transposed convolution multiplies once per input pixel
        total[0] += 2.0 * weight.numel() * places.shape[0] * places.shape[-2] * places.shape[-1]

    kinds = (nn.Conv2d, nn.ConvTranspose2d)
    hooks = [module.register_forward_hook(count) for module in network.modules() if isinstance(module, kinds)]
    with torch.inference_mode():
        network(*inputs)
    for hook in hooks:
        hook.remove()
    return total[0]


def interleaved(
    runs: Mapping[str, Callable[[], Any]], rounds: int, slow: Mapping[str, int] | None = None
) -> dict[str, float]:
    """Median seconds of each callable; all take turns in every round. ``slow`` limits the rounds of single ones."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds):
        for name, call in runs.items():
            if number < (slow or {}).get(name, rounds):
                start = time.perf_counter()
                call()
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


@dataclass(frozen=True)
class Task:
    """One image on which methods are timed.

    Args:
        case: the image.
        modality: of it.
        expert: bundle of the network that is timed alone.
        scale: unit of the case over the network's working scale.
        quality: (case, restored) -> PSNR, dB.
        given: whether the network is told the noise level.
    """

    case: Case
    modality: Modality
    expert: str
    scale: float
    quality: Callable[[Case, Image], float]
    given: bool = False


def compare_speed(context: Context, task: Task) -> dict[str, dict[str, float]]:
    """The expert's network, the default pipeline, NLM and BM3D on one image, and the convolution ceiling, in turns."""
    import torch

    case, place = task.case, torch_device(context.device)
    # the bare network: what is compared with the ceiling of convolutions is its own time
    expert = context.bundle(task.expert)
    batch = torch.from_numpy(np.ascontiguousarray(case.degraded / task.scale, np.float32))[None].to(place)
    level = torch.full_like(batch[:, :1], case.sigma / task.scale) if task.given else None
    network = f"network {task.expert}"

    def run_network() -> Image:
        restored: Image = expert.restore(batch, level)[0].float().cpu().numpy()
        return np.float32(task.scale) * restored

    runs: dict[str, Callable[[], Image]] = {network: run_network}
    for method in pipeline_methods(context.restorer, task.modality):
        runs[method.name] = partial(method.restore, case)
    if context.peers:
        for method in peers.methods(
            ("NLM fast", "BM3D"), [], context.cache, scale=task.scale, strengths=STRENGTHS[task.expert]
        ):
            # a copy each time: slow peers remember the results of a case
            runs[method.name] = lambda method=method: method.restore(replace(case))  # type: ignore[misc]
    ceiling = convolutions_alone(expert.network, run_network)
    quality = {name: task.quality(case, call()) for name, call in runs.items()}  # also warms up
    times = interleaved({**runs, CEILING: ceiling}, ROUNDS, {"BM3D": SLOW_ROUNDS})
    least = times.pop(CEILING)
    rows: dict[str, dict[str, float]] = {
        name: {"seconds": seconds, "x network": seconds / times[network], "PSNR": quality[name]}
        for name, seconds in times.items()
    }
    work = conv_flops(expert.network, batch, *((level,) if expert.noise_map else ()))
    rows[network] |= {
        "GFLOP": work / 1e9,
        "GFLOP/s": work / times[network] / 1e9,
        "of ceiling": least / times[network],
    }
    return {**rows, f"{network}, {CEILING}": {"seconds": least, "GFLOP/s": work / least / 1e9, "of ceiling": 1.0}}


def convolutions_alone(network: nn.Module, run: Callable[[], Any]) -> Callable[[], None]:
    """What runs each convolution of a network once, on the tensors it has when ``run`` runs the network."""
    import torch
    from torch import nn

    kinds, calls = (nn.Conv2d, nn.ConvTranspose2d), []

    def record(module: nn.Module, arguments: tuple[Any, ...], _output: Any) -> None:
        reduced = torch.is_autocast_enabled(arguments[0].device.type)
        calls.append((module, arguments[0].clone(), reduced))

    hooks = [module.register_forward_hook(record) for module in network.modules() if isinstance(module, kinds)]
    run()
    for hook in hooks:
        hook.remove()

    def alone() -> None:
        kind, reduced = (calls[0][1].device.type, calls[0][2]) if calls else ("cpu", False)
        with torch.inference_mode(), torch.autocast(kind, dtype=torch.bfloat16, enabled=reduced):
            for module, given, _ in calls:
                module(given)
        if kind == "cuda":
            torch.cuda.synchronize()

    return alone


def _memory(context: Context) -> dict[str, dict[str, float]]:
    slices = MEMORY_SLICES if context.limit is None else context.limit
    height, width = MEMORY_PHOTO if context.limit is None else SMALL_PHOTO
    measured: dict[str, dict[str, float]] = {}
    for name, size in {"series": (slices,), "volume": (slices,), "photo": (height, width)}.items():
        level = f"memory, {name} of {f'{width}x{height}' if name == 'photo' else f'{slices} slices'}"
        copying = peak_memory(name, *size, device=context.device, expert=COPY)
        measured[level] = {"peak": peak_memory(name, *size, device=context.device), "without network": copying}
    return measured


def _counts(method: str, levels: Iterable[str]) -> dict[str, int]:
    """Level -> how often it was measured."""
    rounds = SLOW_ROUNDS if method == "BM3D" else ROUNDS
    return {level: rounds if level.startswith(("CT slice", "photo 4")) else 1 for level in levels}


def _cpu_info() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
