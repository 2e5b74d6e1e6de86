-- Limits per owner that all processes on this database share: turns at once, tokens a day.

ALTER TABLE agent_turns
    -- Null, as the slot is, where turns at once are not limited. Not `owner`: to the queries of a process that has not
    -- been updated yet, which join this table with agent_sessions, that would be ambiguous.
    ADD COLUMN slot_owner text COLLATE "C",
    ADD COLUMN slot integer; -- from 1 to the limit, the turn's as long as it runs

-- Two turns of an owner that run have different slots, and there are as many as the limit says: so nothing is counted
-- that could drift, and a turn that ends, or is deleted, is all that it takes to free its slot.
-- No row is in it yet, but the table is read from one end to the other under the lock of the columns above: about a
-- second for two million turns. It is accepted: without that lock it would have to be made outside of a transaction.
CREATE UNIQUE INDEX agent_turns_slots ON agent_turns (slot_owner, slot) WHERE outcome IS NULL AND slot IS NOT NULL;

CREATE TABLE agent_usage (
    day    date NOT NULL,            -- in UTC
    owner  text COLLATE "C" NOT NULL,
    tokens bigint NOT NULL,          -- of the turns that ended on it
    PRIMARY KEY (day, owner) -- in this order it serves the sweep, too
);
