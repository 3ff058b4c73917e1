"""What the attacker wants: `objective.py` says which decision, `losses.py` how near it is."""
