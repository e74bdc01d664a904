-- Cost tags: a JSON object with sorted keys, or '' for none. The line of a run has the tags of the prediction that started
-- it. `usage_tags` has the sums of each value, as `usage_users` has those of users. What has no value of a tag is the rest
-- of the team's usage.
ALTER TABLE predictions ADD COLUMN tags TEXT NOT NULL DEFAULT '';
ALTER TABLE ledger ADD COLUMN tags TEXT NOT NULL DEFAULT '';
CREATE TABLE usage_tags (
    team TEXT NOT NULL,
    tag TEXT NOT NULL,
    day INTEGER NOT NULL,
    value TEXT NOT NULL,
    runs INTEGER NOT NULL,
    joined INTEGER NOT NULL,
    hits INTEGER NOT NULL,
    milliseconds INTEGER NOT NULL,
    microusd INTEGER NOT NULL,
    saved_microusd INTEGER NOT NULL,
    PRIMARY KEY (team, tag, day, value)
) WITHOUT ROWID;
CREATE INDEX usage_tags_by_day ON usage_tags (day);
