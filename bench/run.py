"""All of the bench, one part after the other: `python bench/run.py [part ...]`, each part with its defaults."""

import subprocess
import sys
from pathlib import Path

PARTS = ("small_requests", "transfer")


def main(asked: list[str]) -> int:
    """The worst exit code of the parts; 2 for a part that does not exist."""
    unknown = [name for name in asked if name not in PARTS]
    if unknown:
        print(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    here = Path(__file__).parent
    worst = 0
    for name in asked or PARTS:
        # A process of its own: what one part left in memory is no part of the next one's figures.
        worst = max(worst, abs(subprocess.run([sys.executable, str(here / f"{name}.py")], check=False).returncode))
        print(flush=True)
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
