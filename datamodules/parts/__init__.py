"""What the data modules are made of; nobody outside `datamodules/` imports it."""
