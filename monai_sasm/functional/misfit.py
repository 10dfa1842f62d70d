"""Why weights do not fit a network, in one line; torch lists every name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

_NAMED = 3


def misfit(network: nn.Module, state: object) -> str:
    """What differs between a network's weights and those of a file: how many, and the first few by name.

    Args:
        network: what was to be filled.
        state: what the file holds.
    """
    if not isinstance(state, Mapping):
        return f"the file holds a {type(state).__name__}, no weights by name"
    if any(isinstance(value, Mapping) for value in state.values()):
        return f"the file holds {_list(list(map(str, state)))}: a checkpoint; give the model.pt that lies beside it"
    own = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    given = {str(name): tuple(getattr(value, "shape", ())) for name, value in state.items()}
    lacking, foreign = [name for name in own if name not in given], [name for name in given if name not in own]
    other = [f"{name} is {given[name]}, not {own[name]}" for name in own if given.get(name, own[name]) != own[name]]
    told = (
        (lacking, f"it lacks {len(lacking)} of {len(own)} weights"),
        (foreign, f"{len(foreign)} of its {len(given)} belong to another network"),
        (other, f"{len(other)} have another shape"),
    )
    return ", ".join(f"{said} ({_list(names)})" for names, said in told if names) or "its weights cannot be copied"


def _list(names: Sequence[str]) -> str:
    return ", ".join([*names[:_NAMED], *(["..."] if len(names) > _NAMED else [])])
