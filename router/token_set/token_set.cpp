#include "router/token_set.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "cluster/error.hpp"
#include "cluster/random.hpp"
#include "token_set/window_order.hpp"

namespace yumoe {
namespace {

constexpr std::uint64_t kTokenizerBytesMax = 64u << 20;

// A whole regular file in memory, read-only. An empty file maps to nothing.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path) {
    const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) {
      const int reason = errno;
      throw Error(
          reason == ENOENT || reason == ENOTDIR ? ErrorCode::file_missing : ErrorCode::file_io,
          "open " + path.string() + ": " + std::strerror(reason) +
              "; build the token set with `yumoe data build`");
    }
    struct stat status {};
    if (::fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode)) {
      ::close(descriptor);
      throw Error(ErrorCode::data_invalid, path.string() + " is not a regular file");
    }
    size_ = static_cast<std::size_t>(status.st_size);
    if (size_ > 0) data_ = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, descriptor, 0);
    const int reason = errno;
    ::close(descriptor);
    if (data_ == MAP_FAILED) {
      throw Error(ErrorCode::file_io, "map " + path.string() + ": " + std::strerror(reason));
    }
  }
  MappedFile(MappedFile&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  MappedFile& operator=(MappedFile&&) = delete;
  ~MappedFile() {
    if (data_ != nullptr && data_ != MAP_FAILED) ::munmap(data_, size_);
  }

  ByteView bytes() const { return {static_cast<const std::uint8_t*>(data_), size_}; }

 private:
  void* data_ = nullptr;
  std::size_t size_ = 0;
};

std::string text_of(ByteView bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::uint64_t windows_of(const TokenFile& file, std::uint32_t context) {
  YUMOE_ASSERT(context > 0);
  return file.tokens == 0 ? 0 : (file.tokens - 1) / context;
}

}  // namespace

struct TokenSet::Mapped {
  std::filesystem::path folder;
  TokenManifest manifest;
  Digest digest;
  std::vector<std::string> names;
  std::vector<std::array<MappedFile, kSplits.size()>> files;  // by domain and split

  const TokenFile& file(std::uint32_t domain, Split split) const {
    YUMOE_ASSERT(domain < manifest.domains.size());
    return manifest.domains[domain].file(split);
  }
};

TokenSet::TokenSet(std::unique_ptr<Mapped> mapped) : mapped_(std::move(mapped)) {}
TokenSet::TokenSet(TokenSet&&) noexcept = default;
TokenSet& TokenSet::operator=(TokenSet&&) noexcept = default;
TokenSet::~TokenSet() = default;

TokenSet TokenSet::open(const std::filesystem::path& folder) {
  auto mapped = std::make_unique<Mapped>();
  mapped->folder = folder;
  const MappedFile manifest(folder / "manifest.json");
  if (manifest.bytes().size() > kManifestBytesMax) {
    throw Error(ErrorCode::data_invalid, (folder / "manifest.json").string() + " is too large");
  }
  mapped->manifest = parse_manifest(text_of(manifest.bytes()), (folder / "manifest.json").string());
  mapped->digest = digest_of(manifest.bytes());

  for (const TokenDomain& domain : mapped->manifest.domains) {
    mapped->names.push_back(domain.name);
    const auto map_split = [&](Split split) {
      MappedFile file(folder / file_of(domain, split));
      if (file.bytes().size() != 2 * domain.file(split).tokens) {
        throw Error(ErrorCode::data_invalid, (folder / file_of(domain, split)).string() + " has " +
                                                 std::to_string(file.bytes().size()) +
                                                 " bytes where the manifest says " +
                                                 std::to_string(2 * domain.file(split).tokens) +
                                                 "; build the set again with `yumoe data build`");
      }
      return file;
    };
    mapped->files.push_back(
        {map_split(Split::train), map_split(Split::heldout), map_split(Split::validation_private)});
  }
  return TokenSet(std::move(mapped));
}

