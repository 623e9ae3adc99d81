"""How fast is an artefact? Worker processes, interleaved rounds, raw samples, statistics."""
