-- The journal of one run, as it lies in <run>/journal.sqlite (SQLite 3, WAL mode). The file's
-- application_id is 0x59554d4f ("YUMO") and its user_version the number of this layout. Only
-- coordinator/store opens it; the run-file page (schemas/run_file.md) says how its parts fit together.

-- What the run is: written once when the run is created, part of the first link of the chain.
-- Names match [A-Za-z0-9_.-]{1,64}. "run" is the run's id.
CREATE TABLE metadata (
  name TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Every event that changed the coordinator's state, in order, without gaps, from 1.
-- chain(n) = BLAKE2b-256(chain(n-1), sequence u64, time_ms i64, length of kind u64, kind, payload);
-- chain(0) = BLAKE2b-256("yumoe journal 1", then for each metadata row by name: length of name u64,
-- name, length of value u64, value). Numbers are little-endian.
CREATE TABLE record (
  sequence INTEGER PRIMARY KEY,
  time_ms INTEGER NOT NULL,
  kind TEXT NOT NULL,
  payload BLOB NOT NULL,
  chain BLOB NOT NULL
) STRICT;

-- Large byte strings that records name by digest (contributions, aggregates), kept for replay.
-- `round` is the last round that needs one; retention drops whole rounds.
CREATE TABLE blob (
  digest BLOB NOT NULL UNIQUE,
  round INTEGER NOT NULL,
  kind TEXT NOT NULL,
  bytes BLOB NOT NULL
) STRICT;
CREATE INDEX blob_by_round ON blob (round);
