#pragma once
#include <filesystem>
#include <string>

#include "cluster/identity.hpp"

namespace yumoe {

PublicKey public_key_of(ByteView contents, const std::filesystem::path& name);
std::string public_json(const PublicKey& key);  // a pub file's contents

}  // namespace yumoe
