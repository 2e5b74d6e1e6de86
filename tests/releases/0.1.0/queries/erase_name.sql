-- Delete an owner's name: the audit tells of the owner by id alone from now on.
-- $1 name
DELETE FROM agent_owners WHERE name = $1
RETURNING id
