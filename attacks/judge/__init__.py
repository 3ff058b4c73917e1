"""The judge: `evaluate.py` runs attacks and measures again whatever they return."""
