#include <algorithm>
#include <array>
#include <atomic>
#include <memory>
#include <thread>
#include <unordered_set>

#include "cluster/error.hpp"
#include "data/durable_files.hpp"
#include "data/sources.hpp"
#include "data/tokenizer_trainer.hpp"
#include "launch/data.hpp"
#include "router/tokenizer.hpp"

namespace yumoe {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kBatchBytes = 4u << 20;

// The first bytes of a document's digest: which split it falls into, whether it was seen before,
// whether it is sampled.
std::uint64_t hash_of(std::string_view document) {
  const Digest digest = digest_of(as_bytes(document));
  std::uint64_t hash = 0;
  for (int i = 0; i < 8; ++i)
    hash |= std::uint64_t{digest.bytes[static_cast<std::size_t>(i)]} << 8 * i;
  return hash;
}

Split split_of(std::uint64_t hash, const DataOptions& options) {
  const auto percent = static_cast<std::int64_t>(hash % 100);
  if (percent < options.heldout_percent) return Split::heldout;
  if (percent < options.heldout_percent + options.private_percent) return Split::validation_private;
  return Split::train;
}

// Calls `sink(hash, document)` for each document that was not seen in this pass.
class DistinctDocuments {
 public:
  template <typename Sink>
  void read(const TextDomain& domain, const Sink& sink) {
    read_documents(domain, [&](std::string_view document) {
      const std::uint64_t hash = hash_of(document);
      if (seen_.insert(hash).second) sink(hash, document);
    });
  }

