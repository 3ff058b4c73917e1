"""What a few attacks share, and not all."""
