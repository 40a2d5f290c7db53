"""Describes networks as frozen values: presets and PDE layers."""
