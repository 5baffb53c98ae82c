select pg_current_xact_id()::text, current_setting('transaction_isolation')
