"""Makes the runtime ``fake`` known to every Python process that has this folder in PYTHONPATH."""

from pathlib import Path

import vit_deploy.runtimes

vit_deploy.runtimes.__path__.append(str(Path(__file__).parents[1] / "runtimes"))
