"""Exporters, one file per format.

These files live in the top-level folder ``exporters/`` and install as
``vit_deploy.exporters`` (``vit_deploy/exporters`` is a relative link to it), so
that adding a format is one file in plain sight.
"""

if __name__ != "vit_deploy.exporters":
    raise ImportError(
        f"these modules are a part of vit_deploy and were imported as {__name__!r}; "
        "write `import vit_deploy.exporters` instead"
    )
