#include "store/seal.hpp"

#include <fcntl.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <future>

namespace yumoe {
namespace {

constexpr char kMagic[9] = "YUMOSEAL";
constexpr std::uint32_t kSealVersion = 1;
constexpr std::uint64_t kFooterBytes = 8 + 4 + 4 + 8 + 8 + 8 + 8;
constexpr std::uint64_t kSectionsMax = 1'000'000;
constexpr std::uint64_t kNameBytesMax = 256;
constexpr std::uint64_t kFewPieces = 16;  // too few to share

template <typename Number>
void put_number(Bytes& bytes, Number number) {
  const ByteView view = as_bytes(std::span<const Number>(&number, 1));
  bytes.insert(bytes.end(), view.begin(), view.end());
}

// Reads numbers off the front of a view whose size was checked.
template <typename Number>
Number take_number(ByteView& bytes) {
  Number number;
  std::memcpy(&number, bytes.data(), sizeof number);
  bytes = bytes.subspan(sizeof number);
  return number;
}

std::uint64_t piece_bytes_of(const Section& section, std::uint64_t piece) {
  return std::min(kPieceBytes, section.bytes - piece * kPieceBytes);
}

}  // namespace

std::vector<Section> with_structure(std::vector<Section> sections, std::uint64_t body_bytes) {
  std::sort(sections.begin(), sections.end(),
            [](const Section& a, const Section& b) { return a.offset < b.offset; });
  std::vector<Section> all;
  std::uint64_t end = 0;
  const auto fill_to = [&](std::uint64_t offset) {
    YUMOE_ASSERT(offset >= end);
    if (offset > end) all.push_back({kStructure, end, offset - end, {}});
  };
  for (Section& section : sections) {
    fill_to(section.offset);
    end = section.offset + section.bytes;
    all.push_back(std::move(section));
  }
  fill_to(body_bytes);
  return all;
}

std::uint64_t checksum_of(ByteView piece) { return XXH3_64bits(piece.data(), piece.size()); }

std::vector<std::uint64_t> checksums_of(ByteView bytes) {
  std::vector<std::uint64_t> checksums;
  for (; !bytes.empty();
       bytes = bytes.subspan(std::min<std::uint64_t>(kPieceBytes, bytes.size()))) {
    checksums.push_back(
        checksum_of(bytes.first(std::min<std::uint64_t>(kPieceBytes, bytes.size()))));
  }
  return checksums;
}

SectionWriter::SectionWriter(File& file, Section& section) : file_(file), section_(section) {
  section_.checksums.clear();
}

void SectionWriter::put(ByteView piece) {
  file_.write_at(section_.offset + written_, piece);
  section_.checksums.push_back(checksum_of(piece));
  written_ += piece.size();
}

void SectionWriter::append(ByteView bytes) {
  while (!bytes.empty()) {
    if (pending_.empty() && bytes.size() >= kPieceBytes) {
      put(bytes.first(kPieceBytes));
      bytes = bytes.subspan(kPieceBytes);
      continue;
    }
    const std::size_t take = std::min<std::size_t>(kPieceBytes - pending_.size(), bytes.size());
    pending_.insert(pending_.end(), bytes.begin(),
                    bytes.begin() + static_cast<std::ptrdiff_t>(take));
    bytes = bytes.subspan(take);
    if (pending_.size() == kPieceBytes) {
      put(pending_);
      pending_.clear();
    }
  }
}

void SectionWriter::finish() {
  if (!pending_.empty()) put(pending_);
  pending_.clear();
  YUMOE_ASSERT(written_ == section_.bytes);
}

void seal(File& file, const std::vector<Section>& sections) {
  Bytes bytes;
  std::uint64_t pieces = 0, body_bytes = 0;
  for (const Section& section : sections) {
    YUMOE_ASSERT(section.offset == body_bytes);
    body_bytes += section.bytes;
    YUMOE_ASSERT(section.checksums.size() == section.pieces());
    for (const std::uint64_t checksum : section.checksums) put_number(bytes, checksum);
    pieces += section.pieces();
  }
  for (const Section& section : sections) {
    YUMOE_ASSERT(section.name.size() <= kNameBytesMax);
    put_number(bytes, section.offset);
    put_number(bytes, section.bytes);
    put_number(bytes, static_cast<std::uint16_t>(section.name.size()));
    bytes.insert(bytes.end(), section.name.begin(), section.name.end());
  }
  bytes.insert(bytes.end(), kMagic, kMagic + 8);
  put_number(bytes, kSealVersion);
  put_number(bytes, static_cast<std::uint32_t>(kPieceBytes));
  put_number(bytes, body_bytes);
  put_number(bytes, pieces);
  put_number(bytes, static_cast<std::uint64_t>(sections.size()));
  put_number(bytes, checksum_of(bytes));
  file.write_at(body_bytes, bytes);
}

SealedFile::SealedFile(const std::filesystem::path& path, ErrorCode code)
    : code_(code), file_(path, O_RDONLY) {
  read_seal();
  for (const Section& section : sections_) {
    if (section.name == kStructure) check(section);
  }
}

void SealedFile::refuse(const std::string& what) const {
  throw Error(code_, path().string() + ": " + what);
}

void SealedFile::read_seal() {
  const std::uint64_t size = file_.size();
  if (size < kFooterBytes) refuse("it is cut short");
  std::array<std::uint8_t, kFooterBytes> footer;
  file_.read_at(size - kFooterBytes, footer);
  ByteView view(footer);
  if (std::memcmp(view.data(), kMagic, 8) != 0) {
    refuse("its end is missing or not ours: the file was cut short or never completed");
  }
  view = view.subspan(8);
  const auto version = take_number<std::uint32_t>(view);
  if (version != kSealVersion) {
    throw Error(ErrorCode::version_mismatch, path().string() + " has a seal of version " +
                                                 std::to_string(version) +
                                                 ": use the release that wrote it");
  }
  const auto piece_bytes = take_number<std::uint32_t>(view);
  const auto body_bytes = take_number<std::uint64_t>(view);
  const auto pieces = take_number<std::uint64_t>(view);
  const auto sections = take_number<std::uint64_t>(view);
  const auto checksum = take_number<std::uint64_t>(view);
  const std::uint64_t before_footer = size - kFooterBytes;
  if (piece_bytes != kPieceBytes || body_bytes > before_footer || sections > kSectionsMax ||
      pieces > (before_footer - body_bytes) / 8 ||
      before_footer - body_bytes - pieces * 8 > sections * (18 + kNameBytesMax)) {
    refuse("its seal is damaged");
  }
  Bytes seal(size - body_bytes);
  file_.read_at(body_bytes, seal);
  if (checksum_of(ByteView(seal).first(seal.size() - 8)) != checksum) refuse("its seal is damaged");
  ByteView table = ByteView(seal).first(before_footer - body_bytes);
  ByteView checksums = table.first(pieces * 8);
  parse_sections(table.subspan(pieces * 8), sections, body_bytes);
  std::uint64_t counted = 0;
  for (const Section& section : sections_) counted += section.pieces();
  if (counted != pieces) refuse("its seal is damaged");
  for (Section& section : sections_) {
    section.checksums.resize(section.pieces());
    for (std::uint64_t& number : section.checksums) number = take_number<std::uint64_t>(checksums);
  }
}

void SealedFile::parse_sections(ByteView table, std::uint64_t count, std::uint64_t body_bytes) {
  std::uint64_t end = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    if (table.size() < 18) refuse("its seal is damaged");
    Section section;
    section.offset = take_number<std::uint64_t>(table);
    section.bytes = take_number<std::uint64_t>(table);
    const auto name_bytes = take_number<std::uint16_t>(table);
    if (name_bytes > table.size() || section.offset != end || section.bytes > body_bytes - end) {
      refuse("its seal is damaged");
    }
    section.name.assign(reinterpret_cast<const char*>(table.data()), name_bytes);
    table = table.subspan(name_bytes);
    end += section.bytes;
    sections_.push_back(std::move(section));
  }
  if (!table.empty() || end != body_bytes) refuse("its seal is damaged");
}

