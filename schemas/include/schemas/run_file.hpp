#pragma once
// HDF5 paths, types and units of checkpoints and exported runs: spelt here and nowhere else.
// What they mean and how to read them with h5py: schemas/run_file.md.
//
// Types are written f32, u8, u64, i64 (little-endian) and text (UTF-8).

namespace yumoe::run_file {

inline constexpr int kVersion = 1;

// Attributes of the root of both kinds of file.
inline constexpr char kFormat[] = "format";                 // text: one of the two below
inline constexpr char kFormatVersion[] = "format_version";  // i64: kVersion
inline constexpr char kRun[] = "run";                       // text: id of the run
inline constexpr char kCheckpointFormat[] = "yumoe checkpoint";
inline constexpr char kRunFormat[] = "yumoe run";

// Attributes of any dataset whose numbers mean something.
inline constexpr char kUnits[] = "units";      // text; "1" for pure numbers
inline constexpr char kMeaning[] = "meaning";  // text: one clause

// A checkpoint: the root of a checkpoint file, or a group below kCheckpoints of an exported run.
inline constexpr char kRound[] = "round";                       // attribute u64
inline constexpr char kJournalSequence[] = "journal_sequence";  // attribute u64
inline constexpr char kVersionDigest[] = "version_digest";      // attribute text, 64 hex digits
inline constexpr char kLayoutDigest[] = "layout_digest";        // attribute text, 64 hex digits
inline constexpr char kModel[] = "model";                  // group: one attribute a model option
inline constexpr char kState[] = "state";                  // group of the six below
inline constexpr char kParameters[] = "state/parameters";  // f32 [parameters]
inline constexpr char kMomentum[] = "state/momentum";      // f32 [parameters] or [0]
inline constexpr char kResidual[] = "state/residual";      // f32 [parameters] or [0]
inline constexpr char kGateBias[] = "state/gate_bias";     // f32 [layers * experts] or [0]
inline constexpr char kCore[] = "state/core";              // u8 [bytes]
inline constexpr char kLedger[] = "state/ledger";          // u8 [bytes]
// Group: one virtual dataset a tensor, named and shaped as in router/layout.hpp, that shows its
// part of kParameters.
inline constexpr char kTensors[] = "tensors";

// An exported run.
inline constexpr char kMetadata[] = "metadata";  // group: one text dataset a metadata entry
inline constexpr char kEvents[] = "events";      // group of columns, one row an event
inline constexpr char kEventSequence[] = "events/sequence";      // u64 [events], from 1
inline constexpr char kEventTime[] = "events/time_ms";           // i64 [events], ms since 1970 UTC
inline constexpr char kEventKind[] = "events/kind";              // text of fixed size [events]
inline constexpr char kEventChain[] = "events/chain";            // u8 [events, 32]
inline constexpr char kEventOffset[] = "events/payload_offset";  // u64 [events + 1]
inline constexpr char kEventPayload[] = "events/payload";        // u8 [bytes]
inline constexpr char kBlobs[] = "updates";                      // group of columns, one row a blob
inline constexpr char kBlobDigest[] = "updates/digest";          // u8 [blobs, 32]
inline constexpr char kBlobRound[] = "updates/round";            // u64 [blobs]
inline constexpr char kBlobKind[] = "updates/kind";              // text of fixed size [blobs]
inline constexpr char kBlobOffset[] = "updates/bytes_offset";    // u64 [blobs + 1]
inline constexpr char kBlobBytes[] = "updates/bytes";            // u8 [bytes]
inline constexpr char kCheckpoints[] = "checkpoints";  // group: "round_0000000012" a checkpoint
inline constexpr char kSettlement[] = "settlement";    // group: a u8 [bytes] a file; absent: none
inline constexpr char kTables[] = "tables";            // group: a group a table, a dataset a column

}  // namespace yumoe::run_file
