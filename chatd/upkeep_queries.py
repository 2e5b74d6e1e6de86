"""What processes ask of the database to keep things going: leases, takeovers, sweeps, notices; part of Repo."""

import uuid
from collections.abc import Sequence

from chatd.connections import Connections
from chatd.models import ServerState, Turn, to_turn

MAX_NOTICE = 200  # turns in one: PostgreSQL takes 8,000 bytes


class UpkeepQueries(Connections):
    """What no client asks for: recovery, sweeps, a look at the server, notices."""

    # Recovery

    async def renew_leases(self, turn_ids: Sequence[str], boot_id: uuid.UUID) -> dict[str, bool]:
        """Return the turns whose lease was renewed, and whether they are to be stopped.

        The others are lost to this process, or over.
        """
        return {row["id"]: row["stop_requested"] for row in await self._all("renew_leases", turn_ids, boot_id)}

    async def claim_turns(
        self, boot_id: uuid.UUID, dead: Sequence[uuid.UUID], limit: int, own: Sequence[str]
    ) -> list[Turn]:
        return [to_turn(row) for row in await self._all("claim_turns", boot_id, dead, limit, own)]

    async def claim_turn(self, turn: Turn, boot_id: uuid.UUID) -> Turn | None:
        """Take a running turn over, whoever runs it; None: somebody else was first."""
        row = await self._one("claim_turn", turn.id, turn.epoch, boot_id)
        return row and to_turn(row)

    async def release_turns(self, turn_ids: Sequence[str], boot_id: uuid.UUID) -> None:
        """Let go of turns, and tell the other processes."""
        if await self._all("release_turns", turn_ids, boot_id):
            await self.notify("orphans")

    # Sweeps

    async def sweep_events(self, retention: float, turns: int, events: int) -> int:
        """Delete a batch of the events of turns that ended `retention` seconds ago; return how many turns these are."""
        row = await self._one("sweep_events", retention, turns, events)
        return int(row["turns"])

    async def sweep_keys(self, limit: int) -> int:
        """Delete a batch of old idempotency keys and return how many."""
        return len(await self._all("sweep_keys", limit))

    async def sweep_tickets(self, limit: int, grace: float) -> int:
        """Delete a batch of expired tickets and return how many."""
        return len(await self._all("sweep_tickets", limit, grace))

    async def sweep_usage(self, limit: int) -> int:
        """Delete a batch of what was counted on days long gone and return how many."""
        return len(await self._all("sweep_usage", limit))

    # What `chatd doctor` looks at

    async def inspect_server(self) -> ServerState:
        return ServerState(**await self._one("inspect_server"))

    # Notices between processes

    async def notify(self, kind: str, turn_ids: Sequence[str] = ()) -> None:
        """Send a notice to all processes, this one included; of many turns in several parts."""
        for at in range(0, max(1, len(turn_ids)), MAX_NOTICE):
            await self._one("notify", " ".join([kind, *turn_ids[at : at + MAX_NOTICE]]))
