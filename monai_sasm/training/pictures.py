"""Validation pictures in TensorBoard: degraded, restored and clean side by side."""

from __future__ import annotations

from typing import Any

import torch
from ignite.engine import Engine, Events

from monai_sasm.functional.neighbours import fit_neighbours


class LogPictures:
    """Draw the first validation images after each validation round.

    MONAI's ``TensorBoardImageHandler`` takes the input from the batch, where images degraded on the fly are clean.

    Args:
        log_dir: TensorBoard folder.
        count: images per round.
        low: value shown black, in working scale.
        high: value shown white.
    """

    def __init__(self, log_dir: str, count: int = 4, low: float = 0.0, high: float = 1.0) -> None:
        if not low < high or count < 1:
            raise ValueError(f"low must be below high and count at least 1, got {low}, {high} and {count}")
        self.log_dir, self.count, self.low, self.high = log_dir, count, low, high
        self.rows: list[torch.Tensor] = []
        self.writer: Any = None

    def attach(self, engine: Engine) -> None:
        """Register on a MONAI evaluator."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.rows.clear)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._write)

    def _collect(self, engine: Engine) -> None:
        outputs: Any = engine.state.output
        for output in outputs[: self.count - len(self.rows)]:
            shown = {key: output[key].float().cpu() for key in ("image", "pred", "label")}
            if len(shown["image"]) > len(shown["pred"]):  # a slice between its neighbours
                shown["image"] = fit_neighbours(shown["image"][None], 0)[0]
            row = torch.cat(list(shown.values()), dim=-1)  # (C, H, 3 W)
            self.rows.append(((row - self.low) / (self.high - self.low)).clamp(0, 1))

    def _write(self, engine: Engine) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = self.writer or SummaryWriter(self.log_dir)
        for number, row in enumerate(self.rows):
            self.writer.add_image(f"validation/{number}", row, global_step=engine.state.epoch)
        self.writer.flush()
