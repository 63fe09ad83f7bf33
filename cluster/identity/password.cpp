#include <fcntl.h>
#include <sodium.h>
#include <termios.h>
#include <unistd.h>

#include <cctype>
#include <cerrno>
#include <cstdlib>

#include "cluster/error.hpp"
#include "cluster/wallet.hpp"

namespace yumoe {
namespace {

constexpr std::size_t kPasswordBytesMax = 1024;

LockedBytes read_line(int descriptor) {
  LockedBytes line(kPasswordBytesMax);
  std::size_t length = 0;
  while (length < line.size()) {
    const ssize_t got = read(descriptor, line.data() + length, 1);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      throw Error(ErrorCode::password_wrong, "reading a password: the descriptor cannot be read");
    }
    if (got == 0 || line[length] == '\n') break;
    ++length;
  }
  if (length == line.size()) {
    throw Error(ErrorCode::password_wrong, "reading a password: it is longer than 1023 bytes");
  }
  if (length > 0 && line[length - 1] == '\r') --length;
  line.shrink(length);
  return line;
}

// The terminal without echo, put back as it was whatever happens.
class SilentTerminal {
 public:
  SilentTerminal() : descriptor_(open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY)) {
    if (descriptor_ < 0 || tcgetattr(descriptor_, &before_) != 0) {
      if (descriptor_ >= 0) close(descriptor_);
      throw Error(ErrorCode::password_wrong,
                  "asking for a password: there is no terminal: give it by file descriptor or "
                  "environment");
    }
    termios silent = before_;
    silent.c_lflag &= static_cast<tcflag_t>(~ECHO);
    silent.c_lflag |= ECHONL;
    tcsetattr(descriptor_, TCSAFLUSH, &silent);
  }
  SilentTerminal(const SilentTerminal&) = delete;
  SilentTerminal& operator=(const SilentTerminal&) = delete;
  ~SilentTerminal() {
    tcsetattr(descriptor_, TCSAFLUSH, &before_);
    close(descriptor_);
  }

  LockedBytes ask(std::string_view question) {
    if (write(descriptor_, question.data(), question.size()) < 0) {
      throw Error(ErrorCode::password_wrong,
                  "asking for a password: the terminal cannot be written");
    }
    return read_line(descriptor_);
  }

 private:
  int descriptor_;
  termios before_{};
};

void exclusive_or(std::span<std::uint8_t> bytes, std::string_view key) {
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] ^= static_cast<std::uint8_t>(key[i % key.size()]);
  }
}

std::optional<LockedBytes> revealed(std::string_view variable, std::string_view value) {
  LockedBytes password(value.size() + 1);
  std::size_t length = 0;
  const char* end = nullptr;
  if (sodium_base642bin(password.data(), password.size(), value.data(), value.size(), "\r\n",
                        &length, &end, sodium_base64_VARIANT_ORIGINAL) != 0 ||
      end != value.data() + value.size()) {
    throw Error(ErrorCode::password_wrong,
                "reading the password in " + std::string(variable) +
                    ": it is not base64: write it with the wallet's tool");
  }
  password.shrink(length);
  exclusive_or(password.span(), variable);
  return password;
}

}  // namespace

std::string password_variable(const std::filesystem::path& keyfile) {
  std::string name = "BT_PW_";
  for (const char c : keyfile.string()) {
    name +=
        c == '/' || c == '.' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  return name;
}

std::string hide_password(std::string_view variable, std::string_view password) {
  require_sodium();
  LockedBytes hidden(as_bytes(password));
  exclusive_or(hidden.span(), variable);
  std::string text(sodium_base64_ENCODED_LEN(hidden.size(), sodium_base64_VARIANT_ORIGINAL), '\0');
  sodium_bin2base64(text.data(), text.size(), hidden.data(), hidden.size(),
                    sodium_base64_VARIANT_ORIGINAL);
  text.pop_back();  // its terminating zero
  return text;
}

PasswordSource password_from_prompt() {
  return [](const std::filesystem::path& file) -> std::optional<LockedBytes> {
    SilentTerminal terminal;
    return terminal.ask("Password for " + file.string() + ": ");
  };
}

PasswordSource password_from_descriptor(int descriptor) {
  return [descriptor](const std::filesystem::path&) -> std::optional<LockedBytes> {
    return read_line(descriptor);
  };
}

PasswordSource password_from_environment() {
  return [](const std::filesystem::path& file) -> std::optional<LockedBytes> {
    require_sodium();
    const std::string variable = password_variable(file);
    const char* value = std::getenv(variable.c_str());
    return value == nullptr ? std::nullopt : revealed(variable, value);
  };
}

PasswordSource first_password_of(PasswordSource first, PasswordSource second) {
  return [first = std::move(first), second = std::move(second)](const std::filesystem::path& file) {
    std::optional<LockedBytes> password = first(file);
    return password ? std::move(password) : second(file);
  };
}

}  // namespace yumoe
