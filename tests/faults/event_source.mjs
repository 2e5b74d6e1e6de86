// Reads a stream as a browser does, until EventSource gives up by itself, and prints what it saw.
const source = new EventSource(process.argv[2]);
const seen = { text: "", last: "", opened: 0, closed: false };
source.onopen = () => seen.opened++;
source.onmessage = (message) => {
  const event = JSON.parse(message.data);
  if (event.type === "text") seen.text += event.text;
  seen.last = message.lastEventId;
};
const look = setInterval(() => {
  if (source.readyState !== EventSource.CLOSED) return;
  clearInterval(look);
  seen.closed = true;
  console.log(JSON.stringify(seen));
}, 50);
