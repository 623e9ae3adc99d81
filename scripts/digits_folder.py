"""Write the held-out digits as pictures, a folder for each class, as ``vit-deploy eval --data`` takes them.

python scripts/digits_folder.py held-out            # the fifth that no model of this repository has seen
python scripts/digits_folder.py training --training # the others
"""

from __future__ import annotations

import argparse
from pathlib import Path

from digits_data import draw_picture, load_digits


def write_folder(target: Path, *, training: bool = False) -> int:
    """Write ``target/<digit>/<number>.png``; gives how many."""
    digits = load_digits()
    chosen = digits.training if training else digits.held_out
    for index in chosen:
        folder = target / str(digits.labels[index])
        folder.mkdir(parents=True, exist_ok=True)
        draw_picture(digits.images[index]).save(folder / f"{index:04d}.png")
    return len(chosen)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=Path, help="the folder")
    parser.add_argument("--training", action="store_true", help="the digits that the models learned from")
    options = parser.parse_args()
    print(f"{write_folder(options.target, training=options.training)} pictures in {options.target}")


if __name__ == "__main__":
    main()
