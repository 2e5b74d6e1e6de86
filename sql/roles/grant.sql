-- What the role named by chatd.server_role needs to serve, and no more: it owns nothing, and can change no table.
DO $$
DECLARE
    server text := current_setting('chatd.server_role');
    relation record;
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), server);
    FOR relation IN
        SELECT oid::regclass AS name, relkind = 'S' AS is_sequence,
            CASE relname
                WHEN 'agent_migrations' THEN 'SELECT'
                WHEN 'agent_audit' THEN 'SELECT, INSERT'
                WHEN 'agent_audit_head' THEN 'SELECT, UPDATE'
                WHEN 'agent_audit_anchors' THEN 'SELECT'
                WHEN 'agent_owners' THEN 'SELECT, INSERT, DELETE'
                ELSE 'SELECT, INSERT, UPDATE, DELETE'
            END AS privileges
        FROM pg_class
        WHERE relnamespace = current_schema()::regnamespace AND relname LIKE 'agent\_%' AND relkind IN ('r', 'p', 'S')
    LOOP
        IF relation.is_sequence THEN
            EXECUTE format('GRANT USAGE ON SEQUENCE %s TO %I', relation.name, server);
        ELSE
            EXECUTE format('REVOKE ALL ON %s FROM %I', relation.name, server);
            EXECUTE format('GRANT %s ON %s TO %I', relation.privileges, relation.name, server);
        END IF;
    END LOOP;
END $$;
