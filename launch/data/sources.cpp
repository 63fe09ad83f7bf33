#include "data/sources.hpp"

#include <zlib.h>

#include <algorithm>
#include <fstream>
#include <memory>

#include "cluster/error.hpp"
#include "launch/data.hpp"
#include "router/token_manifest.hpp"

namespace yumoe {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kPlainDocumentBytesMin = 2'048;
constexpr std::size_t kPackageFileBytesMax = 512u << 20;
constexpr std::size_t kPieceBytes = 1u << 20;

// A domain name from any file name: lower case, everything else becomes '-'.
std::string domain_name(std::string name) {
  for (char& c : name) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    if (!is_domain_name({&c, 1})) c = '-';
  }
  return name.substr(0, 64);
}

std::vector<TextFile>& files_of(std::vector<TextDomain>& domains, const std::string& name) {
  for (TextDomain& domain : domains) {
    if (domain.name == name) return domain.files;
  }
  domains.push_back({name, {}});
  return domains.back().files;
}

// What dpkg installed for a package; empty if it is not installed.
std::vector<fs::path> installed_files(const fs::path& root, const std::string& package) {
  std::vector<fs::path> files;
  std::ifstream list(root / "var/lib/dpkg/info" / (package + ".list"));
  for (std::string line; std::getline(list, line);) {
    if (line.size() > 1) files.push_back(root / line.substr(1));
  }
  std::sort(files.begin(), files.end());
  return files;
}

bool is_text_of_package(const fs::path& path, TextFormat& format) {
  const std::string text = path.generic_string();
  std::error_code error;
  if (fs::symlink_status(path, error).type() != fs::file_type::regular) return false;
  if (text.find("/usr/share/dictd/") != std::string::npos) {
    format = TextFormat::dictionary;
    return text.ends_with(".dict.dz");
  }
  format = TextFormat::fortunes;
  // fortunes/off/ is offensive on purpose and rotated by 13 letters.
  return text.find("/usr/share/games/fortunes/") != std::string::npos &&
         text.find("/off/") == std::string::npos && path.extension() != ".dat" &&
         path.extension() != ".u8";
}

void add_package(std::vector<TextDomain>& domains, const fs::path& root, const std::string& package,
                 const std::string& name) {
  std::vector<TextFile>& files = files_of(domains, name);
  const std::size_t before = files.size();
  for (const fs::path& path : installed_files(root, package)) {
    TextFormat format;
    if (is_text_of_package(path, format)) files.push_back({path, format});
  }
  if (files.size() == before) {
    throw Error(ErrorCode::data_invalid,
                "source apt:" + package + " has neither fortunes nor a dictionary");
  }
}

void check_installed(const fs::path& root, const std::vector<std::string>& packages) {
  std::string missing;
  for (const std::string& package : packages) {
    if (!fs::exists(root / "var/lib/dpkg/info" / (package + ".list"))) missing += " " + package;
  }
  if (missing.empty()) return;
  throw Error(ErrorCode::file_missing,
              "packages with training text are not installed: run "
              "`launch/setup` or `apt-get install" +
                  missing + "`, or give a folder of your own as source");
}

bool is_hidden(const fs::path& path) { return path.filename().string().starts_with('.'); }

void add_folder(std::vector<TextDomain>& domains, const fs::path& folder) {
  std::error_code error;
  if (!fs::is_directory(folder, error)) {
    throw Error(ErrorCode::file_missing, "source " + folder.string() +
                                             " is not a folder; a source "
                                             "is `apt`, `apt:PACKAGE` or a folder of text files");
  }
  std::vector<std::pair<fs::path, std::string>> found;
  fs::recursive_directory_iterator it(folder, error);
  for (; !error && it != fs::recursive_directory_iterator(); it.increment(error)) {
    if (is_hidden(it->path())) {
      it.disable_recursion_pending();
      continue;
    }
    if (it->symlink_status().type() != fs::file_type::regular) continue;
    const fs::path inside = it->path().lexically_relative(folder);
    const bool direct = it.depth() == 0;
    found.emplace_back(it->path(),
                       domain_name((direct ? inside.stem() : *inside.begin()).string()));
  }
  if (error) {
    throw Error(ErrorCode::file_io, "list source " + folder.string() + ": " + error.message());
  }
  if (found.empty()) {
    throw Error(ErrorCode::data_invalid, "source " + folder.string() + " holds no files");
  }
  std::sort(found.begin(), found.end());
  for (const auto& [path, name] : found) {
    files_of(domains, name).push_back({path, TextFormat::plain});
  }
}

[[noreturn]] void refuse_encoding(const fs::path& path, std::uint64_t offset) {
  throw Error(ErrorCode::data_invalid,
              path.string() + " is not UTF-8 at byte " + std::to_string(offset) +
                  "; convert it (iconv -f LATIN1 -t UTF-8) or take it out of the source");
}

