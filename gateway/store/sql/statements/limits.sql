-- Reservations and counters

-- name: add_reservation
INSERT INTO reservations ({reservation}) VALUES ({reservation_values});

-- name: reservation
SELECT {reservation} FROM reservations WHERE run_id = :run_id;

-- name: delete_reservation
DELETE FROM reservations WHERE run_id = :run_id RETURNING {reservation};

-- name: meter
SELECT open, held_milliseconds, held_microusd, full_at FROM meters WHERE scope = :scope;

-- name: change_meter
INSERT INTO meters (scope, open, held_milliseconds, held_microusd, full_at)
VALUES (:scope, :open, :milliseconds, :microusd, :full_at)
ON CONFLICT (scope) DO UPDATE
SET open = meters.open + excluded.open,
    held_milliseconds = meters.held_milliseconds + excluded.held_milliseconds,
    held_microusd = meters.held_microusd + excluded.held_microusd,
    full_at = CASE WHEN :takes THEN excluded.full_at ELSE meters.full_at END;

-- name: spent_in
SELECT
    coalesce(sum(CASE WHEN day = :day THEN milliseconds END), 0), coalesce(sum(CASE WHEN day = :day THEN microusd END), 0),
    coalesce(sum(milliseconds), 0), coalesce(sum(microusd), 0)
FROM spent WHERE scope = :scope AND day >= :first AND day < :end;

-- name: spend
INSERT INTO spent (scope, day, milliseconds, microusd) VALUES (:scope, :day, :milliseconds, :microusd)
ON CONFLICT (scope, day) DO UPDATE
SET milliseconds = spent.milliseconds + excluded.milliseconds, microusd = spent.microusd + excluded.microusd;

-- name: unsettled
SELECT count(*) FROM reservations WHERE at < :before;

-- name: stuck_reservations
-- There are none without a defect: a reservation is deleted in the transaction that ends or deletes its run.
SELECT {reservation} FROM reservations
WHERE NOT EXISTS (SELECT 1 FROM runs WHERE id = run_id AND state IN ('intended', 'live'))
LIMIT :limit;

-- name: delete_idle_meters
-- A full bucket needs no row.
DELETE FROM meters WHERE scope IN (
    SELECT scope FROM meters WHERE open = 0 AND full_at <= :now ORDER BY full_at LIMIT :limit
) AND open = 0 AND full_at <= :now;
