"""Video to features: networks, filter banks, latents."""