void check_utf8(const fs::path& path, std::string_view text) {
  Utf8Checker checker;
  if (!checker.feed(text) || !checker.complete()) refuse_encoding(path, checker.bad_offset());
}

// Reads a whole file, packed by gzip or not.
std::string read_packed(const fs::path& path) {
  const std::unique_ptr<gzFile_s, int (*)(gzFile)> file(::gzopen(path.c_str(), "rb"), ::gzclose);
  if (!file) throw Error(ErrorCode::file_io, "open " + path.string());
  std::string text;
  std::string piece(kPieceBytes, '\0');
  while (true) {
    const int read = ::gzread(file.get(), piece.data(), static_cast<unsigned>(piece.size()));
    if (read < 0) throw Error(ErrorCode::data_invalid, "unpack " + path.string());
    if (read == 0) break;
    text.append(piece, 0, static_cast<std::size_t>(read));
    if (text.size() > kPackageFileBytesMax) {
      throw Error(ErrorCode::data_invalid, path.string() + " is larger than 512 MiB");
    }
  }
  return text;
}

void read_plain(const fs::path& path, const DocumentSink& sink) {
  std::ifstream in(path, std::ios::binary);
  Utf8Checker checker;
  DocumentCutter cutter(kPlainDocumentBytesMin, sink);
  std::string piece(kPieceBytes, '\0');
  while (in) {
    in.read(piece.data(), static_cast<std::streamsize>(piece.size()));
    const std::string_view read(piece.data(), static_cast<std::size_t>(in.gcount()));
    if (!checker.feed(read)) refuse_encoding(path, checker.bad_offset());
    cutter.add(read);
  }
  if (!in.eof()) throw Error(ErrorCode::file_io, "read " + path.string());
  if (!checker.complete()) refuse_encoding(path, checker.bad_offset());
  cutter.end_document();
}

void read_fortunes(const fs::path& path, const DocumentSink& sink) {
  const std::string text = read_packed(path);
  check_utf8(path, text);
  DocumentCutter cutter(kDocumentBytesMax, sink);
  for (const std::string_view record : fortune_records(text)) {
    cutter.add(record);
    cutter.end_document();
  }
}

void read_dictionary(const fs::path& path, const DocumentSink& sink) {
  const std::string text = read_packed(path);
  check_utf8(path, text);
  fs::path index_path = path;  // NAME.dict.dz -> NAME.index
  index_path.replace_extension().replace_extension(".index");
  const auto entries = dictionary_entries(read_packed(index_path), text.size());
  if (!entries) throw Error(ErrorCode::data_invalid, index_path.string() + " is no dictd index");
  DocumentCutter cutter(kDocumentBytesMax, sink);
  for (const TextRange& entry : *entries) {
    cutter.add(std::string_view(text).substr(entry.offset, entry.bytes));
    cutter.end_document();
  }
}

}  // namespace

std::vector<DefaultPackage> default_packages() {
  return {{"fortunes", "english"},    {"fortunes-de", "german"},    {"fortunes-ru", "russian"},
          {"fortunes-it", "italian"}, {"fortunes-es", "spanish"},   {"fortunes-cs", "czech"},
          {"fortunes-pl", "polish"},  {"dict-foldoc", "computing"}, {"dict-jargon", "hacker"},
          {"dict-devil", "literary"}, {"dict-vera", "acronyms"}};
}

std::vector<TextDomain> find_text(std::span<const std::string> sources, const fs::path& root) {
  std::vector<TextDomain> domains;
  const auto domain_of = [](const std::string& package) {
    for (const DefaultPackage& known : default_packages()) {
      if (known.package == package) return std::string(known.domain);
    }
    return domain_name(package);
  };
  const auto add_packages = [&](const std::vector<std::string>& wanted) {
    check_installed(root, wanted);
    for (const std::string& package : wanted) {
      add_package(domains, root, package, domain_of(package));
    }
  };
  for (const std::string& source : sources) {
    if (source == "apt") {
      std::vector<std::string> wanted;
      for (const DefaultPackage& known : default_packages()) wanted.emplace_back(known.package);
      add_packages(wanted);
    } else if (source.starts_with("apt:")) {
      const std::string package = source.substr(4);
      if (package.empty() || package.find('/') != std::string::npos) {
        throw Error(ErrorCode::data_invalid, "source " + source + " names no Debian package");
      }
      add_packages({package});
    } else {
      add_folder(domains, source);
    }
  }
  if (domains.empty()) throw Error(ErrorCode::data_invalid, "no sources are given");
  return domains;
}

void read_documents(const TextDomain& domain, const DocumentSink& sink) {
  for (const TextFile& file : domain.files) {
    switch (file.format) {
      case TextFormat::plain: read_plain(file.path, sink); break;
      case TextFormat::fortunes: read_fortunes(file.path, sink); break;
      case TextFormat::dictionary: read_dictionary(file.path, sink); break;
    }
  }
}

}  // namespace yumoe
