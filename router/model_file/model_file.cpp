#include "router/model_file.hpp"

#include <cstring>
#include <fstream>
#include <iterator>

#include "cluster/error.hpp"

namespace yumoe {
namespace {

constexpr char kMagic[8] = {'y', 'u', 'm', 'o', 'd', 'e', 'l', '1'};
constexpr std::size_t kHeader = sizeof kMagic + sizeof(std::uint64_t);

}  // namespace

void write_model_file(const std::filesystem::path& path, const ModelFile& file) {
  const Bytes facts = encode(ToParticipant{file.facts});
  Bytes bytes(kHeader);
  const std::uint64_t size = facts.size();
  std::memcpy(bytes.data(), kMagic, sizeof kMagic);
  std::memcpy(bytes.data() + sizeof kMagic, &size, sizeof size);
  bytes.insert(bytes.end(), facts.begin(), facts.end());
  bytes.insert(bytes.end(), file.base.begin(), file.base.end());
  const Digest digest = digest_of(bytes);
  bytes.insert(bytes.end(), digest.bytes.begin(), digest.bytes.end());
  const std::filesystem::path beside = path.string() + ".part";
  std::ofstream out(beside, std::ios::binary);
  out.write(reinterpret_cast<const char*>(bytes.data()),
            static_cast<std::streamsize>(bytes.size()));
  out.close();
  std::error_code failed;
  if (out) std::filesystem::rename(beside, path, failed);
  if (!out || failed) throw Error(ErrorCode::file_io, "write " + path.string());
}

bool is_model_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  char magic[sizeof kMagic] = {};
  in.read(magic, sizeof magic);
  return in && std::memcmp(magic, kMagic, sizeof magic) == 0;
}

ModelFile read_model_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw Error(ErrorCode::file_missing, path.string());
  const Bytes bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  const auto corrupt = [&](const std::string& why) {
    return Error(ErrorCode::checkpoint_corrupt, path.string() + ": " + why);
  };
  const std::size_t tail = sizeof(Digest::bytes);
  if (bytes.size() < kHeader + tail || std::memcmp(bytes.data(), kMagic, sizeof kMagic) != 0) {
    throw corrupt("no model file; `yumoe export RUN --model -o FILE` writes one");
  }
  const std::size_t end = bytes.size() - tail;
  if (std::memcmp(digest_of(ByteView(bytes).first(end)).bytes.data(), bytes.data() + end, tail) !=
      0) {
    throw corrupt("damaged: its digest is another; copy it again");
  }
  std::uint64_t size = 0;
  std::memcpy(&size, bytes.data() + sizeof kMagic, sizeof size);
  if (size > end - kHeader) throw corrupt("its configuration is longer than the file");
  ToParticipant message = decode_to_participant(ByteView(bytes).subspan(kHeader, size));
  if (!std::holds_alternative<Welcome>(message)) throw corrupt("it holds another message");
  ModelFile file;
  file.facts = std::get<Welcome>(std::move(message));
  file.base.assign(bytes.begin() + static_cast<std::ptrdiff_t>(kHeader + size),
                   bytes.begin() + static_cast<std::ptrdiff_t>(end));
  return file;
}

}  // namespace yumoe
