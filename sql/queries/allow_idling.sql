-- Let the transaction wait for as long as it takes: what it reads or writes passes through a pipe.
SELECT set_config('idle_in_transaction_session_timeout', '0', true)
