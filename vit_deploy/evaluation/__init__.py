"""Accuracy on labelled pictures: which there are, what every artefact answers, and what its drop shows.

``vit-deploy eval`` is made of these. Artefacts are compared with eager PyTorch on the same pictures, so
that the comparison is paired: see :mod:`vit_deploy.evaluation.paired`.
"""
