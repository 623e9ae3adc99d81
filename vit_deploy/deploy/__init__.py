"""Whole roads through the library, such as from a model to a bundle of proven artefacts."""
