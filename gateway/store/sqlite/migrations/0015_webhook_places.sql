-- A prediction with a webhook has a delivery from its create on: `reserved` until it has ended, then `queued`. So the
-- place of its end is taken when it is accepted.
ALTER TABLE deliveries ADD COLUMN is_public INTEGER NOT NULL DEFAULT 0;
CREATE INDEX deliveries_reserved ON deliveries (run_id) WHERE state = 'reserved';
CREATE INDEX deliveries_dead_of_team ON deliveries (team, dead_at, id) WHERE state = 'dead';

-- Deliveries by team and by whether a web page asked for them, so that no step counts rows. `taken` is those that are
-- reserved or queued. The triggers keep it equal to the table, whatever changes that.
CREATE TABLE delivery_counts (
    team TEXT NOT NULL,
    is_public INTEGER NOT NULL,
    taken INTEGER NOT NULL,
    dead INTEGER NOT NULL,
    PRIMARY KEY (team, is_public)
) WITHOUT ROWID;
INSERT INTO delivery_counts (team, is_public, taken, dead)
SELECT team, is_public, sum(state <> 'dead'), sum(state = 'dead') FROM deliveries GROUP BY team, is_public;

CREATE TRIGGER delivery_added AFTER INSERT ON deliveries BEGIN
    INSERT INTO delivery_counts (team, is_public, taken, dead)
    VALUES (new.team, new.is_public, new.state <> 'dead', new.state = 'dead')
    ON CONFLICT (team, is_public) DO UPDATE SET taken = taken + excluded.taken, dead = dead + excluded.dead;
END;
CREATE TRIGGER delivery_changed AFTER UPDATE OF state ON deliveries WHEN (old.state = 'dead') <> (new.state = 'dead') BEGIN
    UPDATE delivery_counts
    SET taken = taken + (old.state = 'dead') - (new.state = 'dead'),
        dead = dead + (new.state = 'dead') - (old.state = 'dead')
    WHERE team = new.team AND is_public = new.is_public;
END;
CREATE TRIGGER delivery_removed AFTER DELETE ON deliveries BEGIN
    UPDATE delivery_counts SET taken = taken - (old.state <> 'dead'), dead = dead - (old.state = 'dead')
    WHERE team = old.team AND is_public = old.is_public;
END;