const Section* SealedFile::find(const std::string& name) const noexcept {
  for (const Section& section : sections_) {
    if (section.name == name) return &section;
  }
  return nullptr;
}

void SealedFile::read_piece(const File& file, const Section& section, std::uint64_t piece,
                            std::span<std::uint8_t> into) const {
  YUMOE_ASSERT(into.size() == piece_bytes_of(section, piece));
  const std::uint64_t offset = section.offset + piece * kPieceBytes;
  file.read_at(offset, into);
  if (checksum_of(into) != section.checksums[piece]) {
    refuse("dataset " + section.name + " fails its check at byte " + std::to_string(offset));
  }
}

void SealedFile::read(std::span<const Wanted> wanted) const {
  std::uint64_t pieces = 0;
  for (const Wanted& one : wanted) {
    YUMOE_ASSERT(one.into.size() == one.section->bytes);
    pieces += one.section->pieces();
  }
  // Each reader goes through its share front to back with a descriptor of its own, so that the
  // kernel reads ahead for both.
  const auto work = [&](std::uint64_t begin, std::uint64_t end) {
    const File file(path(), O_RDONLY, code_);
    for (std::uint64_t i = begin; i < end; ++i) {
      std::uint64_t piece = i;
      const Wanted* one = wanted.data();
      for (; piece >= one->section->pieces(); ++one) piece -= one->section->pieces();
      read_piece(file, *one->section, piece,
                 one->into.subspan(piece * kPieceBytes, piece_bytes_of(*one->section, piece)));
    }
  };
  const std::uint64_t half = pieces < kFewPieces ? 0 : pieces / 2;
  std::future<void> other = std::async(std::launch::async, work, 0, half);
  work(half, pieces);
  other.get();
}

void SealedFile::check(const Section& section) const {
  Bytes piece;
  for (std::uint64_t i = 0; i < section.pieces(); ++i) {
    piece.resize(piece_bytes_of(section, i));
    read_piece(file_, section, i, piece);
  }
}

void SealedFile::check_all() const {
  for (const Section& section : sections_) {
    if (section.name != kStructure) check(section);
  }
}

void SealedFile::read_checked_before(const Section& section, std::uint64_t offset,
                                     std::span<std::uint8_t> into) const {
  YUMOE_ASSERT(offset <= section.bytes && into.size() <= section.bytes - offset);
  file_.read_at(section.offset + offset, into);
}

}  // namespace yumoe
