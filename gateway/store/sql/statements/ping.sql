-- The store itself

-- name: write_ping
UPDATE pings SET count = count + 1 WHERE id = 1 RETURNING count;

-- name: read_ping
SELECT count FROM pings WHERE id = 1;
