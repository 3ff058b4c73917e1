"""What the nets beside it, and what looks at them, are made of."""
