"""``speed``: interleaved timings against peers and against this machine's own ceiling, input and output, and peak
memory.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from monai_sasm.evaluation.context import Context, bundle_restorer, torch_device
from monai_sasm.evaluation.data import cbsd68, ct_pairs, data_hash, files
from monai_sasm.evaluation.metrics import psnr, windowed
from monai_sasm.evaluation.scoring import Case, Image
from monai_sasm.evaluation.table import Row, Table
from monai_sasm.protocols import ct, peers, photo
from monai_sasm.protocols.batch_overhead import BATCH_DEFINITIONS, batch_overhead
from monai_sasm.protocols.memory import COPY, peak_memory

if TYPE_CHECKING:
    from torch import nn

ROUNDS = 7
STRENGTHS = {  # as the tuning of the quality protocols finds them
    ct.EXPERT: {"NLM fast": (1.4,), "BM3D": (1.4,)},
    photo.EXPERT: {"NLM fast": (0.6,), "BM3D": (1.0,)},
}
SLOW_ROUNDS = 2  # of BM3D
BATCH_SERIES, BATCH_SLICES = 3, 60
MEMORY_SLICES = 1000
MEMORY_PHOTO, SMALL_PHOTO = (3000, 4000), (768, 1024)  # 12 megapixels; with a limit set
CEILING_CHANNELS, CEILING_SIZE = 64, 256
DEFINITIONS = {
    "seconds": "median wall clock of one image; the methods take turns in each round, so that a busy machine is "
    "busy for all",
    "x ours": "seconds over the seconds of our network: how many times slower",
    "PSNR": "dB of this one image: photo over all channels, CT in [-160, 240] HU",
    "GFLOP": "of the convolutions, two per multiply and add",
    "of ceiling": f"GFLOP/s over that of one 3x3 convolution with {CEILING_CHANNELS} channels on "
    f"{CEILING_SIZE}x{CEILING_SIZE} "
    "pixels, measured in the same rounds",
    **BATCH_DEFINITIONS,
    "peak": "MB, largest resident set of a fresh `sasm restore`, from disk to disk; volume: NIfTI, compressed",
    "without network": "the same with a network of one multiplication: reading, holding and writing",
}


def run(context: Context) -> Table:
    """Rows per method; levels: CT slice, photo, batch, memory."""
    name, full, quarter, _ = next(iter(ct_pairs(context.data / "ct_ldct_pairs" / "L096_dicom", limit=1)))
    slice_case = Case(name, "CT slice 512x512", full, quarter, float((quarter - full)[full > ct.BODY].std()))
    photo_case = next(case for case in photo.noisy_cases(cbsd68(context.data, 1), "photo") if case.level == "photo 25")
    photo_case = Case(
        photo_case.name, "photo 481x321, sigma 25", photo_case.clean, photo_case.degraded, photo_case.sigma
    )
    scores: dict[str, dict[str, dict[str, float]]] = {}
    _head_to_head(context, slice_case, ct.EXPERT, ct.HU_PER_UNIT, None, _ct_psnr, scores)
    sigma = photo_case.sigma
    _head_to_head(
        context, photo_case, photo.EXPERT, 1.0, sigma, lambda case, image: psnr(case.clean, image, 1.0), scores
    )
    count = min(BATCH_SLICES, context.limit or BATCH_SLICES)
    level = f"batch of {BATCH_SERIES} series with {count} slices each"
    scores.setdefault("ours", {})[level] = batch_overhead(BATCH_SERIES, count, context.device)
    scores["ours"] |= _memory(context)
    rows = tuple(Row(method, levels, _counts(method, levels)) for method, levels in scores.items())
    used = [*files(context.data / "ct_ldct_pairs" / "L096_dicom" / "full", limit=1), *cbsd68(context.data, 1)]
    return Table("speed", data_hash(used), DEFINITIONS, rows, (*context.limited(), machine(context.device)))


def machine(device: str) -> str:
    """Processor, threads, device and library versions, without any host name."""
    import torch

    place = torch_device(device)
    model = next(
        (line.split(":")[1].strip() for line in _cpu_info() if line.startswith("model name")),
        platform.processor() or "CPU",
    )
    gpu = f", {torch.cuda.get_device_name()}" if place.startswith("cuda") else ""
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


def _head_to_head(
    context: Context,
    case: Case,
    expert: str,
    scale: float,
    given: float | None,
    quality: Callable[[Case, Image], float],
    scores: dict[str, dict[str, dict[str, float]]],
) -> None:
    """Our network (told ``given`` as noise level), NLM and BM3D on one image, and the convolution ceiling, in turns."""
    import torch

    place = torch_device(context.device)
    network = None
    if context.restorers:
        restore = context.expert(expert)
    else:
        from monai_sasm.bundles import load

        network = load(expert, device=place).network
        restore = bundle_restorer(expert, context.device)
    runs: dict[str, Callable[[], Image]] = {"ours": lambda: scale * restore(case.degraded / scale, given)}
    if context.peers:
        kept = context.kept
        tuning = [Case("validation", case.level, case.clean, case.degraded, case.sigma)]
        for method in peers.methods(("NLM fast", "BM3D"), tuning, kept, scale, strengths=STRENGTHS[expert]):
            # a copy each time: slow peers remember the results of a case
            runs[method.name] = lambda method=method: method.restore(replace(case))  # type: ignore[misc]
    ceiling = torch.nn.Conv2d(CEILING_CHANNELS, CEILING_CHANNELS, 3, padding=1).to(place).eval()
    block = torch.rand(1, CEILING_CHANNELS, CEILING_SIZE, CEILING_SIZE, device=place)
    quality_of = {name: quality(case, call()) for name, call in runs.items()}  # also warms up
    times = interleaved({**runs, "ceiling": lambda: _forward(ceiling, block)}, ROUNDS, {"BM3D": SLOW_ROUNDS})
    peak = conv_flops(ceiling, block) / times.pop("ceiling")
    for name, seconds in times.items():
        row = {"seconds": seconds, "x ours": seconds / times["ours"], "PSNR": quality_of[name]}
        if name == "ours" and network is not None:
            batch = torch.from_numpy(case.degraded / scale)[None].float().to(place)
            work = conv_flops(network, batch, None if given is None else torch.full_like(batch[:, :1], given))
            row |= {"GFLOP": work / 1e9, "GFLOP/s": work / seconds / 1e9, "of ceiling": work / seconds / peak}
        scores.setdefault(name, {})[case.level] = row
    scores.setdefault("ceiling (one convolution)", {})[case.level] = {"GFLOP/s": peak / 1e9, "of ceiling": 1.0}


def _memory(context: Context) -> dict[str, dict[str, float]]:
    slices = MEMORY_SLICES if context.limit is None else context.limit
    height, width = MEMORY_PHOTO if context.limit is None else SMALL_PHOTO
    measured: dict[str, dict[str, float]] = {}
    for name, size in {"series": (slices,), "volume": (slices,), "photo": (height, width)}.items():
        level = f"memory, {name} of {f'{width}x{height}' if name == 'photo' else f'{slices} slices'}"
        copying = peak_memory(name, *size, device=context.device, expert=COPY)
        measured[level] = {"peak": peak_memory(name, *size, device=context.device), "without network": copying}
    return measured


def _forward(network: nn.Module, block: Any) -> Any:
    import torch

    with torch.inference_mode():
        result = network(block)
    if block.is_cuda:
        torch.cuda.synchronize()
    return result


def _counts(method: str, levels: Iterable[str]) -> dict[str, int]:
    """Level -> how often it was measured."""
    rounds = SLOW_ROUNDS if method == "BM3D" else ROUNDS
    return {level: rounds if level.startswith(("CT slice", "photo 4")) else 1 for level in levels}


def _ct_psnr(case: Case, image: Image) -> float:
    return psnr(windowed(case.clean), windowed(image), ct.RANGE)


def _cpu_info() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
