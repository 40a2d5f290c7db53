"""What a network is: presets and PDE layers, as frozen values."""
