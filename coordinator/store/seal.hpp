#pragma once
// The seal at the end of checkpoints and exported runs: checksums of every byte before it, so that
// a changed byte is found, and named, before HDF5 (which believes what it reads) sees the file.
// Other HDF5 programs do not notice it. Private to coordinator/store.
//
// The body is cut into sections without gaps: one a large dataset, the rest called "structure". A
// section is cut into pieces of 1 MiB (the last one shorter), each with its XXH3-64. After the
// body:
//   u64 of each piece, in order; then each section: u64 offset, u64 bytes, u16 length of name,
//   name; then the footer: "YUMOSEAL", u32 version, u32 piece bytes, u64 body bytes, u64 pieces,
//   u64 sections, u64 XXH3-64 of everything after the body and before this number.
// Source: XXH3 as specified by xxHash 0.8. It finds accidents, not forgery.

#include <array>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "cluster/bytes.hpp"
#include "cluster/error.hpp"
#include "store/file.hpp"

namespace yumoe {

inline constexpr std::uint64_t kPieceBytes = std::uint64_t{1} << 20;

struct Section {
  std::string name;
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
  std::vector<std::uint64_t> checksums;  // one a piece

  std::uint64_t pieces() const noexcept { return (bytes + kPieceBytes - 1) / kPieceBytes; }
};

inline constexpr char kStructure[] = "structure";

std::uint64_t checksum_of(ByteView piece);

// The checksums of a section's bytes, all at hand.
std::vector<std::uint64_t> checksums_of(ByteView bytes);

// Writes a section front to back from pieces of any size, taking checksums on the way.
class SectionWriter {
 public:
  SectionWriter(File& file, Section& section);
  void append(ByteView bytes);
  void finish();  // all of the section must have been given

 private:
  void put(ByteView piece);

  File& file_;
  Section& section_;
  std::uint64_t written_ = 0;
  Bytes pending_;
};

// `sections` in order of place, with a section called "structure" wherever there is none of them
// before `body_bytes`.
std::vector<Section> with_structure(std::vector<Section> sections, std::uint64_t body_bytes);

// Writes the seal behind the sections, which have no gaps and their checksums.
void seal(File& file, const std::vector<Section>& sections);

// A sealed file that is being read. Every error is Error{code} naming the file and the section.
class SealedFile {
 public:
  // Checks the seal itself and all of "structure".
  SealedFile(const std::filesystem::path& path, ErrorCode code);

  const std::vector<Section>& sections() const noexcept { return sections_; }

  // The section of that name, nullptr if there is none.
  const Section* find(const std::string& name) const noexcept;

  // Reads whole sections, checked, with two threads.
  struct Wanted {
    const Section* section;
    std::span<std::uint8_t> into;  // section->bytes
  };
  void read(std::span<const Wanted> wanted) const;

  // Checks all datasets.
  void check_all() const;

  // Reads part of a section without checking it again, after check_all.
  void read_checked_before(const Section& section, std::uint64_t offset,
                           std::span<std::uint8_t> into) const;

  const std::filesystem::path& path() const noexcept { return file_.path(); }
  std::uint64_t bytes() const { return file_.size(); }

 private:
  void read_seal();
  void parse_sections(ByteView table, std::uint64_t count, std::uint64_t body_bytes);
  void check(const Section& section) const;
  void read_piece(const File& file, const Section& section, std::uint64_t piece,
                  std::span<std::uint8_t> into) const;
  [[noreturn]] void refuse(const std::string& what) const;

  ErrorCode code_;
  File file_;
  std::vector<Section> sections_;
};

}  // namespace yumoe
