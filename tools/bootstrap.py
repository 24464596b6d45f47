"""Make the virtual environment, install what is asked for unless it is there already, and go on in it.

    python tools/bootstrap.py demo|bench|test|dev ARGUMENT...

The arguments are given to the environment's Python.
This file must parse on any Python, to name the one needed.
"""

import hashlib
import io
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
PYTHON = os.path.join(VENV, "bin", "python")
STAMP = os.path.join(VENV, "installed")
NEEDED = (3, 11)
#: Each holds all of those before it.
LEVELS = ["demo", "bench", "test", "dev"]


def refuse(sentence):
    sys.stderr.write(sentence + "\n")
    sys.exit(2)


def check_python():
    if sys.version_info < NEEDED:
        refuse(
            "Python {0}.{1} or newer is needed, but {2} is {3}.{4}: choose another by PYTHON=path.".format(
                NEEDED[0], NEEDED[1], sys.executable, *sys.version_info[:2]
            )
        )


def wanted():
    """Identify what an up-to-date environment was installed from."""
    with io.open(os.path.join(ROOT, "pyproject.toml"), "rb") as file:
        return hashlib.sha256(file.read() + ROOT.encode()).hexdigest()


def installed():
    """The levels that are installed and up to date."""
    try:
        with io.open(STAMP, encoding="utf-8") as file:
            level, digest = file.read().split()
    except (OSError, ValueError):
        return []
    if digest != wanted() or not works(PYTHON):
        return []
    return LEVELS[: LEVELS.index(level) + 1]


def install(level):
    if not os.access(VENV if os.path.isdir(VENV) else ROOT, os.W_OK):
        refuse("{0} can't be written to, and the virtual environment .venv belongs there.".format(ROOT))
    print("Installing what '{0}' needs into .venv: this takes a minute, once.".format(level))
    sys.stdout.flush()
    if not works(PYTHON):
        run([sys.executable, "-m", "venv", "--clear", VENV], "The virtual environment can't be made")
    pip = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    # Dependency groups came with pip 25.1.
    run(pip + ["--upgrade", "pip>=25.1"], "pip can't be brought up to date")
    group = [] if level == "demo" else ["--group", level]
    run(pip + ["--editable", ".[demo,redis]"] + group, "The packages can't be installed")
    with io.open(STAMP, "w", encoding="utf-8") as file:
        file.write("{0} {1}\n".format(level, wanted()))


def works(python):
    """Tell whether the environment's interpreter is there, starts, and is new enough."""
    check = "import sys; sys.exit(sys.version_info < {0})".format(NEEDED)
    return os.path.exists(python) and subprocess.call([python, "-c", check]) == 0


def run(command, complaint):
    """Run a step; when it fails, say so and show what it printed last."""
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output = process.communicate()[0].decode("utf-8", "replace").strip()
    if process.returncode:
        lines = [line for line in output.splitlines() if line.strip()]
        refuse("{0}: {1}".format(complaint, " ".join(lines[-3:]) or "no reason was given."))


def main(level, arguments):
    check_python()
    if level not in installed():
        install(level)
    os.execv(PYTHON, [PYTHON] + arguments)


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2:])
    except KeyboardInterrupt:
        sys.exit(130)
