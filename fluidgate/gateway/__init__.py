"""The live controller in front of engines."""
