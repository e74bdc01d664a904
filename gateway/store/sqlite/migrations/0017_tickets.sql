-- A ticket contains the id of its prediction. Only tickets of earlier versions are looked up: the index of tickets was
-- the most expensive one, because every new prediction changed another page of it.
DROP INDEX predictions_by_ticket;
CREATE INDEX predictions_by_ticket ON predictions (ticket) WHERE ticket <> '';
