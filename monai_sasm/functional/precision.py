"""Number format of the networks: bfloat16 where the hardware computes in it, float32 elsewhere.

Only what a network adds to an image may be rounded, to about three digits, never the image itself. Networks that add
their correction in float32, and were measured to restore as well, say so in their metadata (``sasm.bfloat16``); under
``auto`` all others stay in float32.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

PRECISIONS = ("auto", "float32", "bfloat16")
_WITHOUT_FLOAT64 = ("mps",)  # kinds of devices


def resolve_precision(precision: str, device: torch.device | str) -> str:
    """``float32`` or ``bfloat16``; ``auto`` becomes bfloat16 on a device that is faster in it.

    Raises:
        ValueError: another name.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {PRECISIONS}, got {precision!r}")
    if precision != "auto":
        return precision
    return "bfloat16" if fast_bfloat16(device) else "float32"


def fast_bfloat16(device: torch.device | str) -> bool:
    """Whether a device computes in bfloat16: CPUs with AMX (three times as fast) or AVX-512 BF16 (twice), and GPUs of
    compute capability 8.0 and later. Elsewhere it is emulated, an order of magnitude slower.
    """
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return kind == "cpu" and (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def reduced_precision(precision: str, device: torch.device | str) -> AbstractContextManager[None]:
    """Context in which networks on a device run in that precision."""
    kind = torch.device(device).type
    enabled = resolve_precision(precision, device) != "float32"
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=enabled)


def widest(device: torch.device | str) -> torch.dtype:
    """float64; float32 on devices of Apple, which have nothing wider."""
    return torch.float32 if torch.device(device).type in _WITHOUT_FLOAT64 else torch.float64