 private:
  std::unordered_set<std::uint64_t> seen_;
};

std::string megabytes(std::uint64_t bytes) {
  const std::uint64_t tenths = (bytes + 50'000) / 100'000;
  return std::to_string(tenths / 10) + "." + std::to_string(tenths % 10) + " MB";
}

// First pass: what there is, and a sample of it. Domains without a document are dropped.
TextSample sample_text(std::vector<TextDomain>& domains, const DataOptions& options,
                       const DataProgress& progress) {
  TextSample sample((static_cast<std::uint64_t>(options.sample_mib) << 20) / domains.size());
  DistinctDocuments distinct;
  std::vector<TextDomain> filled;
  for (TextDomain& domain : domains) {
    sample.start_domain();
    std::uint64_t documents = 0;
    std::uint64_t bytes = 0;
    distinct.read(domain, [&](std::uint64_t hash, std::string_view document) {
      ++documents;
      bytes += document.size();
      if (split_of(hash, options) == Split::train) sample.offer(hash, document);
    });
    progress("read " + domain.name + ": " + std::to_string(documents) + " documents, " +
             megabytes(bytes));
    if (documents > 0) filled.push_back(std::move(domain));
  }
  domains = std::move(filled);
  return sample;
}

// Second pass over one domain: encodes batches of documents on all cores and writes them in order.
class DomainWriter {
 public:
  DomainWriter(const fs::path& folder, std::string name, const Tokenizer& tokenizer)
      : tokenizer_(tokenizer) {
    domain_.name = std::move(name);
    for (const Split split : kSplits) {
      writers_[static_cast<std::size_t>(split)] =
          std::make_unique<FileWriter>(folder / file_of(domain_, split));
    }
  }

  void add(Split split, std::string_view document) {
    batch_.emplace_back(split, document);
    batch_bytes_ += document.size();
    if (batch_bytes_ >= kBatchBytes) write_batch();
  }

  TokenDomain finish() {
    write_batch();
    for (std::size_t i = 0; i < kSplits.size(); ++i) {
      domain_.files[i].digest = writers_[i]->finish();
    }
    return domain_;
  }

 private:
  void write_batch() {
    const std::vector<std::vector<std::uint16_t>> encoded = encode_batch();
    for (std::size_t i = 0; i < batch_.size(); ++i) {
      const auto split = static_cast<std::size_t>(batch_[i].first);
      TokenFile& file = domain_.files[split];
      file.documents += 1;
      file.tokens += encoded[i].size();
      file.text_bytes += batch_[i].second.size();
      writers_[split]->write(as_bytes(std::span<const std::uint16_t>(encoded[i])));
    }
    batch_.clear();
    batch_bytes_ = 0;
  }

  std::vector<std::vector<std::uint16_t>> encode_batch() const {
    std::vector<std::vector<std::uint16_t>> encoded(batch_.size());
    std::atomic<std::size_t> next = 0;
    std::vector<std::exception_ptr> failures(std::max(1u, std::thread::hardware_concurrency()));
    const auto work = [&](std::exception_ptr& failure) {
      try {
        for (std::size_t i = next++; i < batch_.size(); i = next++) {
          encoded[i] = tokenizer_.encode(batch_[i].second);
          encoded[i].push_back(tokenizer_.end_token());
        }
      } catch (...) {
        failure = std::current_exception();  // thrown again below, by the thread that waits
      }
    };
    {
      std::vector<std::jthread> threads;
      for (std::exception_ptr& failure : failures) threads.emplace_back(work, std::ref(failure));
    }
    for (const std::exception_ptr& failure : failures) {
      if (failure) std::rethrow_exception(failure);
    }
    return encoded;
  }

  const Tokenizer& tokenizer_;
  TokenDomain domain_;
  std::array<std::unique_ptr<FileWriter>, kSplits.size()> writers_;
  std::vector<std::pair<Split, std::string>> batch_;
  std::size_t batch_bytes_ = 0;
};

void check_splits(const TokenManifest& manifest, const DataOptions& options) {
  const std::array<std::int64_t, kSplits.size()> percents = {1, options.heldout_percent,
                                                             options.private_percent};
  for (const Split split : kSplits) {
    std::uint64_t documents = 0;
    std::uint64_t all = 0;
    for (const TokenDomain& domain : manifest.domains) {
      documents += domain.file(split).documents;
      for (const Split any : kSplits) all += domain.file(any).documents;
    }
    if (documents > 0 || percents[static_cast<std::size_t>(split)] == 0) continue;
    throw Error(ErrorCode::data_invalid,
                "of " + std::to_string(all) + " documents none fell into the split '" +
                    std::string(name_of(split)) +
                    "'; add text, or change data.heldout_percent and data.private_percent");
  }
}

Digest write_file(const fs::path& path, std::string_view bytes) {
  FileWriter writer(path);
  writer.write(as_bytes(bytes));
  return writer.finish();
}

// Builds into `folder`, which exists and is empty.
void build_into(const fs::path& folder, const DataOptions& options, const DataProgress& progress) {
  std::vector<TextDomain> domains = find_text(options.sources);
  const TextSample sample = sample_text(domains, options, progress);
  const std::vector<std::string_view> documents = sample.documents();
  if (documents.empty()) throw Error(ErrorCode::data_invalid, "the sources hold no text");

  std::uint64_t sampled = 0;
  for (const std::string_view document : documents) sampled += document.size();
  progress("train a tokenizer of " + std::to_string(options.vocabulary) + " tokens on " +
           megabytes(sampled));
  const std::string model =
      train_tokenizer(documents, static_cast<std::uint32_t>(options.vocabulary));
  const Tokenizer tokenizer = Tokenizer::from_bytes(model);

  TokenManifest manifest;
  manifest.vocabulary = tokenizer.vocabulary();
  manifest.end_token = tokenizer.end_token();
  manifest.tokenizer = write_file(folder / "tokenizer.model", model);
  DistinctDocuments distinct;
  for (const TextDomain& domain : domains) {
    progress("encode " + domain.name);
    DomainWriter writer(folder, domain.name, tokenizer);
    distinct.read(domain, [&](std::uint64_t hash, std::string_view document) {
      writer.add(split_of(hash, options), document);
    });
    manifest.domains.push_back(writer.finish());
  }
  check_splits(manifest, options);
  const std::string json = json_of(manifest);
  YUMOE_ASSERT(parse_manifest(json) == manifest);
  write_file(folder / "manifest.json", json);
}

bool is_token_set(const fs::path& path) { return fs::exists(path / "manifest.json"); }

[[noreturn]] void refuse_taken(const fs::path& path) {
  throw Error(ErrorCode::usage,
              path.string() + (is_token_set(path) ? " is a token set already; give --replace to "
                                                    "build it again"
                                                  : " exists and is no token set; name another "
                                                    "folder"));
}

}  // namespace

void build_token_set(const DataOptions& options, bool replace, const DataProgress& progress) {
  const fs::path path = options.path;
  if (path.empty()) throw Error(ErrorCode::usage, "name a folder for the token set (data.path)");
  if (fs::exists(path) && !(replace && is_token_set(path))) refuse_taken(path);
  FolderBuild build(path);
  build_into(build.folder(), options, progress);
  if (!build.publish(replace)) refuse_taken(path);
}

TokenSet build_default(const DataOptions& options, const DataProgress& progress) {
  const fs::path path = options.path;
  if (!fs::exists(path)) {
    FolderBuild build(path);
    progress("no token set at " + path.string() + ": building it");
    build_into(build.folder(), options, progress);
    if (!build.publish(/*replace=*/false)) progress("another process built it meanwhile");
  }
  return TokenSet::open(path);
}

}  // namespace yumoe
