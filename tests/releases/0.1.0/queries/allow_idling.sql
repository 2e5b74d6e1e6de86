-- Let the transaction wait for longer than others: what it reads or writes passes through a pipe.
-- $1 milliseconds, as text
SELECT set_config('idle_in_transaction_session_timeout', $1, true)
