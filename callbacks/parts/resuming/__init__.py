"""What a run that goes on begins from: random states, the order of the data, schedules."""
