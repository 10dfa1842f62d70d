"""Training shows how far it is on a terminal, and nothing of that kind in a file."""

from __future__ import annotations

import io
import sys

import pytest
import torch
from ignite.engine import Engine

from monai_sasm.training.handlers import ShowProgress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [Terminal(), io.StringIO()], ids=["terminal", "file"])
def test_a_bar_is_shown_on_a_terminal_alone(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    engine = Engine(lambda engine, batch: {"loss": torch.tensor(batch / 8)})
    ShowProgress().attach(engine)
    engine.run([1, 2, 4], max_epochs=2)
    shown = stream.getvalue()
    if stream.isatty():
        assert "Epoch [2/2]" in shown
        assert "loss=0.5" in shown
    else:
        assert shown == ""
