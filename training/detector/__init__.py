"""The detector half of the default models: a small Grounding DINO, trained from nothing on drawn frames."""
