"""A model server that paces its pieces and writes into each when it was sent. Prints its address."""

import asyncio
import sys
import time

from tests.model_server import Exchange, ModelServer


async def main(pieces: int, rate: float) -> None:
    async def paced(exchange: Exchange) -> None:
        await exchange.start()
        due = time.monotonic()
        for _ in range(pieces):
            due += 1 / rate
            await asyncio.sleep(due - time.monotonic())
            await exchange.text(f"{time.monotonic_ns()} is when this piece was sent; ")
        await exchange.stop()

    server = ModelServer()
    server.default = paced
    await server.start()
    print(server.url, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


asyncio.run(main(int(sys.argv[1]), float(sys.argv[2])))
