"""What the attacker wants: an `Objective` says which decision, a `Loss` of `losses.py` how near it is."""
