"""Profiles: the TOML files of this folder."""
