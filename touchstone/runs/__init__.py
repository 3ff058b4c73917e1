"""What a run leaves behind and comes back to: checkpoints that survive, and where they are."""
