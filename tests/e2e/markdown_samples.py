"""Markdown for the tests: what a hostile model may write, what is slow to parse, what has every kind of block."""

from collections.abc import Callable

HOSTILE = {
    "script": "<script>globalThis.hacked = 1</script>",
    "script in a word": "a<scr<script>ipt>globalThis.hacked = 1</scr</script>ipt>",
    "event handler": "<img src=x onerror='globalThis.hacked = 1'> <svg onload=globalThis.hacked=1>",
    "javascript link": "[a](javascript:globalThis.hacked=1) [b](JaVaScRiPt&colon;hacked=1) <javascript:hacked=1>",
    "javascript link with controls": "[a](java\tscript:globalThis.hacked=1) [b](\x01javascript:globalThis.hacked=1)",
    "data link": "[a](data:text/html,<script>parent.hacked=1</script>) [b](vbscript:msgbox)",
    "relative link": "[a](/agent/sessions) [b](#sess-1) [c](//evil.example/x) [d](blob:x) [e](file:///etc/passwd)",
    "link title": '[a](https://a.example "x\\" onmouseover=globalThis.hacked=1")',
    "remote image": '![a](https://evil.example/pixel.png) <img src="https://evil.example/2.png"> ![b][r]\n\n'
    "[r]: https://evil.example/3.png",
    "data image": "![x](data:image/svg+xml;base64,PHN2Zy8+)",
    "linked image": "[![a](https://evil.example/4.png)](https://b.example) "
    "[**![c](https://evil.example/5.png)**](https://d.example)",
    "style": "<style>*{background:url(https://evil.example/)}</style><p style='position:fixed'>x</p>",
    "frames": "<iframe src=https://evil.example></iframe><object data=x></object><embed src=x>"
    "<base href=https://evil.example>",
    "form": "<form action=https://evil.example><input name=token><button>Go</button></form>",
    "clobbering": '<a id="messages" name="body">x</a> <form id=document><input name=cookie></form>',
    "unclosed tags": "<div><b><a href='x",
    "unclosed comment": "a <!-- b\n\nc",
    "mathml": '<math><mtext><table><mglyph><style><img src=x onerror="globalThis.hacked=1">',
    "template": "<template><script>hacked=1</script></template><noscript><p title='</noscript><script>hacked=1//'>",
    "language of code": '```"><script>globalThis.hacked=1</script>\nx\n```\n\n``` x" onclick="hacked=1\ny\n```',
    "code": "`<script>globalThis.hacked=1</script>`\n\n    <img src=x onerror=globalThis.hacked=1>",
    "prototype": "[__proto__]: https://a.example\n\n[__proto__] [constructor] [toString]\n\n"
    "```__proto__\nx\n```\n\n```constructor\ny\n```",
    "table head": "|<script>hacked=1</script>|\n|-|\n|<img onerror=hacked=1 src=x>|",
    "NUL and surrogates": "a\x00b \ud800 [x](https://a\x00.example)",
}

_UNITS = {
    "backticks": "`", "brackets": "[", "emphasis": "*a ", "bare emphasis": "a*", "less-than": "<", "pipes": "|",
    "quotes": "> ", "tight quotes": ">", "lists on a line": "- ", "numbers on a line": "1. ", "images": "![",
    "backslashes": "\\", "links": "[a](", "references": "[a][b]", "tildes": "~", "strong": "**a ", "comments": "<!--",
    "tags": '<a b="', "entities": "&amp;", "lines": "a\n", "items": "- a\n", "loose items": "- *x* `c`\n\n",
    "quoted": "> a\n", "nested quotes": ">>> a\n> b\n", "lazy": "- a\nb\n", "fences": "```\n", "rules": "---\n",
    "spaces": " ", "tabs": "\t",
    "addresses": "http://a ", "mail": "a@", "definitions": "[a]: b\n", "headings": "a\n===\n",
    "emphasis in paragraphs": "a*" * 990 + "\n\n", "small tables": "|a|b|\n|-|-|\n|1|2|\n\n",
    "code in lists": "1. a\n\n   ```py\n   x = 1\n   ```\n\n", "sentences": "A *few* **words** with `code`.\n\n",
}  # fmt: skip


def slow(size: int) -> dict[str, str]:
    """Texts of a size that make parsers slow."""
    texts = {name: (unit * (size // len(unit) + 1))[:size] for name, unit in _UNITS.items()}
    return texts | {
        "nested lists": _until(size, lambda depth: "  " * depth + "- a\n"),
        "lists in turn deep and flat": _until(size, lambda depth: "  " * (depth % 29) + "- a\n"),
        "quotes in turn deep and flat": _until(size, lambda depth: "> " * (depth % 39) + "a\n\n"),
        "wide table": "|a" * (size // 10) + "|\n" + "|-" * (size // 10) + "|\n" + "|\n" * (size // 4),
        "long table": "|a|b|\n|-|-|\n" + "|*a*|b|\n" * (size // 8),
        "nested images": "![" * (size // 6) + "a" + "](b)" * (size // 6),
    }


def _until(size: int, line: Callable[[int], str]) -> str:
    lines: list[str] = []
    length = 0
    while length < size:
        lines.append(line(len(lines)))
        length += len(lines[-1])
    return "".join(lines)


BLOCKS = """\
# Title with *emphasis*

A paragraph with a [reference][ref], `code`, **strong** and
a second line.

Setext heading
==============

Second one
---

- a
- b
  - nested

  with a paragraph

- loose

1. one
2. two
10. ten

* * *

| a | b |
|:--|--:|
| 1 | `2` |
| 3<br>4 | [x](https://a.example) |

After the table.
Lazy line.
- list without a blank line

> quote
lazy
> - list in a quote
>
> ```py
> x = 1
> ```

```python
def f(x: int) -> str:
    return f"{x}"

- not a list
```
~~~
tildes ``` inside
~~~
````markdown
```js
nested
```
````

    indented code

    more of it

- [ ] to do
- [x] done

1. Step:
   ```bash
   echo "$HOME"
   ```
2. Next

<div>
**html** is text
</div>

<!-- a comment -->

[ref]: https://ref.example "Title"

[ref]: https://other.example

Text after [ref] and ![image](https://image.example/x.png).

שלום עולם

Line with two spaces  \nand \\* escapes &amp; entities &copy; 😀

``` weird `info
not a fence

   ```c
   int x;
   ```

last `open
"""
