"""Pure functions on tensors: intensity scaling, noise, neighbouring slices, tiles, mixing."""
