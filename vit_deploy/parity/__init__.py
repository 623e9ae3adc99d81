"""Is an artefact equal to eager PyTorch? The criterion, its inputs, and the verdict."""
