"""A document's examples, run as its reader would run them: commands in one shell, programs from files of their names.

What is printed is compared with what the document shows. `…` there stands for anything; an id for one that is the same
wherever it stands; times, and the like, for others of their kind.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"[^\n]*\n(?:  [^\n]*\n)*")  # with its further lines, which are indented
FILE_NAME = re.compile(r"(?://|#) (\w+\.\w+)\n")
FORMS = {
    "anything": " ?…",
    "id": r"(?:\d{16}\.)?(?:sess|turn|msg|own)-[0-9a-f]{32}",  # or a list's cursor
    "time": r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z",
    "model": r'"model": ?"[^"]+"',
    "ticket": r'"ticket":"[\w-]+"',
    "request_id": r"(?<=X-Request-ID: )[0-9a-f]{32}",
    "seconds": r"(?:(?<=Retry-After: )|(?<=;t=))\d+",
    "date": r"(?<=Date: )[^\n]+",
}
END = b"\0"


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """Yield the language and the content of each block of code."""
    for match in BLOCK.finditer(text):
        yield match[1], match[2]


def commands(block: str) -> Iterator[tuple[str, str]]:
    """Yield each command of a console and what it prints."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        match = COMMAND.match(part)
        assert match
        yield match[0], part[match.end() :]


def translate(text: str, names: dict[str, str]) -> str:
    """Return a text with other names; the longer ones first, since a cursor has an id in it."""
    for name in sorted(names, key=len, reverse=True):
        text = text.replace(name, names[name])
    return text


class Reader:
    """Somebody who follows a document; `places` are where things are, in place of where it says.

    `forms` are more of what may be another one each time.
    """

    def __init__(self, shell: asyncio.subprocess.Process, places: dict[str, str], **forms: str) -> None:
        self.shell, self.places = shell, places
        self.forms = FORMS | forms
        self.varies = re.compile("|".join(f"(?P<{name}>{form})" for name, form in self.forms.items()))
        self.ids: dict[str, str] = {}  # one's own in place of those that it shows

    async def follow(self, text: str, directory: Path) -> int:
        """Run all of a text's examples and return how many commands there were.

        Raises AssertionError where something else is printed than it shows.
        """
        count = 0
        for language, content in blocks(text):
            if language == "console":
                for command, shown in commands(content):
                    self.compare(shown, await self.run(command))
                    count += 1
            elif match := FILE_NAME.match(content):
                (directory / match[1]).write_text(translate(content, self.places))
        return count

    async def run(self, command: str) -> str:
        """Run a command and return what it prints, as it would be where the document has it."""
        assert self.shell.stdin is not None
        assert self.shell.stdout is not None
        mine = translate(command, self.places | self.ids)
        self.shell.stdin.write(f"{mine}\nprintf '\\0'\n".encode())
        printed = (await asyncio.wait_for(self.shell.stdout.readuntil(END), 60)).removesuffix(END).decode()
        return translate(printed, {mine: theirs for theirs, mine in self.places.items()}).replace("\r", "")

    def compare(self, shown: str, printed: str) -> None:
        """Compare what is printed, and note which id is there for which."""
        new: list[str] = []
        match = re.fullmatch(self._pattern(shown.rstrip("\n"), new), printed.rstrip("\n"), re.DOTALL)
        assert match, f"The document shows:\n{shown}\nThis was printed:\n{printed}"
        self.ids |= {theirs: match[f"id{number}"] for number, theirs in enumerate(new)}

    def _pattern(self, shown: str, new: list[str]) -> str:
        """Return what is to be printed, as a regular expression; new ids are added to `new`."""
        pattern, at = "", 0
        for match in self.varies.finditer(shown):
            pattern += re.escape(shown[at : match.start()]) + self._form(match, new)
            at = match.end()
        return pattern + re.escape(shown[at:])

    def _form(self, match: re.Match[str], new: list[str]) -> str:
        kind, text = str(match.lastgroup), match[0]
        if kind == "anything":
            return ".*?"
        if kind != "id":
            return self.forms[kind]
        if text in self.ids:
            return re.escape(self.ids[text])
        if text in new:
            return f"(?P=id{new.index(text)})"
        new.append(text)
        return f"(?P<id{len(new) - 1}>{self.forms['id']})"


@asynccontextmanager
async def reading(
    directory: Path, environment: dict[str, str], places: dict[str, str], **forms: str
) -> AsyncIterator[Reader]:
    """Yield a reader with a shell in a directory."""
    shell = await asyncio.create_subprocess_exec(
        "bash",
        cwd=directory,
        env=environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        limit=1 << 20,
    )
    try:
        yield Reader(shell, places, **forms)
    finally:
        shell.kill()
        await shell.wait()
