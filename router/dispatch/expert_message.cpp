#include "router/expert_message.hpp"

#include <xxhash.h>

#include "router/wire.hpp"
#include "schemas/expert.capnp.h"

namespace yumoe {
namespace {

void check_frames(std::span<const Bytes> frames) {
  if (frames.size() != 2) wire::malformed("an expert's message is a header and a payload");
}

void check_shape(std::uint32_t rows, std::uint32_t width) {
  if (rows == 0 || rows > kExpertRowsMax) wire::malformed("rows are out of range");
  if (width == 0 || width > kExpertWidthMax) wire::malformed("width is out of range");
}

void check_payload(ByteView payload, std::size_t numbers, const PayloadDigest& digest) {
  if (payload.size() != numbers * sizeof(float)) wire::malformed("the payload has another size");
  if (payload_digest(payload) != digest) {
    throw Error(ErrorCode::digest_mismatch, "rows of an expert");
  }
}

}  // namespace

PayloadDigest payload_digest(ByteView payload) {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits(payload.data(), payload.size()));
  PayloadDigest digest;
  std::copy(std::begin(canonical.digest), std::end(canonical.digest), digest.begin());
  return digest;
}

std::vector<Bytes> encode(const ExpertCall& call, Bytes payload) {
  const PayloadDigest digest = payload_digest(payload);
  Bytes header = wire::write_message<wire::ExpertCall>([&](wire::ExpertCall::Builder out) {
    out.setId(call.id);
    out.setKind(call.backward ? wire::ExpertCall::Kind::BACKWARD : wire::ExpertCall::Kind::FORWARD);
    out.setVersion(wire::data(call.version.bytes));
    out.setLayer(call.layer);
    out.setExpert(call.expert);
    out.setRows(call.rows);
    out.setWidth(call.width);
    out.setKeep(call.keep);
    out.setForwardId(call.forward_id);
    out.setDigest(wire::data(digest));
  });
  std::vector<Bytes> frames;
  frames.push_back(std::move(header));
  frames.push_back(std::move(payload));
  return frames;
}

std::vector<Bytes> encode(const ExpertAnswer& answer, Bytes payload) {
  const PayloadDigest digest = payload_digest(payload);
  Bytes header = wire::write_message<wire::ExpertAnswer>([&](wire::ExpertAnswer::Builder out) {
    out.setId(answer.id);
    out.setStatus(static_cast<wire::ExpertAnswer::Status>(answer.status));
    out.setVersion(wire::data(answer.version.bytes));
    out.setCredits(answer.credits);
    out.setRows(answer.rows);
    out.setWidth(answer.width);
    out.setDigest(wire::data(digest));
  });
  std::vector<Bytes> frames;
  frames.push_back(std::move(header));
  frames.push_back(std::move(payload));
  return frames;
}

namespace {

ExpertCall read_header(std::span<const Bytes> frames, PayloadDigest& digest) {
  check_frames(frames);
  const ExpertCall call =
      wire::read_message<wire::ExpertCall>(frames[0], [&](wire::ExpertCall::Reader in) {
        ExpertCall read;
        read.id = in.getId();
        if (in.getKind() > wire::ExpertCall::Kind::BACKWARD)
          wire::malformed("unknown kind of call");
        read.backward = in.getKind() == wire::ExpertCall::Kind::BACKWARD;
        read.version = wire::digest_of_field(in.getVersion(), "version");
        read.layer = in.getLayer();
        read.expert = in.getExpert();
        read.rows = in.getRows();
        read.width = in.getWidth();
        read.keep = in.getKeep();
        read.forward_id = in.getForwardId();
        digest = wire::array_of<16>(in.getDigest(), "digest");
        return read;
      });
  check_shape(call.rows, call.width);
  return call;
}

}  // namespace

ExpertCall decode_expert_header(std::span<const Bytes> frames) {
  PayloadDigest digest{};
  return read_header(frames, digest);
}

ExpertCall decode_expert_call(std::span<const Bytes> frames) {
  PayloadDigest digest{};
  const ExpertCall call = read_header(frames, digest);
  check_payload(frames[1], call.numbers(), digest);
  return call;
}

ExpertAnswer decode_expert_answer(std::span<const Bytes> frames) {
  check_frames(frames);
  PayloadDigest digest{};
  const ExpertAnswer answer =
      wire::read_message<wire::ExpertAnswer>(frames[0], [&](wire::ExpertAnswer::Reader in) {
        ExpertAnswer read;
        read.id = in.getId();
        if (in.getStatus() > wire::ExpertAnswer::Status::BUSY) {
          wire::malformed("unknown status of an answer");
        }
        read.status = static_cast<ExpertStatus>(in.getStatus());
        read.version = wire::digest_of_field(in.getVersion(), "version");
        read.credits = in.getCredits();
        read.rows = in.getRows();
        read.width = in.getWidth();
        digest = wire::array_of<16>(in.getDigest(), "digest");
        return read;
      });
  if (answer.status == ExpertStatus::ok) check_shape(answer.rows, answer.width);
  check_payload(frames[1],
                answer.status == ExpertStatus::ok ? std::size_t{answer.rows} * answer.width : 0,
                digest);
  return answer;
}

}  // namespace yumoe
