// The parser of event streams, against what the specification says, cut at every place.

import assert from "node:assert/strict";
import { test } from "node:test";
import { SseParser } from "../../chatd/web/client/chatd-client.js";

const BOM = "\uFEFF";
const utf8 = new TextEncoder();

/** Each: what it is about, the stream, and the events as [data, id, event name]. */
const VECTORS = [
  ["a plain event", "data: a\n\n", [["a"]]],
  ["an unterminated block is dropped", "data: a\n\ndata: b\n", [["a"]]],
  ["an unterminated line is dropped", "data: a\n\ndata: b", [["a"]]],
  ["CRLF", "data: a\r\n\r\ndata: b\r\n\r\n", [["a"], ["b"]]],
  ["CR", "data: a\r\rdata: b\r\r", [["a"], ["b"]]],
  ["line ends mixed", "data: a\r\n\ndata: b\n\rdata: c\r\r\n", [["a"], ["b"], ["c"]]],
  ["CR LF is one end, LF CR are two", "data: a\n\rdata: b\r\n\r\n", [["a"], ["b"]]],
  ["lines of data are joined", "data: a\ndata: b\ndata\ndata:\n\n", [["a\nb\n\n"]]],
  ["data of one empty line", "data\n\n", [[""]]],
  ["data of two empty lines", "data:\ndata:\n\n", [["\n"]]],
  ["no data, no event", "event: x\nid: 1\n\ndata: a\n\n", [["a", "1"]]],
  ["one space is taken off", "data:a\n\ndata:  a\n\ndata:\ta\n\n", [["a"], [" a"], ["\ta"]]],
  ["colons in a value", "data: a: b:c\n\n", [["a: b:c"]]],
  ["comments", ": ping\n\n:\ndata: a\n:x\ndata: b\n\n", [["a\nb"]]],
  ["names are case-sensitive", "Data: a\nDATA: b\ndata: c\n\n", [["c"]]],
  ["a name with a space is another", "data : a\n data: b\ndata: c\n\n", [["c"]]],
  ["unknown fields", "foo: 1\ndata: a\nbar\n\n", [["a"]]],
  ["an event's name lasts for one block", "event: x\ndata: a\n\ndata: b\n\n", [["a", "", "x"], ["b"]]],
  ["the last name counts, an empty one is none", "event: x\nevent:\ndata: a\n\n", [["a"]]],
  ["a name without data is forgotten", "event: x\n\ndata: a\n\n", [["a"]]],
  ["an id persists", "id: 1\ndata: a\n\ndata: b\n\n", [["a", "1"], ["b", "1"]]],
  ["an empty id clears it", "id: 1\ndata: a\n\nid\ndata: b\n\nid:\ndata: c\n\n", [["a", "1"], ["b"], ["c"]]],
  ["an id with NUL is ignored", "id: 1\ndata: a\n\nid: 2\0\nid: \0\ndata: b\n\n", [["a", "1"], ["b", "1"]]],
  ["NUL in data is data", "data: \0\n\n", [["\0"]]],
  ["one BOM is taken off", `${BOM}data: a\n\n${BOM}data: b\n\ndata: ${BOM}c\n\n`, [["a"], [`${BOM}c`]]],
  ["a second BOM is none", `${BOM}${BOM}data: a\n\ndata: b\n\n`, [["b"]]],
  ["no other line ends", "data: a\u2028b\u2029c\u0085d\v\fe\n\n", [["a\u2028b\u2029c\u0085d\v\fe"]]],
  ["UTF-8 of every length", "data: aé€😀\nid: é\n\n", [["aé€😀", "é"]]],
  ["chatd's own frames", 'retry: 1000\nid: t.1\ndata: {"a":1}\n\n: ping\n\nid: t.2\ndata: {}\n\n', [['{"a":1}', "t.1"], ["{}", "t.2"]]],
];

function parse(chunks) {
  const parser = new SseParser();
  return chunks.flatMap((chunk) => parser.push(chunk)).map(({ data, id, event }) => [data, id, event]);
}

for (const [name, stream, expected] of VECTORS) {
  const bytes = utf8.encode(stream);
  const events = expected.map(([data, id = "", event = "message"]) => [data, id, event]);
  test(name, () => assert.deepEqual(parse([bytes]), events));
  test(`${name}, cut at every place`, () => {
    for (let at = 0; at <= bytes.length; at++) {
      assert.deepEqual(parse([bytes.subarray(0, at), bytes.subarray(at)]), events, `cut at ${at}`);
    }
  });
  test(`${name}, byte by byte and with empty chunks`, () => {
    const single = Array.from(bytes, (_, at) => bytes.subarray(at, at + 1));
    assert.deepEqual(parse(single), events);
    assert.deepEqual(parse(single.flatMap((byte) => [new Uint8Array(), byte])), events);
  });
}

test("an event is there as soon as its empty line is, whatever ends it", () => {
  for (const end of ["\n", "\r", "\r\n"]) {
    const parser = new SseParser();
    assert.equal(parser.push(utf8.encode(`data: a${end}${end[0]}`)).length, 1, JSON.stringify(end));
  }
});

test("retry is digits only, and the last one counts", () => {
  const parser = new SseParser();
  for (const [line, retry] of [["x", null], ["1000", 1000], ["1.5", 1000], ["-1", 1000], ["1e3", 1000], ["", 1000], ["٣", 1000], ["0", 0]]) {
    parser.push(utf8.encode(`retry: ${line}\n`));
    assert.equal(parser.retry, retry, line);
  }
});

test("the id is that of finished blocks, begins with what is given, and tells whose it is", () => {
  const parser = new SseParser("0");
  assert.equal(parser.push(utf8.encode("data: a\n\n"))[0].numbered, false);
  assert.equal(parser.lastEventId, "0");
  parser.push(utf8.encode("id: 1\n"));
  assert.equal(parser.lastEventId, "0");
  assert.equal(parser.push(utf8.encode("data: a\n\n"))[0].numbered, true);
  assert.equal(parser.lastEventId, "1");
});

test("bytes that are no UTF-8 become U+FFFD", () => {
  const [event] = new SseParser().push(Uint8Array.from([...utf8.encode("data: a"), 0xff, 0xc3, ...utf8.encode("b\n\n")]));
  assert.equal(event.data, "a\uFFFD\uFFFDb");
});

test("an event that never ends is an error, comments that go on for ever are none", () => {
  const mebibyte = utf8.encode("x".repeat(1 << 20));
  for (const start of ["data: ", "", "data: x\ndata: "]) {
    const parser = new SseParser();
    parser.push(utf8.encode(start));
    assert.throws(() => Array.from({ length: 17 }, () => parser.push(mebibyte)), { name: "ChatdError", code: "too_large" });
  }
  const parser = new SseParser();
  const comment = utf8.encode(`:${"x".repeat(1 << 20)}\n`);
  for (let n = 0; n < 20; n++) parser.push(comment);
  assert.equal(parser.push(utf8.encode("data: a\n\n")).length, 1);
});

test("a large event in small pieces costs what its bytes cost", () => {
  const parser = new SseParser();
  const piece = utf8.encode("xxxxxxxx");
  const begun = performance.now();
  parser.push(utf8.encode("data: "));
  for (let n = 0; n < 500_000; n++) parser.push(piece);
  assert.equal(parser.push(utf8.encode("\n\n"))[0].data.length, 4_000_000);
  assert.ok(performance.now() - begun < 10_000);
});
