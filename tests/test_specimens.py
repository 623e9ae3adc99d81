"""The specimens are what they are meant to be: seeded, away from initial values, and many."""

from __future__ import annotations

from tests.specimens import SPECIMENS, STRANGERS


def test_ids_are_unique():
    ids = [entry.id for entry in (*SPECIMENS, *STRANGERS)]
    assert len(ids) == len(set(ids))
