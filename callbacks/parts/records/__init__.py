"""What a run leaves in its folder and in TensorBoard."""
