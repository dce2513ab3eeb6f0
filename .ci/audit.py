"""Ask the vulnerability service about every installed package, except for what pyproject.toml
excepts with a reason.

Fails where a vulnerability is known. Where no service answers nothing is audited: that is said, and
is no failure.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

COMMAND = [
    sys.executable,
    "-m",
    "pip_audit",
    "--format",
    "json",
    "--progress-spinner",
    "off",
    "--timeout",
    "30",
]
EXCEPTIONS = Path(__file__).resolve().parents[1] / "pyproject.toml"


def main() -> int:
    result = subprocess.run(COMMAND, capture_output=True, text=True)
    if "No module named" in result.stderr:
        print("pip-audit is not installed: pip install -e '.[test]'")
        return 1
    try:
        dependencies = json.loads(result.stdout)["dependencies"]
    except ValueError:
        said = result.stderr.strip()[-200:]
        print(f"no vulnerability service answered, nothing was audited: {said}")
        return 0
    excepted = tomllib.loads(EXCEPTIONS.read_text())["tool"]["audit"]["exceptions"]
    status, text = judge(dependencies, excepted)
    print(text)
    return status


def judge(dependencies: list[Mapping[str, Any]], excepted: Mapping[str, str]) -> tuple[int, str]:
    """Exit status, and what was found, of pip-audit's list of packages."""
    asked = [package for package in dependencies if "vulns" in package]
    if not asked:
        count = len(dependencies)
        return 0, f"the vulnerability service knows none of {count} packages, nothing was audited"
    lines = [f"{len(asked)} of {len(dependencies)} packages audited"]
    status = 0
    for package in asked:
        for found in package["vulns"]:
            reason = next(
                (excepted[name] for name in (found["id"], *found["aliases"]) if name in excepted),
                None,
            )
            status = status if reason else 1
            fixed = ", ".join(found["fix_versions"]) or "no version"
            name = f"{package['name']} {package['version']}: {found['id']}"
            lines.append(f"{name}, mended in {fixed}" + (f"; excepted: {reason}" if reason else ""))
    return status, "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
