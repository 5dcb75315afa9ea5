"""What fluidgate finds by the entry points in pyproject.toml."""
