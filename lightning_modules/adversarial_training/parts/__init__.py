"""What the strategies beside it are made of."""
