#include "cluster/error.hpp"
#include "cluster/wallet.hpp"
#include "launch/local.hpp"

namespace yumoe {
namespace {

constexpr std::filesystem::perms kOwnerOnly = std::filesystem::perms::owner_all;

std::filesystem::path keys_folder(const std::filesystem::path& folder) {
  const std::filesystem::path keys = folder / "keys";
  std::error_code failed;
  std::filesystem::create_directories(keys, failed);
  if (failed) {
    throw Error(ErrorCode::file_io, "make " + keys.string() + ": " + failed.message() +
                                        "; choose a folder that can be written with --out");
  }
  std::filesystem::permissions(keys, kOwnerOnly);
  return keys;
}

}  // namespace

CurveKeypair run_curve_keys(const std::filesystem::path& folder) {
  return CurveKeypair::kept_in(keys_folder(folder) / "curve");
}

Keypair open_hotkey(const std::string& source, const std::filesystem::path& folder,
                    const std::string& name) {
  if (source.starts_with("//")) return Keypair::from_uri(KeyType::sr25519, source);
  const PasswordSource password =
      first_password_of(password_from_environment(), password_from_prompt());
  if (!source.empty()) return read_key(source, password).take_pair();
  const std::filesystem::path file = keys_folder(folder) / name;
  if (!std::filesystem::exists(file)) {
    write_key(file, file.string() + "pub.txt", Key::generate(KeyType::sr25519), std::nullopt);
  }
  return read_key(file, password).take_pair();
}

}  // namespace yumoe
