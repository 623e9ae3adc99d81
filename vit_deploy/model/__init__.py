"""The Vision Transformer itself: config, layers, layouts and preprocessing. It never learns a format's name."""
