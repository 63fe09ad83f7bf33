#include <fcntl.h>
#include <sodium.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "cluster/error.hpp"
#include "cluster/transport.hpp"

namespace yumoe {
namespace {

std::optional<CurveKey> key_from(const std::string& hex) {
  CurveKey key;
  try {
    const Bytes bytes = from_hex(hex);
    if (bytes.size() != key.size()) return std::nullopt;
    std::copy(bytes.begin(), bytes.end(), key.begin());
    return key;
  } catch (const Error&) {
    return std::nullopt;
  }
}

}  // namespace

CurveKeypair CurveKeypair::generate() {
  CurveKey secret;
  randombytes_buf(secret.data(), secret.size());
  return from_secret(secret);
}

CurveKeypair CurveKeypair::from_secret(const CurveKey& secret) {
  CurveKeypair keys;
  keys.secret_key = secret;
  crypto_scalarmult_base(keys.public_key.data(), keys.secret_key.data());
  return keys;
}

CurveKeypair CurveKeypair::kept_in(const std::filesystem::path& file) {
  if (std::ifstream in(file); in) {
    std::string hex;
    in >> hex;
    if (const auto key = key_from(hex)) return from_secret(*key);
    throw Error(ErrorCode::key_invalid,
                file.string() + ": not 64 hex digits; remove it to make a new one");
  }
  const CurveKeypair keys = generate();
  const int descriptor = open(file.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  const std::string hex = to_hex(keys.secret_key) + "\n";
  const bool written =
      descriptor >= 0 &&
      write(descriptor, hex.data(), hex.size()) == static_cast<ssize_t>(hex.size()) &&
      fsync(descriptor) == 0;
  const int reason = errno;
  if (descriptor >= 0) close(descriptor);
  if (!written)
    throw Error(ErrorCode::file_io, "write " + file.string() + ": " + std::strerror(reason));
  return keys;
}

}  // namespace yumoe
