-- The body of a create is kept to recognise the run of an intent. Bodies of runs that are recorded are of no more use,
-- and those of earlier versions can hold secret inputs. The same goes for digests of inputs without a key.
UPDATE runs SET request = X'' WHERE state <> 'intended' AND length(request) > 0;
UPDATE runs SET provisional = NULL WHERE state = 'ended' AND fingerprint IS NOT NULL AND provisional IS NOT NULL;
