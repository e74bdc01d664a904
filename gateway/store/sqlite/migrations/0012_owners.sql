-- Who made a prediction or a file, as far as web pages are concerned (gateway.domain.teams, `owner_of_user`): a page sees
-- only what has its own owner. Earlier records belong to their user; those without a user are not shown to any page.
ALTER TABLE predictions ADD COLUMN owner TEXT;
UPDATE predictions SET owner = 'user:' || user WHERE user IS NOT NULL;
CREATE INDEX predictions_of_owner ON predictions (team, owner, kind, created_at, id) WHERE owner IS NOT NULL;

ALTER TABLE files ADD COLUMN owner TEXT;
CREATE INDEX files_of_owner ON files (team, owner, created_at, id, expires_at) WHERE owner IS NOT NULL;
