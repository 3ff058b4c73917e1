"""What the attacker may do: one threat a file."""
