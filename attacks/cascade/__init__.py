"""What `Strongest` is made of: `Survivors` says who is worth more effort, `Climbs` what can be tried on them."""
