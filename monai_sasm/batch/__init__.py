"""Many series: one task function, here or on a cluster, whose results appear once, whole, or not at all."""
