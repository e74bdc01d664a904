-- A stream's ticket may be bound to the pages whose key created the prediction.

ALTER TABLE predictions ADD COLUMN ticket_origins TEXT;
