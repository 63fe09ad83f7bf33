#pragma once
// Between Cap'n Proto readers and checked values: what the protocol's messages and the journal's
// events are read and written with.

#include <capnp/message.h>
#include <capnp/serialize.h>

#include "cluster/error.hpp"
#include "router/protocol.hpp"
#include "schemas/protocol.capnp.h"

namespace yumoe::wire {

[[noreturn]] inline void malformed(const std::string& why) {
  throw Error(ErrorCode::message_malformed, why);
}

inline kj::ArrayPtr<const kj::byte> data(ByteView bytes) { return {bytes.data(), bytes.size()}; }

inline Bytes bytes_of(capnp::Data::Reader reader, std::size_t bytes_max, const char* field) {
  if (reader.size() > bytes_max) malformed(std::string(field) + " is too long");
  return Bytes(reader.begin(), reader.end());
}

template <std::size_t N>
std::array<std::uint8_t, N> array_of(capnp::Data::Reader reader, const char* field) {
  if (reader.size() != N) malformed(std::string(field) + " has the wrong length");
  std::array<std::uint8_t, N> array;
  std::copy(reader.begin(), reader.end(), array.begin());
  return array;
}

inline Digest digest_of_field(capnp::Data::Reader reader, const char* field) {
  return {array_of<32>(reader, field)};
}

// A digest that may be absent: all zero then.
inline Digest optional_digest(capnp::Data::Reader reader, const char* field) {
  return reader.size() == 0 ? Digest{} : digest_of_field(reader, field);
}

inline std::string text_of(capnp::Text::Reader reader, std::size_t bytes_max, const char* field) {
  if (reader.size() > bytes_max) malformed(std::string(field) + " is too long");
  return std::string(reader.cStr(), reader.size());
}

template <typename List>
void check_count(const List& list, std::size_t count_max, const char* field) {
  if (list.size() > count_max) malformed(std::string(field) + " has too many entries");
}

template <typename List>
std::vector<std::uint32_t> numbers_of(const List& list, std::size_t count_max, const char* field) {
  check_count(list, count_max, field);
  std::vector<std::uint32_t> numbers;
  numbers.reserve(list.size());
  for (const std::uint32_t number : list) numbers.push_back(number);
  return numbers;
}

inline double finite_of(double value, const char* field) {
  if (!(value > -1e300 && value < 1e300)) malformed(std::string(field) + " is not finite");
  return value;
}

inline double not_negative_of(double value, const char* field) {
  if (!(value >= 0 && value < 1e300)) malformed(std::string(field) + " is negative or not finite");
  return value;
}

// Runs `read` on the message's root; Cap'n Proto's own complaints become Error{message_malformed}.
template <typename Root, typename Read>
auto read_message(ByteView bytes, Read read) {
  if (bytes.empty() || bytes.size() % sizeof(capnp::word) != 0)
    malformed("length is not whole words");
  // Messages come at any address; Cap'n Proto reads whole words.
  auto words = kj::heapArray<capnp::word>(bytes.size() / sizeof(capnp::word));
  std::copy(bytes.begin(), bytes.end(), words.asBytes().begin());
  try {
    capnp::ReaderOptions options;
    options.traversalLimitInWords = 4 * words.size() + 1024;
    options.nestingLimit = 16;
    capnp::FlatArrayMessageReader reader(words, options);
    return read(reader.getRoot<Root>());
  } catch (const kj::Exception& exception) {
    malformed(exception.getDescription().cStr());
  }
}

template <typename Root, typename Write>
Bytes write_message(Write write) {
  capnp::MallocMessageBuilder builder;
  write(builder.initRoot<Root>());
  const kj::Array<capnp::word> words = capnp::messageToFlatArray(builder);
  const auto flat = words.asBytes();
  return Bytes(flat.begin(), flat.end());
}

void write(Shard::Builder out, const TrainingShard& shard);
TrainingShard read(Shard::Reader in);
void write(Profile::Builder out, const WorkerProfile& profile);
WorkerProfile read(Profile::Reader in);
void write(ToCoordinator::Scores::Builder out, const yumoe::Scores& scores);
yumoe::Scores read(ToCoordinator::Scores::Reader in);

}  // namespace yumoe::wire
