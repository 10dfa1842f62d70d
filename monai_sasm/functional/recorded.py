"""Networks that are exported by recording what they do with an example, not by compiling their source."""

from __future__ import annotations

from typing import NoReturn

import torch
from torch import nn


class Recorded(nn.Module):
    """A network whose source TorchScript's compiler cannot read, since it is written for people; tracing works."""

    def __prepare_scriptable__(self) -> NoReturn:
        """What ``torch.jit.script`` calls first.

        Raises:
            NotImplementedError: always, with the ways that work.
        """
        raise NotImplementedError(
            f"{type(self).__name__} is exported by recording, its source is not compiled: "
            "`sasm bundles export NAME -o FILE --format torchscript` (or onnx), or "
            "`python -m monai.bundle ckpt_export ... --use_trace True --input_shape '[1, C, 256, 256]'`"
        )


def refuse_recording(what: str) -> None:
    """For code that no record repeats, such as random numbers.

    Raises:
        NotImplementedError: the network is being traced.
    """
    if torch.jit.is_tracing():
        raise NotImplementedError(f"{what} cannot be exported: a record would keep that of its example for ever")
