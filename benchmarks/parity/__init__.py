"""Mutation testing of the parity check itself: faults that it must catch, honest artefacts that it must pass.

The same artefacts are put to the rules of other tools. ``make mutations`` runs all of it; see README.md.
"""
