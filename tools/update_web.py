"""Take the page's libraries from their npm packages into chatd/web/vendor; the versions are pinned here."""

import hashlib
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

VENDOR = Path(__file__).parent.parent / "chatd" / "web" / "vendor"
SOURCE_MAP = re.compile(rb"^//# sourceMappingURL=.*\n?", re.MULTILINE)
LANGUAGES = (
    "bash",
    "c",
    "cpp",
    "css",
    "diff",
    "dockerfile",
    "go",
    "ini",
    "java",
    "javascript",
    "json",
    "markdown",
    "python",
    "rust",
    "sql",
    "typescript",
    "xml",
    "yaml",
)
README = """\
# Libraries of the page

The files are as their packages bring them, but for the `sourceMappingURL` lines, which are left out. `make update-web`
takes the versions that `tools/update_web.py` pins and writes this table; the licences' texts are in `licenses/`.

| module | version | licence | source package | file | sha256 |
| --- | --- | --- | --- | --- | --- |
"""


@dataclass(frozen=True)
class Library:
    """An npm package and its files that the page uses: path in the package to path in vendor/."""

    module: str
    package: str
    version: str
    files: dict[str, str]
    licenses: dict[str, str]


LIBRARIES = (
    Library("marked", "marked", "18.2.1", {"lib/marked.esm.js": "marked.esm.js"}, {"LICENSE": "marked.txt"}),
    Library(
        "DOMPurify",
        "dompurify",
        "3.4.18",
        {"dist/purify.min.js": "purify.min.js"},
        {"LICENSE": "dompurify-apache-2.0.txt", "LICENSE-MPL": "dompurify-mpl-2.0.txt"},
    ),
    Library(
        "highlight.js",
        "@highlightjs/cdn-assets",
        "11.12.0",
        {"es/core.min.js": "highlight/core.min.js"}
        | {f"es/languages/{name}.min.js": f"highlight/{name}.min.js" for name in LANGUAGES},
        {"LICENSE": "highlight.txt"},
    ),
)


def main() -> None:
    """Write vendor/ anew."""
    shutil.rmtree(VENDOR, ignore_errors=True)
    (VENDOR / "licenses").mkdir(parents=True)
    rows = [row for library in LIBRARIES for row in vendored(library)]
    (VENDOR / "README.md").write_text(README + "\n".join(rows) + "\n")


def vendored(library: Library) -> list[str]:
    """Copy a library's files into vendor/ and return their rows of the table."""
    with tempfile.TemporaryDirectory() as directory:
        package = unpacked(library, Path(directory))
        licence = json.loads((package / "package.json").read_text())["license"]
        for source, target in library.licenses.items():
            shutil.copyfile(package / source, VENDOR / "licenses" / target)
        return [
            f"| {library.module} | {library.version} | {licence} | `{library.package}` | `{target}` | `{digest}` |"
            for target, digest in copied(package, library.files)
        ]


def unpacked(library: Library, directory: Path) -> Path:
    """Fetch a package by npm and return the folder it was unpacked into."""
    name = f"{library.package}@{library.version}"
    command = ["npm", "pack", "--silent", "--pack-destination", str(directory), name]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    with tarfile.open(next(directory.glob("*.tgz"))) as archive:
        archive.extractall(directory, filter="data")
    return directory / "package"


def copied(package: Path, files: dict[str, str]) -> list[tuple[str, str]]:
    """Copy files without their source map lines; return each target with its sha256."""
    digests = []
    for source, target in files.items():
        content = SOURCE_MAP.sub(b"", (package / source).read_bytes())
        path = VENDOR / target
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        digests.append((target, hashlib.sha256(content).hexdigest()))
    return digests


if __name__ == "__main__":
    main()
