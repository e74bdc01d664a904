-- One process serves from a file: nothing was ever owned by one of several.
DROP TABLE leases;
