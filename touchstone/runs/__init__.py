"""What a run leaves behind and comes back to: its folder, logs that may be lost, checkpoints that survive."""
