"""From a volume to a restored one: gate, experts, mixing and refinement."""