void TokenSet::verify() const {
  const auto check = [this](const std::string& name, ByteView bytes, const Digest& expected) {
    if (digest_of(bytes) == expected) return;
    throw Error(ErrorCode::digest_mismatch, (folder() / name).string() +
                                                " was changed after it was built; build the set "
                                                "again with `yumoe data build`");
  };
  const MappedFile tokenizer(folder() / "tokenizer.model");
  if (tokenizer.bytes().size() > kTokenizerBytesMax) {
    throw Error(ErrorCode::data_invalid, (folder() / "tokenizer.model").string() + " is too large");
  }
  check("tokenizer.model", tokenizer.bytes(), mapped_->manifest.tokenizer);
  for (std::size_t i = 0; i < mapped_->files.size(); ++i) {
    const TokenDomain& domain = mapped_->manifest.domains[i];
    for (const Split split : kSplits) {
      check(file_of(domain, split), mapped_->files[i][static_cast<std::size_t>(split)].bytes(),
            domain.file(split).digest);
    }
  }
}

const std::filesystem::path& TokenSet::folder() const { return mapped_->folder; }
const Digest& TokenSet::digest() const { return mapped_->digest; }
const TokenManifest& TokenSet::manifest() const { return mapped_->manifest; }
std::uint32_t TokenSet::vocabulary() const { return mapped_->manifest.vocabulary; }
std::span<const std::string> TokenSet::domains() const { return mapped_->names; }

std::uint64_t TokenSet::windows(std::uint32_t domain, Split split, std::uint32_t context) const {
  return windows_of(mapped_->file(domain, split), context);
}

std::uint64_t TokenSet::windows(Split split, std::uint32_t context) const {
  std::uint64_t sum = 0;
  for (const TokenDomain& domain : mapped_->manifest.domains) {
    sum += windows_of(domain.file(split), context);
  }
  return sum;
}

double TokenSet::bytes_per_token(Split split) const {
  std::uint64_t bytes = 0;
  std::uint64_t tokens = 0;
  for (const TokenDomain& domain : mapped_->manifest.domains) {
    bytes += domain.file(split).text_bytes;
    tokens += domain.file(split).tokens;
  }
  return tokens == 0 ? 0 : static_cast<double>(bytes) / static_cast<double>(tokens);
}

double TokenSet::bytes_per_token(std::uint32_t domain, Split split) const {
  const TokenFile& file = mapped_->file(domain, split);
  return file.tokens == 0 ? 0
                          : static_cast<double>(file.text_bytes) / static_cast<double>(file.tokens);
}

void TokenSet::copy(const Window& window, Split split, std::uint32_t context,
                    std::span<std::uint16_t> tokens) const {
  YUMOE_ASSERT(tokens.size() == std::size_t{context} + 1);
  YUMOE_ASSERT(window.index < windows(window.domain, split, context));
  const ByteView bytes = mapped_->files[window.domain][static_cast<std::size_t>(split)].bytes();
  std::memcpy(tokens.data(), bytes.data() + 2 * window.index * context, tokens.size_bytes());
  const std::uint16_t highest = *std::max_element(tokens.begin(), tokens.end());
  if (highest >= vocabulary()) {
    const TokenDomain& domain = mapped_->manifest.domains[window.domain];
    throw Error(ErrorCode::data_invalid, (folder() / file_of(domain, split)).string() +
                                             " holds token " + std::to_string(highest) +
                                             " in window " + std::to_string(window.index) +
                                             ", vocabulary is " + std::to_string(vocabulary()) +
                                             "; build the set again with `yumoe data build`");
  }
}

Window TokenSet::at(std::uint64_t position, std::uint64_t order_seed, Split split,
                    std::uint32_t context) const {
  const std::uint64_t count = windows(split, context);
  if (count == 0) {
    throw Error(ErrorCode::data_invalid, folder().string() + " holds no window of " +
                                             std::to_string(context) + " tokens in its split '" +
                                             std::string(name_of(split)) +
                                             "'; add text or lower model.context");
  }
  const std::uint64_t pass = position / count;
  std::uint64_t index =
      permuted(position % count, count, derive_seed("window order", {order_seed, pass}));
  std::uint32_t domain = 0;
  while (index >= windows(domain, split, context)) {
    index -= windows(domain, split, context);
    ++domain;
  }
  return {domain, index};
}

}  // namespace yumoe
