#include "cluster/wallet.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "cluster/error.hpp"

namespace yumoe {
namespace {

namespace fs = std::filesystem;

const fs::path kData = fs::path(YUMOE_SOURCE_DIR) / "tests/conformance/data/wallets";

PasswordSource given(std::string password) {
  return [password](const fs::path&) { return std::optional(LockedBytes(as_bytes(password))); };
}
const PasswordSource kNone;

ErrorCode code_of(auto&& act, std::string* message = nullptr) {
  try {
    act();
  } catch (const Error& error) {
    if (message != nullptr) *message = error.what();
    return error.code();
  }
  ADD_FAILURE() << "nothing was thrown";
  return ErrorCode::usage;
}

class WalletTest : public testing::Test {
 protected:
  WalletTest() {
    std::string pattern = fs::temp_directory_path() / "yumoe-wallet-XXXXXX";
    folder_ = mkdtemp(pattern.data());
  }
  ~WalletTest() override { fs::remove_all(folder_); }

  fs::path put(const std::string& name, std::string_view text) {
    std::ofstream(folder_ / name, std::ios::binary) << text;
    return folder_ / name;
  }

  fs::path folder_;
};

TEST_F(WalletTest, ReadsPlainKeysOfBothRealWriters) {
  for (const char* writer : {"bittensor-11.3.0", "bittensor-wallet-4.1.1"}) {
    const Wallet wallet{kData / writer, "throwaway"};
    for (const char* hotkey : {"hot_plain", "hot_seed"}) {
      SCOPED_TRACE(std::string(writer) + "/" + hotkey);
      const Key key = read_key(wallet.hotkey(hotkey), kNone);
      EXPECT_EQ(key.public_key(), read_public_key(wallet.hotkey_public(hotkey)));
      EXPECT_TRUE(verify(key.public_key(), as_bytes("x"), key.pair().sign(as_bytes("x"))));
    }
  }
  const Wallet wallet{kData / "bittensor-11.3.0", "throwaway"};
  EXPECT_EQ(read_key(wallet.hotkey("hot_ed25519"), kNone).public_key().type, KeyType::ed25519);
  EXPECT_EQ(to_ss58(read_key(wallet.hotkey("hot_uri_alice"), kNone).public_key()),
            "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY");
}

TEST_F(WalletTest, OpensTheOldAnsibleVaultAndRefusesAWrongPassword) {
  const fs::path file = kData / "legacy/hot_ansible_vault";
  const Key key = read_key(file, given("old pass"));
  EXPECT_EQ(to_ss58(key.public_key()), "5DtDLm5rQHShDqojQpsvcN8tRXHVFaecfDoRet1SU6BFD9Fi");
  EXPECT_EQ(code_of([&] { read_key(file, given("old pas")); }), ErrorCode::password_wrong);
  EXPECT_EQ(code_of([&] { read_key(file, kNone); }), ErrorCode::password_wrong);
}

TEST_F(WalletTest, WritesWhatItReadsWithNarrowPermissions) {
  const Wallet wallet{folder_ / "wallets", "mine"};
  const Key key = Key::generate(KeyType::sr25519, 24);
  write_hotkey(wallet, "default", key);
  const Key back = read_key(wallet.hotkey("default"), kNone);
  EXPECT_EQ(back.public_key(), key.public_key());
  EXPECT_EQ(back.mnemonic().text(), key.mnemonic().text());
  EXPECT_EQ(read_public_key(wallet.hotkey_public("default")), key.public_key());
  struct stat status;
  ASSERT_EQ(stat(wallet.hotkey("default").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
  ASSERT_EQ(stat(wallet.hotkey("default").parent_path().c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0700u);
  EXPECT_FALSE(fs::exists(wallet.hotkey("default").string() + ".tmp"));
  EXPECT_EQ(code_of([&] { write_hotkey(wallet, "default", key); }), ErrorCode::file_io);
}

TEST_F(WalletTest, KeepsAColdkeyInThePlainOnlyIfTheCallerInsists) {
  const Wallet wallet{folder_, "w"};
  const Key key = Key::from_uri(KeyType::sr25519, "//Alice");
  EXPECT_EQ(code_of([&] { write_coldkey(wallet, key, std::nullopt); }), ErrorCode::key_invalid);
  write_coldkey(wallet, key, std::nullopt, false, true);
  EXPECT_EQ(read_key(wallet.coldkey(), kNone).public_key(), key.public_key());
}

TEST_F(WalletTest, ReadsBareSeedsPrivateKeysAndPhrases) {
  const std::string seed(64, '1');
  const PublicKey expected = Keypair::from_seed(KeyType::sr25519, Bytes(32, 0x11)).public_key();
  EXPECT_EQ(read_key(put("a", seed), kNone).public_key(), expected);
  EXPECT_EQ(read_key(put("b", "0x" + seed + "\n"), kNone).public_key(), expected);
  EXPECT_EQ(
      read_key(put("c",
                   "704b72419b89bab3a4632685428901bf5715b44e40ec0df50f01fdc1553bf60b092539815e"
                   "61663c7f9c4c9c377346f5d2936875bd760f0ac5c5f4f6e78a6d76"),
               kNone)
          .public_key(),
      expected);
  EXPECT_EQ(to_ss58(read_key(put("d",
                                 "bottom drive obey lake curtain smoke basket hold race lonely fit "
                                 "walk"),
                             kNone)
                        .public_key()),
            "5DfhGyQdFobKM8NsWvEeAKk5EQQgYe9AydgJ7rMB6E1EqRzV");
}

TEST_F(WalletTest, FollowsTheQuirksOfOldFiles) {
  const std::string address = "5DtDLm5rQHShDqojQpsvcN8tRXHVFaecfDoRet1SU6BFD9Fi";
  const std::string seed = "0x" + std::string(64, '1');
  // The address's name with a space, the type as text, the type missing, the wrong type.
  for (const std::string& text :
       {"{\" ss58Address\":\"" + address + "\",\"secretSeed\":\"" + seed + "\"}",
        "{\"ss58Address\":\"" + address + "\",\"cryptoType\":\"1\",\"secretSeed\":\"" + seed +
            "\"}",
        "{\"ss58Address\":\"" + address + "\",\"cryptoType\":0,\"secretSeed\":\"" + seed + "\"}",
        "{\"ss58Address\":\"" + address + "\",\"secretPhrase\":null,\"meta\":{\"a\":[1,\"}\"]}," +
            "\"secretSeed\":\"" + seed + "\"}"}) {
    EXPECT_EQ(to_ss58(read_key(put("quirk", text), kNone).public_key()), address) << text;
  }
}

TEST_F(WalletTest, SaysWhichFileIsWrongAndWhatToDo) {
  std::string message;
  EXPECT_EQ(code_of([&] { read_key(folder_ / "none", kNone); }, &message), ErrorCode::file_missing);
  EXPECT_NE(message.find((folder_ / "none").string()), message.npos) << message;
  EXPECT_EQ(code_of([&] { read_key(put("pjs", "{\"encoded\":\"x\",\"encoding\":{}}"), kNone); },
                    &message),
            ErrorCode::key_invalid);
  EXPECT_NE(message.find("polkadot-js"), message.npos) << message;
  EXPECT_EQ(code_of([&] { read_key(kData / "bittensor-11.3.0/throwaway/coldkeypub.txt", kNone); },
                    &message),
            ErrorCode::key_invalid);
  EXPECT_NE(message.find("pub file"), message.npos) << message;
  // A key that belongs to another address must not be used for it.
  EXPECT_EQ(code_of(
                [&] {
                  read_key(
                      put("mixed",
                          "{\"ss58Address\":\"5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY\","
                          "\"secretSeed\":\"0x" +
                              std::string(64, '1') + "\"}"),
                      kNone);
                },
                &message),
            ErrorCode::key_invalid);
  EXPECT_NE(message.find("mixed up"), message.npos) << message;
  for (const std::string_view text : {"", "{", "{\"a\"", "{\"a\":\"\\u12\"}", "$NACLshort", "[]",
                                      "{}x", "$ANSIBLE_VAULT;1.1;AES256\n", "gAAAAAB"}) {
    EXPECT_EQ(code_of([&] { read_key(put("bad", text), given("p")); }), ErrorCode::key_invalid)
        << text;
  }
}

TEST_F(WalletTest, TakesThePasswordFromTheEnvironmentAsTheRealToolsHideIt) {
  EXPECT_EQ(password_variable("/a/b.c/hotkeys/x"), "BT_PW__A_B_C_HOTKEYS_X");
  // Recorded from bittensor_core 0.1.5 for "secret pw".
  EXPECT_EQ(hide_password("BT_PW__A_B_C_HOTKEYS_X", "secret pw"), "MTE8IjIrfzEo");
  ASSERT_EQ(setenv("BT_PW__A_B_C_HOTKEYS_X", "MTE8IjIrfzEo", 1), 0);
  const auto password = password_from_environment()("/a/b.c/hotkeys/x");
  ASSERT_TRUE(password.has_value());
  EXPECT_EQ(password->text(), "secret pw");
  EXPECT_FALSE(password_from_environment()("/a/other").has_value());
  ASSERT_EQ(setenv("BT_PW__A_B_C_HOTKEYS_X", "not base64!", 1), 0);
  EXPECT_EQ(code_of([] { password_from_environment()("/a/b.c/hotkeys/x"); }),
            ErrorCode::password_wrong);
}

TEST_F(WalletTest, TakesThePasswordFromADescriptor) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  ASSERT_EQ(write(ends[1], "one\r\ntwo", 8), 8);
  close(ends[1]);
  const PasswordSource source = password_from_descriptor(ends[0]);
  EXPECT_EQ(source("x")->text(), "one");
  EXPECT_EQ(source("x")->text(), "two");
  close(ends[0]);
}

}  // namespace
}  // namespace yumoe
