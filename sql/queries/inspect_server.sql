-- What the server is like to this role: its rights on chatd's tables, the settings that durability rests on, room, time.
-- The rights that are needed are those that roles/grant.sql grants.
SELECT
    current_user::text AS role,
    current_setting('is_superuser')::boolean AS is_superuser,
    EXISTS (
        SELECT FROM pg_class
        WHERE relnamespace = to_regnamespace(current_schema()) AND relname LIKE 'agent\_%'
            AND pg_has_role(relowner, 'MEMBER')
    ) AS is_owner,
    coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AS may_create,
    ARRAY(
        SELECT relname || ': ' || privilege
        FROM pg_class, unnest(string_to_array(
            CASE relname
                WHEN 'agent_migrations' THEN 'SELECT'
                WHEN 'agent_audit' THEN 'SELECT,INSERT'
                WHEN 'agent_audit_head' THEN 'SELECT,UPDATE'
                WHEN 'agent_audit_anchors' THEN 'SELECT'
                WHEN 'agent_owners' THEN 'SELECT,INSERT,DELETE'
                ELSE 'SELECT,INSERT,UPDATE,DELETE'
            END, ','
        )) AS privilege
        WHERE relnamespace = to_regnamespace(current_schema()) AND relname LIKE 'agent\_%' AND relkind IN ('r', 'p')
            AND NOT has_table_privilege(pg_class.oid, privilege)
        ORDER BY relname, privilege
    ) AS missing,
    current_setting('fsync')::boolean AS fsync,
    current_setting('full_page_writes')::boolean AS full_page_writes,
    current_setting('synchronous_commit') AS synchronous_commit,
    current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer
        - coalesce(current_setting('reserved_connections', true), '0')::integer AS max_connections,
    (SELECT count(*) FROM pg_stat_get_activity(NULL) WHERE datid <> 0)::integer AS connections,
    clock_timestamp() AS now
