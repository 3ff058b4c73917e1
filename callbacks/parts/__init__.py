"""What the callbacks are made of."""
