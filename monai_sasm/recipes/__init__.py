"""What training and inference of all bundles have in common, as ``_target_`` of their configs."""
