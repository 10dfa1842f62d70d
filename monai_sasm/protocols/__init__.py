"""The protocols of docs/RESULTS.md, one file each; ``sasm evaluate`` runs them."""
