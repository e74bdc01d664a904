-- The column has the name of the record's field.
ALTER TABLE predictions RENAME COLUMN left_as TO final_status;
