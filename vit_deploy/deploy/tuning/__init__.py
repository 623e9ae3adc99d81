"""The parts of ``vit-deploy tune``: what is tried, what must hold, and who wins."""
