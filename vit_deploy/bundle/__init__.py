"""A bundle: a directory that holds one model, its reference weights, its artefacts and a manifest."""

from vit_deploy.bundle.editor import BundleEditor, edit_bundle
from vit_deploy.bundle.reader import Bundle

__all__ = ["Bundle", "BundleEditor", "edit_bundle"]
