"""Where an artefact goes wrong, and whose fault it is: the stage, the block, and the drift on the way."""
