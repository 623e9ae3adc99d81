"""Put the table of a real `vit-deploy demo` between the demo marks of README.md.

Usage: python scripts/update_readme.py
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- demo:begin -->\n", "<!-- demo:end -->\n"


def main() -> None:
    """Run the demo in an empty folder, and write what it printed into the README."""
    program = Path(sys.executable).with_name("vit-deploy")
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([str(program), "demo"], cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    table = "\n".join(line.rstrip() for line in done.stdout.strip("\n").splitlines())
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    if not rest or END not in rest:
        raise SystemExit(f"{README.name} has lost its marks: {BEGIN.strip()} … {END.strip()}")
    README.write_text(
        f"{before}{BEGIN}```text\n$ vit-deploy demo\n{table}\n```\n{END}{after}", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
